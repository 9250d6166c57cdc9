"""Reads for which stale rows will do: from the replica, and nothing else."""

import pathlib

import fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories


class TestStale(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A copy of an empty database is a replica that lags for ever.
        directory = self.useFixture(fixtures.TempDir()).path
        path = pathlib.Path(directory, 'replica.sqlite')
        engine = sa.create_engine(f'sqlite:///{path}')
        models.Base.metadata.create_all(engine)
        engine.dispose()
        self.replica = f'sqlite:///{path}'
        self.stale = self.context.stale()

    def hosts(self, ctx: context.RequestContext) -> list[str]:
        """Return whom a context sees."""
        return [row.host for row in db.api.service_get_all(ctx)]

    def test_reads_that_may_be_stale_go_to_slave_connection(self) -> None:
        self.database.configure(slave_connection=self.replica)
        service = factories.create_service(host='h1')
        self.assertEqual([], self.hosts(self.stale))
        self.assertEqual(['h1'], self.hosts(self.context))
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_get,
            self.stale,
            service.id,
        )

    def test_without_one_they_go_to_the_primary(self) -> None:
        factories.create_service(host='h1')
        self.assertEqual(['h1'], self.hosts(self.stale))
        with db.api.transaction(self.stale, read_only=True):
            self.assertEqual(['h1'], self.hosts(self.stale))

    def test_elevated_copies_are_stale_too_and_the_others_are_not(
        self,
    ) -> None:
        self.database.configure(slave_connection=self.replica)
        factories.create_service(host='h1')
        self.assertEqual([], self.hosts(self.stale.elevated()))
        self.assertEqual(['h1'], self.hosts(self.context.elevated()))

    def test_writes_go_to_the_primary(self) -> None:
        self.database.configure(slave_connection=self.replica)
        service = factories.create_service(host='h1')
        db.api.service_heartbeat(self.stale, service.id)
        db.api.service_update(self.stale, service.id, {'version': 2})
        self.assertEqual(
            2, db.api.service_get(self.context, service.id).version
        )

    def test_a_snapshot_is_of_the_replica(self) -> None:
        self.database.configure(slave_connection=self.replica)
        factories.create_service(host='h1')
        with db.api.transaction(self.stale, read_only=True):
            self.assertEqual([], self.hosts(self.stale))
            self.assertEqual([], self.hosts(self.context))
        with db.api.transaction(self.context, read_only=True):
            self.assertEqual(['h1'], self.hosts(self.stale))

    def test_a_transaction_reads_what_it_has_written(self) -> None:
        self.database.configure(slave_connection=self.replica)
        with db.api.transaction(self.stale):
            db.api.service_create(self.stale, {'host': 'h1', 'binary': 'b'})
            self.assertEqual(['h1'], self.hosts(self.stale))
        self.assertEqual(['h1'], self.hosts(self.context))

    def test_a_replica_that_is_gone_is_an_error_for_those_only(self) -> None:
        self.database.configure(
            slave_connection='mysql+pymysql://nobody@127.0.0.1:1/x',
            db_max_retries=0,
        )
        factories.create_service(host='h1')
        self.assertEqual(['h1'], self.hosts(self.context))
        self.assertRaises(
            db_exception.DBConnectionError, self.hosts, self.stale
        )

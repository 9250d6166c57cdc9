"""A MariaDB replica that lags: who asked for it reads there, nobody else."""

import time
from collections.abc import Callable

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice import servers
from myservice.db import models
from myservice.tests import factories
from myservice.tests.functional import base

# Seconds that the replica waits before it does what the primary has done.
LAG = 1

THREADS = 8
UPDATES = 20


class TestReplica(base.ServerTestCase):
    server_class = servers.MariaDB
    settings = {'server_id': 1, 'log_bin': 'binlog'}

    def setUp(self) -> None:
        super().setUp()
        replica = self.useFixture(servers.MariaDB(server_id=2))
        primary = self.database.engine()
        with primary.connect() as connection:
            # The tables are there already, on the primary only.
            models.Base.metadata.create_all(sa.create_engine(replica.url))
            connection.exec_driver_sql('RESET MASTER')
        with sa.create_engine(replica.url).connect() as connection:
            connection.exec_driver_sql(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', "
                f"MASTER_PORT={self.server.port}, MASTER_USER='root', "
                "MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4, "
                f'MASTER_DELAY={LAG}'
            )
            connection.exec_driver_sql('START SLAVE')
        name = primary.url.database
        self.database.configure(
            slave_connection=str(sa.make_url(replica.url).set(database=name))
        )
        self.stale = self.context.stale()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the replica is so far."""
        end = time.monotonic() + 30
        while not condition():
            self.assertTrue(time.monotonic() < end, 'it never was')
            time.sleep(0.05)

    def is_there(self, service_id: str) -> bool:
        """Return whether the replica has a service."""
        try:
            db.api.service_get(self.stale, service_id)
        except exception.ServiceNotFound:
            return False
        return True

    def test_only_who_asked_for_it_reads_what_is_out_of_date(self) -> None:
        service = factories.create_service(version=0)
        self.assertFalse(self.is_there(service.id))
        self.wait_for(lambda: self.is_there(service.id))
        ids = [factories.create_service().id for _ in range(THREADS)]
        self.wait_for(lambda: self.is_there(ids[-1]))

        def work(number: int) -> int:
            ctx = context.get_admin_context()
            behind = 0
            for version in range(1, UPDATES + 1):
                db.api.service_update(ctx, ids[number], {'version': version})
                fresh = db.api.service_get(ctx, ids[number])
                self.assertEqual(version, fresh.version)
                stale = db.api.service_get(ctx.stale(), ids[number])
                behind += stale.version < version
            return behind

        # The lag is longer than all that takes.
        self.assertEqual([UPDATES] * THREADS, self.in_threads(THREADS, work))
        self.wait_for(
            lambda: all(
                row.version == UPDATES
                for row in db.api.service_get_all(self.stale)
                if row.id in ids
            )
        )

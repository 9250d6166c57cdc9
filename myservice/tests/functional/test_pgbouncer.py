"""The layer before a PgBouncer in transaction mode.

All tests of the database API pass there::

    python -m myservice.servers pgbouncer -- stestr run

The essential ones are run here.
"""

import os
import subprocess
import sys
import threading
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import db
from myservice import servers
from myservice.cmd import manage
from myservice.tests import factories
from myservice.tests.functional import base

# Below myservice.tests.unit.db.
SUITE = (
    'engine.test_error_types',
    'engine.test_url_arguments',
    'quotas.test_reservation',
    'quotas.test_usage',
    'resources.test_claim',
    'resources.test_resource',
    'test_round_trips',
    'test_service',
    'transaction.test_hooks',
    'transaction.test_lost_commit',
    'transaction.test_retry',
    'transaction.test_scopes',
    'transaction.test_session',
    'transaction.test_stale',
)


class TestPgBouncer(base.ServerTestCase):
    server_class = servers.PgBouncer

    @property
    def behind(self) -> servers.PostgreSQL:
        """The server behind it."""
        assert isinstance(self.server, servers.PgBouncer)
        return self.server.server

    def switch(self, count: int = 40) -> None:
        """Let threads use the connections of the server in turns."""

        def work(number: int) -> None:
            made = factories.create_service(host=f'h{number}')
            for _ in range(count):
                db.api.service_heartbeat(self.context, made.id)
                found = db.api.service_get(self.context, made.id)
                self.assertEqual(made.id, found.id)
                db.api.service_update(self.context, made.id, {'version': 2})

        self.assertEqual([None] * 8, self.in_threads(8, work))

    def with_url(self, **query: str) -> str:
        url = sa.make_url(self.server.url).update_query_dict(query)
        return url.render_as_string(hide_password=False)

    def test_the_suite_of_the_database_api_passes(self) -> None:
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'unittest', '-q'),
                *(f'myservice.tests.unit.db.{name}' for name in SUITE),
            ],
            env=os.environ | {servers.CONNECTION: self.server.url},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr[-10000:])

    def test_nothing_is_prepared_and_nothing_is_repeated(self) -> None:
        before = db.api.statistics().retries
        self.switch()
        self.assertEqual(before, db.api.statistics().retries)
        with self.database.engine('autocommit').connect() as connection:
            prepared = connection.exec_driver_sql(
                'SELECT count(*) FROM pg_prepared_statements'
            )
            self.assertEqual(0, prepared.scalar())

    def test_each_engine_finds_out_alone(self) -> None:
        self.switch(1)
        for form in ('transaction', 'autocommit', 'snapshot'):
            held = [self.database.engine(form).connect() for _ in range(3)]
            for connection in held:
                driver: Any = connection.connection.driver_connection
                self.assertIsNone(driver.prepare_threshold)
                connection.close()

    def test_without_a_pooler_statements_are_prepared(self) -> None:
        self.database.configure(connection=self.behind.url)
        with self.database.engine('autocommit').connect() as connection:
            driver: Any = connection.connection.driver_connection
            self.assertEqual(5, driver.prepare_threshold)

    def test_migrations_at_once_wait_for_one_another(self) -> None:
        with self.database.engine('autocommit').connect() as connection:
            for sql in ('DROP SCHEMA public CASCADE', 'CREATE SCHEMA public'):
                connection.exec_driver_sql(sql)
        config = self.write_config()
        codes: list[int] = []

        def sync() -> None:
            done = subprocess.run(
                self.program('manage', config, 'db', 'sync'), check=False
            )
            codes.append(done.returncode)

        threads = [threading.Thread(target=sync) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([0, 0, 0], codes)
        self.assertEqual(
            0, manage.main(['--config-file', config, 'db', 'check'])
        )

    def test_a_server_that_restarts_behind_it_is_survived(self) -> None:
        made = factories.create_service()
        self.behind.stop()
        self.behind.start()
        db.api.service_heartbeat(self.context, made.id)

    def test_what_it_does_not_let_through_is_final(self) -> None:
        self.database.configure(
            connection=self.with_url(options='-c geqo=off')
        )
        before = db.api.statistics().retries
        error = self.assertRaises(
            db_exception.DBError, db.api.service_get_all, self.context
        )
        self.assertIn('unsupported startup parameter', str(error))
        self.assertEqual(before, db.api.statistics().retries)

    def test_so_is_a_database_that_it_does_not_know(self) -> None:
        url = sa.make_url(self.server.url).set(database='nosuch')
        self.database.configure(
            connection=url.render_as_string(hide_password=False)
        )
        self.assertRaises(
            db_exception.DBNonExistentDatabase,
            db.api.service_get_all,
            self.context,
        )


class TestOptions(base.ServerTestCase):
    """What it is told to ignore does no harm."""

    server_class = servers.PgBouncer
    settings = {'ignore_startup_parameters': 'options'}

    def test_options_that_are_ignored(self) -> None:
        url = sa.make_url(self.server.url).update_query_dict(
            {'options': '-c geqo=off'}
        )
        self.database.configure(
            connection=url.render_as_string(hide_password=False)
        )
        self.assertEqual([], db.api.service_get_all(self.context))

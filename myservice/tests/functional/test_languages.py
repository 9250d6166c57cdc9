"""Servers that speak another language, and what they refuse."""

import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice import servers
from myservice.db import models
from myservice.tests import factories
from myservice.tests.functional import base
from myservice.tests.unit.db.engine import test_error_types

_SERVICES = models.Base.metadata.tables['services']


class MariaDBTestCase(base.ServerTestCase):
    server_class = servers.MariaDB
    settings = {'lc_messages': 'de_DE', 'innodb_lock_wait_timeout': 1}
    word = 'Tabelle'


class PostgreSQLTestCase(base.ServerTestCase):
    server_class = servers.PostgreSQL
    settings = {'language': 'de', 'lock_timeout': '1s'}
    word = 'Relation'


class Calls(base.ServerTestCase):
    """What the layer itself does when it meets an error."""

    word: str

    def test_it_does_speak_it(self) -> None:
        with db.api.get_engine().connect() as connection:
            error = self.assertRaises(
                db_exception.DBNonExistentTable,
                connection.exec_driver_sql,
                'SELECT * FROM nosuch',
            )
        self.assertIn(self.word, str(error))

    def test_what_exists(self) -> None:
        factories.create_service(host='h', binary='b')
        self.assertRaises(
            exception.ServiceExists,
            factories.create_service,
            host='h',
            binary='b',
        )

    def test_a_deadlock_is_tried_again(self) -> None:
        rows = [factories.create_service(version=0).id for _ in range(2)]
        barrier = threading.Barrier(2)
        attempts: list[int] = []

        def work(number: int) -> None:
            own = context.get_admin_context()

            def change(ctx: context.RequestContext) -> None:
                attempts.append(number)
                first, second = rows if number else reversed(rows)
                self._add_one(ctx, first)
                if len(attempts) <= 2:
                    barrier.wait(60)
                self._add_one(ctx, second)

            db.api.run_in_transaction(own, change)

        self.assertEqual([None, None], self.in_threads(2, work))
        self.assertGreater(len(attempts), 2)
        for service in db.api.service_get_all(self.context):
            self.assertEqual(2, service.version)

    def _add_one(self, ctx: context.RequestContext, row_id: str) -> None:
        version = db.api.service_get(ctx, row_id).version
        db.api.service_update(ctx, row_id, {'version': version + 1})

    def test_a_wait_for_a_lock_is_tried_again(self) -> None:
        service = factories.create_service(version=0)
        self.database.configure(db_max_retries=1)
        before = db.api.statistics().retries
        with sa.create_engine(self.database.connection).connect() as holder:
            holder.execute(sa.update(_SERVICES).values(version=5))
            self.assertRaises(
                db_exception.DBDeadlock,
                db.api.service_update,
                self.context,
                service.id,
                {'version': 1},
            )
        self.assertNotEqual(before, db.api.statistics().retries)


class TestMariaDB(Calls, MariaDBTestCase):
    pass


class TestPostgreSQL(Calls, PostgreSQLTestCase):
    pass


class TestWrongStatementsOfMariaDB(
    test_error_types.TestWrongStatements, MariaDBTestCase
):
    pass


class TestWrongStatementsOfPostgreSQL(
    test_error_types.TestWrongStatements, PostgreSQLTestCase
):
    pass


class TestDetailsOfMariaDB(test_error_types.TestDetails, MariaDBTestCase):
    pass


class TestDetailsOfPostgreSQL(
    test_error_types.TestDetails, PostgreSQLTestCase
):
    pass


class TestDetailsOfPostgreSQLInFrench(
    test_error_types.TestDetails, base.ServerTestCase
):
    server_class = servers.PostgreSQL
    settings = {'language': 'fr'}


class TestDetailsOfPostgreSQLInJapanese(
    test_error_types.TestDetails, base.ServerTestCase
):
    server_class = servers.PostgreSQL
    settings = {'language': 'ja'}


class RefusedConnections(base.ServerTestCase):
    """Connections that do not come about, and whether to try again."""

    _retries: int

    def refusal(self, attempts: int, **parts: Any) -> Any:
        """Return the error of a call whose URL has other parts.

        :param attempts: how many the call should make
        """
        url = sa.make_url(self.server.url).set(**parts)
        self.database.configure(
            connection=url.render_as_string(hide_password=False),
            db_max_retries=3,
        )
        tried: list[None] = []

        def call(_: object) -> None:
            tried.append(None)
            with db.api.get_session().begin():
                db.api.get_engine().connect()

        try:
            db.api.run_in_transaction(self.context, call)
        except Exception as error:
            self.assertEqual(attempts, self._attempts(), error)
            return error
        raise AssertionError('it was let in')

    def _attempts(self) -> int:
        """Return how many attempts there were since it was asked last."""
        before = self._retries
        self._retries = sum(db.api.statistics().retries.values())
        return self._retries - before + 1

    def setUp(self) -> None:
        super().setUp()
        self._retries = sum(db.api.statistics().retries.values())
        self.root = sa.create_engine(
            self.server.root_url, isolation_level='AUTOCOMMIT'
        )
        self.addCleanup(self.root.dispose)

    def sql(self, *statements: str) -> None:
        with self.root.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


class TestRefusedByMariaDB(RefusedConnections, MariaDBTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sql(
            "CREATE OR REPLACE USER app@localhost IDENTIFIED BY 'secret'",
            "CREATE OR REPLACE USER app@'127.0.0.1' IDENTIFIED BY 'secret'",
        )

    def test_the_final_ones(self) -> None:
        app = {'username': 'app'}
        for kind, parts in (
            (db_exception.DBError, app | {'password': 'wrong'}),
            (db_exception.DBError, {'username': 'nobody', 'password': 'x'}),
            (db_exception.DBError, app | {'password': 'secret'}),
            (db_exception.DBNonExistentDatabase, {'database': 'nosuch'}),
        ):
            self.assertIs(kind, type(self.refusal(1, **parts)), parts)

    def test_a_server_that_is_full(self) -> None:
        self.sql(
            "GRANT ALL ON *.* TO app@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1"
        )
        full = sa.make_url(self.server.url).set(
            username='app', password='secret'
        )
        with sa.create_engine(full).connect():
            error = self.refusal(4, username='app', password='secret')
        self.assertIs(exception.ServerBusy, type(error))


class TestRefusedByPostgreSQL(RefusedConnections, PostgreSQLTestCase):
    def setUp(self) -> None:
        super().setUp()
        rules = self.server.directory / 'data' / 'pg_hba.conf'
        rules.write_text(
            'host all postgres 127.0.0.1/32 trust\n'
            'host all banned 127.0.0.1/32 reject\n'
            'host all all 127.0.0.1/32 scram-sha-256\n'
        )
        self.sql(
            'SELECT pg_reload_conf()',
            'DROP ROLE IF EXISTS app',
            "CREATE ROLE app LOGIN PASSWORD 'secret'",
            'ALTER DATABASE test ALLOW_CONNECTIONS true',
            'GRANT CONNECT ON DATABASE test TO PUBLIC',
        )

    def final(self, kind: type[Exception], **parts: Any) -> Any:
        error = self.refusal(1, **parts)
        self.assertIs(kind, type(error), (parts, error))
        return error

    def test_the_final_ones(self) -> None:
        app = {'username': 'app', 'password': 'secret'}
        for parts in (
            app | {'password': 'wrong'},
            {'username': 'app'},
            {'username': 'nobody', 'password': 'secret'},
            {'username': 'banned'},
        ):
            self.final(db_exception.DBError, **parts)
        error = self.final(
            db_exception.DBNonExistentDatabase, **app | {'database': 'nosuch'}
        )
        self.assertEqual('nosuch', error.database)
        self.sql('REVOKE CONNECT ON DATABASE test FROM PUBLIC')
        self.final(db_exception.DBError, **app)

    def test_a_database_that_is_closed(self) -> None:
        self.sql('ALTER DATABASE test ALLOW_CONNECTIONS false')
        self.addCleanup(self.sql, 'ALTER DATABASE test ALLOW_CONNECTIONS true')
        self.final(db_exception.DBError)

    def test_a_server_that_is_full(self) -> None:
        self.sql('ALTER ROLE app CONNECTION LIMIT 0')
        error = self.refusal(4, username='app', password='secret')
        self.assertIs(exception.ServerBusy, type(error))

    def test_a_server_that_is_away(self) -> None:
        error = self.refusal(4, port=1)
        self.assertIs(db_exception.DBConnectionError, type(error))

    def test_the_same_refusal_is_asked_about_once(self) -> None:
        log = self.server.directory / 'log'
        self.final(db_exception.DBNonExistentDatabase, database='once')
        said = log.read_text().count('»once«')
        self.assertEqual(2, said)
        self.final(db_exception.DBNonExistentDatabase, database='once')
        self.assertEqual(said + 1, log.read_text().count('»once«'))


class TestLatin1(base.ServerTestCase):
    """A database of PostgreSQL that cannot store every character."""

    server_class = servers.PostgreSQL

    def test_what_it_cannot_store(self) -> None:
        root = sa.create_engine(
            self.server.root_url, isolation_level='AUTOCOMMIT'
        )
        self.addCleanup(root.dispose)
        with root.connect() as connection:
            connection.exec_driver_sql(
                "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 "
                "LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        url = sa.make_url(self.server.url).set(database='latin')
        made = sa.create_engine(url)
        self.addCleanup(made.dispose)
        models.Base.metadata.create_all(made)
        self.database.configure(connection=url.render_as_string(False))
        db.api.service_create(
            self.context, {'host': 'm\xfcller', 'binary': 'b'}
        )
        calls: list[Callable[[], Any]] = [
            lambda: factories.create_service(host='\N{GRINNING FACE}'),
            lambda: db.api.service_get_by_host_and_binary(
                self.context, '\N{GRINNING FACE}', 'b'
            ),
        ]
        for call in calls:
            self.assertRaises(db_exception.DBDataError, call)

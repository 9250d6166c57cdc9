"""Engines: what each option does, and what is not sent to the database."""

import contextlib
import gc
import logging
import os
import socket
import threading
import time
import types
from collections.abc import Iterator
from concurrent import futures
from typing import Any
from unittest import mock

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import conf as options
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.engine import engines
from myservice.db.engine.purpose import Purpose
from myservice.tests import base
from myservice.tests import factories
from myservice.tests import proxy

INSERT = sa.text(
    'INSERT INTO operations (id, attempt, created_at) '
    "VALUES (:id, 0, '2026-01-01')"
)
COUNT = sa.text('SELECT COUNT(*) FROM operations')
SERVER_URLS = {
    'mysql': 'mysql+pymysql://nobody@127.0.0.1:{}/nothing',
    'postgresql': 'postgresql+psycopg://nobody@127.0.0.1:{}/nothing',
}
PURPOSES: tuple[Purpose, ...] = (
    'transaction',
    'autocommit',
    'snapshot',
)


class EngineTestCase(base.DatabaseTestCase):
    def connect(self, purpose: Purpose = 'transaction') -> sa.Connection:
        """Take a connection for the rest of the test, or until closed."""
        connection = self.database.engine(purpose).connect()
        self.addCleanup(connection.close)
        return connection

    def driver(self, purpose: Purpose = 'transaction') -> Any:
        """Return the driver's connection that the next caller will get."""
        with self.database.engine(purpose).connect() as connection:
            return connection.connection.driver_connection

    def read(self, sql: str, purpose: Purpose = 'transaction') -> Any:
        """Return the one value of a SELECT or PRAGMA."""
        with self.database.engine(purpose).connect() as connection:
            return connection.execute(sa.text(sql)).scalar()


class SQLiteTestCase(EngineTestCase):
    """About SQLite, whatever the backend of the other tests is."""

    url: str | None = None

    def setUp(self) -> None:
        super().setUp()
        url = self.url
        if url is None:
            directory = self.useFixture(plain_fixtures.TempDir()).path
            url = f'sqlite:///{directory}/test.sqlite'
        self.database = self.useFixture(fixtures.Database(url))
        with self.database.engine().begin() as connection:
            models.Base.metadata.create_all(connection)


class TestConnection(EngineTestCase):
    def test_the_default_is_a_sqlite_file_under_state_path(self) -> None:
        conf = cfg.ConfigOpts()
        conf([], project='myservice', default_config_files=[])
        self.assertEqual(
            '/var/lib/myservice/myservice.sqlite',
            engines.Engines(conf).url.database,
        )
        directory = self.useFixture(plain_fixtures.TempDir()).path
        conf.set_override('state_path', directory)
        db.api.configure(conf)
        self.assertEqual(1, self.read('SELECT 1'))
        self.assertIn('myservice.sqlite', os.listdir(directory))

    def test_connection_names_the_database(self) -> None:
        directory = self.useFixture(plain_fixtures.TempDir()).path
        self.database.configure(connection=f'sqlite:///{directory}/other')
        self.assertEqual(1, self.read('SELECT 1'))
        self.assertIn('other', os.listdir(directory))

    def test_nothing_is_connected_before_it_is_used(self) -> None:
        self.database.configure(connection=SERVER_URLS['mysql'].format(1))
        for purpose in PURPOSES:
            self.database.engine(purpose)
        self.assertRaises(
            db_exception.DBConnectionError, self.read, 'SELECT 1'
        )

    def test_connection_parameters_are_kept_beside_ours(self) -> None:
        if self.backend == 'sqlite':
            self.assertEqual('wal', self.read('PRAGMA journal_mode'))
            path = sa.make_url(self.database.connection).database
            self.database.configure(
                connection=f'sqlite:///file:{path}',
                connection_parameters='uri=true&mode=ro',
            )
            self.assertRaises(
                exception.DatabaseReadOnly,
                self.connect('autocommit').execute,
                INSERT,
                {'id': '1'},
            )
            self.assertEqual(30000, self.read('PRAGMA busy_timeout', 'read'))
        elif self.backend == 'mysql':
            self.database.configure(
                connection_parameters='init_command=SET @mark = 5'
            )
            self.assertEqual(5, self.read('SELECT @mark'))
            self.assertEqual(
                'utf8mb4', self.read('SELECT @@character_set_client')
            )
        else:
            self.database.configure(
                connection_parameters='application_name=mine'
            )
            self.assertEqual('mine', self.read('SHOW application_name'))
            self.assertEqual(
                '60000',
                self.driver().info.get_parameters()['tcp_user_timeout'],
            )

    def test_configure_takes_another_database_and_leaves_the_old(
        self,
    ) -> None:
        factories.create_service(host='h1')
        old = self.database.conf
        directory = self.useFixture(plain_fixtures.TempDir()).path
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf([], project='myservice', default_config_files=[])
        conf.set_override(
            'connection', f'sqlite:///{directory}/x', group='database'
        )
        db.api.configure(conf)
        with self.database.engine().begin() as connection:
            models.Base.metadata.create_all(connection)
        self.assertEqual([], db.api.service_get_all(self.context))
        factories.create_service(host='h2')
        db.api.configure(old)
        self.assertEqual(
            ['h1'],
            [row.host for row in db.api.service_get_all(self.context)],
        )

    def test_after_dispose_the_next_call_opens_a_new_connection(self) -> None:
        service = factories.create_service()
        first = self.driver()
        db.api.dispose()
        self.assertEqual(service, db.api.service_get(self.context, service.id))
        self.assertIsNot(first, self.driver())

    def test_dispose_twice_does_no_harm(self) -> None:
        db.api.dispose()
        db.api.dispose()
        self.assertEqual([], db.api.service_get_all(self.context))


class TestPool(EngineTestCase):
    def test_a_connection_is_used_again(self) -> None:
        for purpose in PURPOSES:
            self.assertIs(self.driver(purpose), self.driver(purpose))

    def test_max_pool_size_is_how_many_stay_open(self) -> None:
        self.database.configure(max_pool_size=2, max_overflow=1)
        taken = [self.connect() for _ in range(3)]
        drivers = [c.connection.driver_connection for c in taken]
        for connection in taken:
            connection.close()
        again = [self.connect() for _ in range(3)]
        kept = {
            id(c.connection.driver_connection)
            for c in again
            if c.connection.driver_connection in drivers
        }
        self.assertEqual(2, len(kept))

    def test_a_max_pool_size_of_0_is_no_limit(self) -> None:
        self.database.configure(
            max_pool_size=0, max_overflow=0, pool_timeout=0
        )
        for _ in range(10):
            self.connect()

    def test_max_overflow_and_pool_timeout_limit_and_the_error_says_so(
        self,
    ) -> None:
        self.database.configure(
            max_pool_size=2, max_overflow=1, pool_timeout=1
        )
        for _ in range(3):
            self.connect()
        started = time.monotonic()
        error = self.assertRaises(exception.PoolTimeout, self.connect)
        self.assertTrue(0.9 < time.monotonic() - started < 5)
        self.assertEqual((1, 3), (error.timeout, error.held))
        self.assertIn('seconds: all 3 are in use', str(error))

    def test_a_waiter_gets_what_another_one_gives_back(self) -> None:
        self.database.configure(
            max_pool_size=1, max_overflow=0, pool_timeout=10
        )
        held = self.connect()
        threading.Timer(0.2, held.close).start()
        started = time.monotonic()
        self.connect()
        self.assertTrue(0.1 < time.monotonic() - started < 5)

    def test_connection_recycle_time_replaces_old_connections(self) -> None:
        self.database.configure(connection_recycle_time=0)
        for purpose in PURPOSES:
            first = self.driver(purpose)
            self.assertIsNot(first, self.driver(purpose))


class TestWhatIsNotSent(EngineTestCase):
    """A round trip is what a call costs, so none is made in vain."""

    def setUp(self) -> None:
        super().setUp()
        # On a machine that is slow, connections are idle for longer.
        self.database.configure(ping_after_idle=60)

    def test_after_commit_nothing(self) -> None:
        with self.commands() as sent:
            session = db.api.get_session()
            with session.begin():
                session.execute(INSERT, {'id': '1'})
        self.assertIn('INSERT', ' '.join(sent))
        self.assertEqual('COMMIT', sent[-1])
        self.assertEqual(1, self.read(str(COUNT)))

    def test_after_a_single_statement_nothing(self) -> None:
        with self.commands() as sent:
            session = db.api.get_session(read_only=True)
            with session.begin():
                session.execute(COUNT)
        self.assertEqual([str(COUNT)], sent)
        with self.commands() as sent:
            session = db.api.get_session(autocommit=True)
            with session.begin():
                session.execute(INSERT, {'id': '1'})
        self.assertEqual(1, len(sent))
        self.assertIn('INSERT', sent[0])

    def test_after_rollback_nothing(self) -> None:
        with self.commands() as sent:
            session = db.api.get_session()
            session.execute(INSERT, {'id': '1'})
            session.rollback()
            session.close()
        self.assertEqual('ROLLBACK', sent[-1])
        self.assertEqual(1, ' '.join(sent).count('ROLLBACK'))

    def test_a_session_dropped_without_an_end_is_rolled_back_once(
        self,
    ) -> None:
        with self.commands() as sent:
            session = db.api.get_session()
            session.execute(INSERT, {'id': '1'})
            del session
            gc.collect()
        self.assertEqual('ROLLBACK', sent[-1])
        self.assertEqual(1, ' '.join(sent).count('ROLLBACK'))
        self.assertEqual(0, self.read(str(COUNT)))

    def test_a_session_closed_without_an_end_is_rolled_back_once(
        self,
    ) -> None:
        with self.commands() as sent:
            session = db.api.get_session()
            session.execute(INSERT, {'id': '1'})
            session.close()
        self.assertEqual('ROLLBACK', sent[-1])
        self.assertEqual(1, ' '.join(sent).count('ROLLBACK'))

    def test_an_unused_connection_sends_nothing(self) -> None:
        with self.commands() as sent:
            for purpose in PURPOSES:
                self.connect(purpose).close()
        self.assertEqual([], sent)


class TestStart(EngineTestCase):
    def test_racing_first_calls_start_one_engine(self) -> None:
        started: list[str] = []
        start = engines.Engines._start

        def slowly(ours: engines.Engines, purpose: Any) -> sa.Engine:
            started.append(purpose)
            time.sleep(0.1)
            return start(ours, purpose)

        self.database.configure()
        with mock.patch.object(engines.Engines, '_start', slowly):
            found = self.in_threads(8, lambda _: self.database.engine())
        self.assertEqual(1, len(set(found)))
        self.assertEqual(['transaction'], started)


class TestFirstConnection(EngineTestCase):
    def test_a_loss_while_the_engine_starts_is_survived(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('nothing travels')
        between = self.use_proxy()
        for number in range(1, 8):
            seen: list[proxy.Command] = []

            def decide(
                command: proxy.Command,
                number: int = number,
                seen: list[proxy.Command] = seen,
            ) -> proxy.Action | None:
                seen.append(command)
                return proxy.DropAfter() if len(seen) == number else None

            between.decide = decide
            self.database.configure()
            db.api.service_register(
                self.context, {'host': f'{number}', 'binary': 'b'}
            )
            self.assertTrue(len(seen) > number)
        self.assertEqual(7, len(db.api.service_get_all(self.context)))


class TestPing(EngineTestCase):
    """Servers only: there is nobody to ping in SQLite."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend == 'sqlite':
            self.skipTest('SQLite has no connection that could be lost')
        self.now = 1000.0
        clock = types.SimpleNamespace(
            monotonic=lambda: self.now, sleep=time.sleep
        )
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.engine.idle_ping.time', clock
            )
        )

    def sent_after_idling(self, seconds: float) -> list[str]:
        """Return what one SELECT sends on a connection that was idle."""
        with self.commands() as sent:
            self.now += seconds
            session = db.api.get_session(read_only=True)
            with session.begin():
                session.execute(COUNT)
        self.assertEqual(str(COUNT), sent[-1])
        return sent[:-1]

    def test_only_an_idle_connection_is_pinged(self) -> None:
        self.assertEqual([], self.sent_after_idling(0.9))
        self.assertEqual(1, len(self.sent_after_idling(1.1)))

    def test_ping_after_idle_moves_the_limit(self) -> None:
        self.database.configure(ping_after_idle=60)
        self.assertEqual([], self.sent_after_idling(59))
        self.assertEqual(1, len(self.sent_after_idling(61)))

    def test_a_ping_after_idle_of_0_pings_each_time(self) -> None:
        self.database.configure(ping_after_idle=0)
        self.assertEqual(1, len(self.sent_after_idling(0)))

    def test_a_lost_idle_connection_is_replaced_unnoticed(self) -> None:
        between = self.use_proxy()
        taken = [self.connect('autocommit') for _ in range(3)]
        for connection in taken:
            connection.close()
        between.drop_all()
        self.now += 6
        between.clear()
        for _ in range(3):
            self.assertEqual(0, self.read(str(COUNT), 'autocommit'))
        # The loss of one tells that the others are lost too.
        kinds = [command.kind for command in between.commands]
        self.assertEqual(1, kinds.count('connect'))


class TestIsolation(EngineTestCase):
    def insert(self, row_id: str) -> None:
        with self.database.engine().begin() as connection:
            connection.execute(INSERT, {'id': row_id})

    def test_autocommit_holds_after_each_statement(self) -> None:
        connection = self.connect('autocommit')
        connection.execute(INSERT, {'id': '1'})
        self.assertEqual(1, self.read(str(COUNT), 'read'))
        connection.rollback()
        self.assertEqual(1, self.read(str(COUNT), 'read'))

    def test_a_transaction_holds_when_it_commits(self) -> None:
        connection = self.connect()
        connection.execute(INSERT, {'id': '1'})
        self.assertEqual(0, self.read(str(COUNT), 'read'))
        connection.commit()
        self.assertEqual(1, self.read(str(COUNT), 'read'))

    def test_a_snapshot_does_not_see_what_comes_later(self) -> None:
        connection = self.connect('snapshot')
        self.assertEqual(0, connection.scalar(COUNT))
        self.insert('1')
        self.assertEqual(0, connection.scalar(COUNT))
        connection.rollback()
        self.assertEqual(1, connection.scalar(COUNT))

    def test_on_a_server_a_transaction_sees_what_others_commit(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('in SQLite nobody commits during a transaction')
        connection = self.connect()
        self.assertEqual(0, connection.scalar(COUNT))
        self.insert('1')
        self.assertEqual(1, connection.scalar(COUNT))

    def test_on_a_server_the_levels_are_those_that_it_knows(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('SQLite has no levels')
        for purpose, level in (
            ('transaction', 'READ COMMITTED'),
            ('snapshot', 'REPEATABLE READ'),
        ):
            connection = self.connect(purpose)
            connection.execute(COUNT)
            self.assertEqual(level, connection.get_isolation_level())


class TestLogging(EngineTestCase):
    def logged(self, **overrides: Any) -> str:
        """Return what SQLAlchemy logs while a row is read."""
        logger = logging.getLogger('sqlalchemy.engine')
        self.addCleanup(logger.setLevel, logger.level)
        log = self.useFixture(
            plain_fixtures.FakeLogger(
                'sqlalchemy.engine', level=None, nuke_handlers=False
            )
        )
        self.database.configure(**overrides)
        self.read('SELECT 4711 AS x')
        output: str = log.output
        return output

    def test_connection_debug_is_off_by_default(self) -> None:
        self.assertEqual('', self.logged())

    def test_a_connection_debug_of_50_logs_statements(self) -> None:
        log = self.logged(connection_debug=50)
        self.assertIn('SELECT 4711 AS x', log)
        self.assertNotIn('(4711,)', log)

    def test_a_connection_debug_of_100_logs_rows_too(self) -> None:
        log = self.logged(connection_debug=100)
        self.assertIn('SELECT 4711 AS x', log)
        self.assertIn('(4711,)', log)

    def test_connection_trace_says_in_sql_who_sent_it(self) -> None:
        for trace in (False, True):
            self.database.configure(connection_trace=trace)
            with self.commands() as sent:
                self.read('SELECT 1', 'autocommit')
            self.assertEqual(trace, 'test_engine.py' in sent[-1], sent)


class TestMariaDB(EngineTestCase):
    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'mysql':
            self.skipTest('about MariaDB')

    def test_it_talks_in_all_of_unicode(self) -> None:
        for variable in ('client', 'connection', 'results'):
            self.assertEqual(
                'utf8mb4', self.read(f'SELECT @@character_set_{variable}')
            )
        self.assertEqual('😀', self.read("SELECT '😀'"))

    def test_a_charset_in_the_url_wins(self) -> None:
        self.database.configure(connection_parameters='charset=latin1')
        self.assertEqual('latin1', self.read('SELECT @@character_set_client'))

    def test_mysql_sql_mode_is_set_in_each_form(self) -> None:
        for purpose in PURPOSES:
            self.assertIn(
                'TRADITIONAL', self.read('SELECT @@sql_mode', purpose)
            )
        self.database.configure(mysql_sql_mode='ANSI_QUOTES')
        for purpose in PURPOSES:
            self.assertEqual(
                'ANSI_QUOTES', self.read('SELECT @@sql_mode', purpose)
            )

    def test_mysql_wsrep_sync_wait_is_set_in_each_form(self) -> None:
        self.assertEqual(0, self.read('SELECT @@wsrep_sync_wait'))
        self.database.configure(mysql_wsrep_sync_wait=7)
        for purpose in PURPOSES:
            self.assertEqual(7, self.read('SELECT @@wsrep_sync_wait', purpose))

    def test_read_timeout_ends_the_wait_for_an_answer(self) -> None:
        self.database.configure(read_timeout=1)
        started = time.monotonic()
        self.assertRaises(
            db_exception.DBConnectionError, self.read, 'SELECT SLEEP(5)'
        )
        self.assertTrue(0.9 < time.monotonic() - started < 8)

    def test_a_read_timeout_in_the_url_wins(self) -> None:
        self.database.configure(
            read_timeout=1, connection_parameters='read_timeout=5'
        )
        self.assertEqual(0, self.read('SELECT SLEEP(1.5)'))


class TestPostgreSQL(EngineTestCase):
    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'postgresql':
            self.skipTest('about PostgreSQL')

    def parameters(self) -> Any:
        return self.driver().info.get_parameters()

    def test_read_timeout_is_how_long_libpq_waits_for_a_dead_host(
        self,
    ) -> None:
        self.assertEqual('60000', self.parameters()['tcp_user_timeout'])
        self.database.configure(read_timeout=7)
        self.assertEqual('7000', self.parameters()['tcp_user_timeout'])

    def test_timeouts_in_the_url_win(self) -> None:
        self.database.configure(
            read_timeout=7,
            connect_timeout=8,
            connection_parameters='tcp_user_timeout=1&connect_timeout=9',
        )
        parameters = self.parameters()
        self.assertEqual('1', parameters['tcp_user_timeout'])
        self.assertEqual('9', parameters['connect_timeout'])


@contextlib.contextmanager
def unanswering() -> Iterator[int]:
    """Give a port of loopback that answers to no attempt to connect."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        # When its queue is full, Linux ignores all who come.
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class TestDeadServer(base.TestCase):
    def use(self, backend: str, port: int = 1, **overrides: Any) -> None:
        self.database = self.useFixture(
            fixtures.Database(SERVER_URLS[backend].format(port), **overrides)
        )

    def seconds_to_fail(self) -> float:
        """Return how long the first use takes to raise."""
        started = time.monotonic()
        self.assertRaises(
            db_exception.DBConnectionError,
            lambda: self.database.engine().connect(),
        )
        return time.monotonic() - started

    def test_by_default_the_first_use_fails_at_once(self) -> None:
        for backend in SERVER_URLS:
            self.use(backend)
            self.assertTrue(self.seconds_to_fail() < 5)

    def test_with_max_retries_the_first_use_tries_again(self) -> None:
        self.use('postgresql', max_retries=2, retry_interval=1)
        self.assertTrue(1 < self.seconds_to_fail() < 9)

    def test_retry_interval_is_the_wait_between_two_tries(self) -> None:
        self.use('mysql', max_retries=3, retry_interval=0)
        self.assertTrue(self.seconds_to_fail() < 5)

    def test_connect_timeout_ends_the_wait_for_a_host(self) -> None:
        for backend in SERVER_URLS:
            with unanswering() as port:
                self.use(backend, port, connect_timeout=2)
                self.assertTrue(1.5 < self.seconds_to_fail() < 4.5, backend)

    def test_a_server_that_accepts_and_says_nothing_is_given_up(self) -> None:
        for backend in SERVER_URLS:
            with socket.create_server(('127.0.0.1', 0)) as listener:
                port = listener.getsockname()[1]
                self.use(backend, port, connect_timeout=2, read_timeout=2)
                self.assertTrue(1.5 < self.seconds_to_fail() < 9, backend)


class TestSQLiteFile(SQLiteTestCase):
    def test_a_new_connection_is_set_up(self) -> None:
        for purpose in PURPOSES:
            for pragma, value in (
                ('journal_mode', 'wal'),
                ('foreign_keys', 1),
                ('busy_timeout', 30000),
                ('synchronous', 2),
            ):
                self.assertEqual(value, self.read(f'PRAGMA {pragma}', purpose))

    def test_all_forms_share_one_pool_of_real_connections(self) -> None:
        for purpose in PURPOSES:
            self.assertIs(self.driver('transaction'), self.driver(purpose))

    def test_without_sqlite_synchronous_nothing_waits_for_the_disk(
        self,
    ) -> None:
        self.database.configure(sqlite_synchronous=False)
        self.assertEqual(0, self.read('PRAGMA synchronous'))

    def test_a_transaction_takes_the_lock_when_it_begins(self) -> None:
        with self.commands() as sent:
            with db.api.transaction(self.context) as session:
                session.execute(COUNT)
        self.assertEqual(['BEGIN IMMEDIATE', str(COUNT), 'COMMIT'], sent)

    def test_a_read_only_transaction_takes_no_lock(self) -> None:
        with self.commands() as sent:
            with db.api.transaction(self.context, read_only=True) as session:
                session.execute(COUNT)
        reads = ['PRAGMA query_only = ON', str(COUNT)]
        self.assertEqual(
            ['BEGIN', *reads, 'COMMIT', 'PRAGMA query_only = OFF'], sent
        )

    def test_a_single_statement_has_no_begin(self) -> None:
        session = db.api.get_session(read_only=True)
        with self.commands() as sent, session.begin():
            session.execute(COUNT)
        self.assertEqual([str(COUNT)], sent)

    def test_readers_do_not_wait_for_the_writer(self) -> None:
        writer = self.connect()
        writer.execute(INSERT, {'id': '1'})
        started = time.monotonic()
        self.assertEqual(0, self.read(str(COUNT), 'snapshot'))
        self.assertEqual(0, self.read(str(COUNT), 'read'))
        self.assertTrue(time.monotonic() - started < 5)

    def test_a_second_writer_waits_for_the_first(self) -> None:
        first = self.connect()
        first.execute(INSERT, {'id': '1'})

        def write() -> Any:
            started = time.monotonic()
            with self.database.engine().begin() as second:
                count = second.scalar(COUNT)
                second.execute(INSERT, {'id': '2'})
            return count, time.monotonic() - started > 0.4

        with futures.ThreadPoolExecutor() as pool:
            second = pool.submit(write)
            time.sleep(0.5)
            first.commit()
            self.assertEqual((1, True), second.result(60))
        self.assertEqual(2, self.read(str(COUNT)))

    def test_many_who_read_and_then_write_all_succeed(self) -> None:
        def add(number: int) -> Any:
            with self.database.engine().begin() as connection:
                before = connection.scalar(COUNT)
                connection.execute(INSERT, {'id': str(number)})
            return before

        counts = self.in_threads(8, add)
        self.assertEqual(list(range(8)), sorted(counts))

    def test_sqlite_busy_timeout_is_how_long_a_writer_waits(self) -> None:
        self.database.configure(sqlite_busy_timeout=0.3)
        first = self.connect()
        first.execute(INSERT, {'id': '1'})
        started = time.monotonic()
        [error] = self.in_threads(1, lambda _: self.read(str(COUNT)))
        self.assertIsInstance(error, db_exception.DBDeadlock)
        self.assertTrue(0.2 < time.monotonic() - started < 8)

    def test_a_timeout_in_the_url_wins(self) -> None:
        self.database.configure(connection_parameters='timeout=3')
        self.assertEqual(3000, self.read('PRAGMA busy_timeout'))


class TestSQLiteInMemory(SQLiteTestCase):
    url = 'sqlite://'

    def test_all_forms_see_one_database(self) -> None:
        with self.database.engine().begin() as connection:
            connection.execute(INSERT, {'id': '1'})
        for purpose in PURPOSES:
            self.assertEqual(1, self.read(str(COUNT), purpose))

    def test_the_api_works_on_it(self) -> None:
        made = factories.create_service()
        self.assertEqual(made, db.api.service_get(self.context, made.id))

    def test_its_connection_is_never_replaced(self) -> None:
        self.database.configure(connection_recycle_time=0)
        self.assertIs(self.driver(), self.driver())

    def test_it_serves_one_user_at_a_time(self) -> None:
        self.database.configure(pool_timeout=1, max_overflow=5)
        self.connect()
        [error] = self.in_threads(1, lambda _: self.connect('autocommit'))
        self.assertIsInstance(error, exception.PoolTimeout)
        self.assertEqual((1, 1), (error.timeout, error.held))

    def test_a_second_user_waits_for_the_first(self) -> None:
        held = self.connect()
        with futures.ThreadPoolExecutor() as pool:
            second = pool.submit(self.read, str(COUNT))
            time.sleep(0.2)
            held.close()
            self.assertEqual(0, second.result(60))

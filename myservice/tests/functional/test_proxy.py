"""What the tests on lost connections may expect of the proxy."""

import time
from collections.abc import Callable
from concurrent import futures
from typing import ClassVar

import sqlalchemy as sa
import testtools

from myservice import servers
from myservice.tests import proxy as faults

INCREMENT = sa.text('UPDATE counter SET value = value + 1')
VALUE = 'SELECT value FROM counter'


class ProxyTestCase(testtools.TestCase):
    """The promises, the same for both servers."""

    server_class: ClassVar[type[servers.Server]]
    server: ClassVar[servers.Server]
    settings: ClassVar[dict[str, str]] = {}
    # What the driver sends in a transaction of one statement.
    transaction: ClassVar[list[str]]
    # How a session finds its number, and how another ends it.
    identify: ClassVar[str]
    kill: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = cls.server_class(**cls.settings)
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)

    def setUp(self) -> None:
        super().setUp()
        self.direct = self.make_engine(self.server.url)
        with self.direct.begin() as connection:
            connection.exec_driver_sql('DROP TABLE IF EXISTS counter')
            connection.exec_driver_sql('CREATE TABLE counter (value INTEGER)')
            connection.exec_driver_sql('INSERT INTO counter VALUES (0)')
        self.proxy = self.useFixture(faults.FaultProxy(self.server.url))
        self.engine = self.make_engine(self.proxy.url)
        # What SQLAlchemy asks on an engine's first connection is done here.
        self.engine.connect().close()
        self.await_quits(1)
        self.proxy.clear()

    def await_quits(self, count: int) -> None:
        # A driver does not wait for an answer to its good-bye.
        deadline = time.monotonic() + 10
        while self.kinds().count('quit') < count:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def make_engine(self, url: str) -> sa.Engine:
        return sa.create_engine(url, poolclass=sa.NullPool)

    def value(self) -> object:
        with self.direct.connect() as connection:
            return connection.exec_driver_sql(VALUE).scalar()

    def increment(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(INCREMENT)

    def lose_increment(self, kind: str, action: faults.Action) -> None:
        self.proxy.decide = lambda command: (
            action if command.kind == kind else None
        )
        error = self.assertRaises(sa.exc.OperationalError, self.increment)
        self.assertTrue(error.connection_invalidated, error)

    def seconds(self, call: Callable[[], object]) -> float:
        start = time.monotonic()
        call()
        return time.monotonic() - start

    def kinds(self) -> list[str]:
        return [command.kind for command in self.proxy.commands]

    def texts(self) -> list[str]:
        return [
            command.sql
            for command in self.proxy.commands
            if command.kind == 'statement'
        ]

    def test_url_differs_in_the_port(self) -> None:
        theirs = sa.make_url(self.server.url)
        ours = sa.make_url(self.proxy.url)
        self.assertNotEqual(theirs.port, ours.port)
        self.assertEqual(theirs, ours.set(port=theirs.port))

    def test_large_result_passes_unharmed(self) -> None:
        expected = [(number, f'{number:0200}') for number in range(5000)]
        table = sa.table('big', sa.column('id'), sa.column('text'))
        with self.engine.begin() as connection:
            connection.exec_driver_sql('DROP TABLE IF EXISTS big')
            connection.exec_driver_sql(
                'CREATE TABLE big (id INTEGER, text VARCHAR(200))'
            )
            connection.execute(
                table.insert(),
                [{'id': number, 'text': text} for number, text in expected],
            )
            rows = connection.execute(table.select().order_by(table.c.id))
            self.assertEqual(expected, [tuple(row) for row in rows])

    def test_huge_value_passes_unharmed(self) -> None:
        # On MySQL more than one packet of 16 MiB, on its way there and back.
        text = 'x' * 17_000_000
        query = sa.select(sa.literal(text), sa.literal('end'))
        with self.engine.connect() as connection:
            row = connection.execute(query).one()
        self.assertTrue((text, 'end') == tuple(row))

    def test_many_updates_at_once_pass(self) -> None:
        statement = sa.text('UPDATE counter SET value = value + :difference')
        with self.engine.begin() as connection:
            connection.execute(
                statement, [{'difference': number} for number in range(100)]
            )
        self.assertEqual(4950, self.value())

    def test_server_error_passes(self) -> None:
        with self.engine.connect() as connection:
            for _ in range(2):
                self.assertRaises(
                    sa.exc.ProgrammingError,
                    connection.exec_driver_sql,
                    'SELECT * FROM absent',
                )
                connection.rollback()
            self.assertEqual(1, connection.scalar(sa.text('SELECT 1')))

    def test_transaction_is_told(self) -> None:
        with self.engine.connect() as connection:
            self.proxy.clear()
            connection.execute(INCREMENT)
            connection.commit()
            self.assertEqual(self.transaction, self.kinds())
            self.assertEqual([INCREMENT.text], self.texts())

    def test_rollback_to_a_savepoint_is_a_statement(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(INCREMENT)
            savepoint = connection.begin_nested()
            self.proxy.clear()
            savepoint.rollback()
            connection.rollback()
        self.assertEqual(['statement', 'rollback'], self.kinds()[:2])

    def test_autocommit_is_a_statement(self) -> None:
        with self.engine.connect() as connection:
            connection.execution_options(isolation_level='AUTOCOMMIT')
            self.proxy.clear()
            connection.execute(INCREMENT)
            self.assertEqual(['statement'], self.kinds())
        self.assertEqual(1, self.value())

    def test_connections_are_numbered(self) -> None:
        for _ in range(2):
            self.engine.connect().close()
        self.assertEqual(
            [faults.Command(number, 'connect') for number in (2, 3)],
            [one for one in self.proxy.commands if one.kind == 'connect'],
        )
        self.await_quits(2)

    def test_drop_before_commit(self) -> None:
        self.lose_increment('commit', faults.DropBefore())
        self.assertEqual(0, self.value())

    def test_drop_after_commit(self) -> None:
        self.lose_increment('commit', faults.DropAfter())
        self.assertEqual(1, self.value())

    def test_drop_middle_of_commit(self) -> None:
        self.lose_increment('commit', faults.DropMiddle())
        self.assertEqual(1, self.value())

    def test_drop_middle_of_select(self) -> None:
        self.proxy.decide = lambda command: (
            faults.DropMiddle() if command.sql == VALUE else None
        )
        with self.engine.connect() as connection:
            self.assertRaises(
                sa.exc.OperationalError,
                connection.exec_driver_sql,
                VALUE,
            )

    def test_deliver_commit_late(self) -> None:
        duration = self.seconds(
            lambda: self.lose_increment('commit', faults.DeliverLate(2))
        )
        self.assertLess(duration, 1.5)
        self.assertEqual(0, self.value())
        time.sleep(3)
        self.assertEqual(1, self.value())

    def test_drop_all_loses_a_late_commit(self) -> None:
        self.lose_increment('commit', faults.DeliverLate(0.2))
        self.proxy.drop_all()
        time.sleep(0.6)
        self.assertEqual(0, self.value())

    def test_delay(self) -> None:
        self.proxy.decide = lambda command: (
            faults.Delay(0.5) if command.kind == 'commit' else None
        )
        self.assertGreaterEqual(self.seconds(self.increment), 0.5)
        self.assertEqual(1, self.value())

    def test_delay_holds_up_one_connection_only(self) -> None:
        self.proxy.decide = lambda command: (
            faults.Delay(2) if command.sql == 'SELECT 1' else None
        )
        with (
            self.engine.connect() as slow,
            futures.ThreadPoolExecutor() as executor,
        ):
            late = executor.submit(slow.exec_driver_sql, 'SELECT 1')
            self.assertLess(self.seconds(self.increment), 1.5)
            self.assertFalse(late.done())
            self.assertEqual(1, late.result().scalar())

    def test_connect_fails(self) -> None:
        for action in (faults.DropBefore(), faults.DropAfter()):
            self.lose_connect(action)
        self.proxy.decide = lambda command: None
        self.engine.connect().close()

    def lose_connect(self, action: faults.Action) -> None:
        self.proxy.decide = lambda command: action
        self.assertRaises(sa.exc.OperationalError, self.engine.connect)

    def test_refuse(self) -> None:
        self.proxy.refuse = True
        self.assertRaises(sa.exc.OperationalError, self.engine.connect)
        self.assertEqual([], self.proxy.commands)
        self.proxy.refuse = False
        self.increment()
        self.assertEqual(1, self.value())

    def test_refuse_spares_open_connections(self) -> None:
        with self.engine.begin() as connection:
            self.proxy.refuse = True
            connection.execute(INCREMENT)
        self.assertEqual(1, self.value())

    def test_drop_all(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(INCREMENT)
            self.proxy.drop_all()
            self.assert_lost(connection)
        self.assertEqual(0, self.value())

    def test_end_of_the_proxy_closes_connections(self) -> None:
        with faults.FaultProxy(self.server.url) as proxy:
            connection = self.make_engine(proxy.url).connect()
            self.addCleanup(connection.close)
        self.assert_lost(connection)

    def test_end_by_the_server_passes(self) -> None:
        with self.engine.connect() as connection:
            number = connection.exec_driver_sql(self.identify).scalar()
            with self.direct.connect() as other:
                other.exec_driver_sql(self.kill.format(number))
            time.sleep(0.2)
            self.assert_lost(connection)

    def assert_lost(self, connection: sa.Connection) -> None:
        error = self.assertRaises(
            sa.exc.OperationalError, connection.exec_driver_sql, 'SELECT 1'
        )
        self.assertTrue(error.connection_invalidated, error)


class MariaDBProxyTestCase(ProxyTestCase):
    """The promises on MariaDB."""

    server_class = servers.MariaDB
    settings = {'max_allowed_packet': '64M'}
    transaction = ['statement', 'commit']
    identify = 'SELECT CONNECTION_ID()'
    kill = 'KILL {}'

    def test_ping(self) -> None:
        engine = sa.create_engine(self.proxy.url, pool_pre_ping=True)
        self.addCleanup(engine.dispose)
        engine.connect().close()
        self.proxy.clear()
        engine.connect().close()
        self.assertEqual('ping', self.proxy.commands[0].kind)

    def test_several_results_pass(self) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql('DROP PROCEDURE IF EXISTS several')
            connection.exec_driver_sql(
                'CREATE PROCEDURE several() BEGIN'
                ' SELECT 1; UPDATE counter SET value = 5; SELECT 2; END'
            )
            cursor = connection.connection.cursor()
            cursor.execute('CALL several()')
            results = [cursor.fetchall()]
            while cursor.nextset():
                results.append(cursor.fetchall())
            self.assertEqual([((1,),), ((2,),), []], results)
            self.assertEqual(5, connection.scalar(sa.text(VALUE)))


class PostgreSQLProxyTestCase(ProxyTestCase):
    """The promises on PostgreSQL."""

    server_class = servers.PostgreSQL
    transaction = ['begin', 'statement', 'commit']
    identify = 'SELECT pg_backend_pid()'
    kill = 'SELECT pg_terminate_backend({})'

    def test_prepared_statement_keeps_its_text(self) -> None:
        with self.engine.connect() as connection:
            self.proxy.clear()
            for _ in range(8):
                connection.execute(INCREMENT)
            self.assertEqual([INCREMENT.text] * 8, self.texts())
            prepared = connection.exec_driver_sql(
                'SELECT statement FROM pg_prepared_statements'
            )
            self.assertIn(INCREMENT.text, prepared.scalars().all())


# Only the servers' own classes are to be found by the test runner.
del ProxyTestCase

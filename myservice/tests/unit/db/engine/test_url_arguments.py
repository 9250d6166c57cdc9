"""What stands in the query of a URL reaches the driver, with its type."""

import socket
from typing import Any
from unittest import mock

import pymysql
import sqlalchemy as sa
from oslo_config import cfg

from myservice import conf as options
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.tests import base

PYMYSQL = 'mysql+pymysql://nobody@127.0.0.1:1/x'
PSYCOPG = 'postgresql+psycopg://nobody@127.0.0.1:1/x'
SQLITE = 'sqlite:////nowhere/x.sqlite'

TYPED: dict[str, dict[str, tuple[str, Any]]] = {
    PYMYSQL: {
        'read_timeout=7': ('read_timeout', 7),
        'write_timeout=7': ('write_timeout', 7),
        'connect_timeout=7': ('connect_timeout', 7),
        'max_allowed_packet=65536': ('max_allowed_packet', 65536),
        'local_infile=true': ('local_infile', True),
        'local_infile=0': ('local_infile', False),
        'binary_prefix=true': ('binary_prefix', True),
        'ssl_disabled=false': ('ssl_disabled', False),
        'ssl_verify_identity=0': ('ssl_verify_identity', False),
        'charset=latin1': ('charset', 'latin1'),
        'init_command=SELECT%201': ('init_command', 'SELECT 1'),
        # Beside FOUND_ROWS, which SQLAlchemy needs.
        'client_flag=8': ('client_flag', 10),
        'ssl_cipher=AES128-SHA': ('ssl', {'cipher': 'AES128-SHA'}),
        'program_name=mine': ('program_name', 'mine'),
        'ssl_key_password=mine': ('ssl_key_password', 'mine'),
        'password=mine': ('password', 'mine'),
    },
    PSYCOPG: {
        'prepare_threshold=3': ('prepare_threshold', 3),
        'prepare_threshold=0': ('prepare_threshold', 0),
        'prepare_threshold=none': ('prepare_threshold', None),
        'prepare_threshold=None': ('prepare_threshold', None),
        'keepalives_idle=7': ('keepalives_idle', '7'),
        'connect_timeout=7': ('connect_timeout', '7'),
        'tcp_user_timeout=7': ('tcp_user_timeout', '7'),
        'options=-c%20geqo%3Doff': ('options', '-c geqo=off'),
        'sslmode=require': ('sslmode', 'require'),
        'target_session_attrs=read-write': (
            'target_session_attrs',
            'read-write',
        ),
        'application_name=mine': ('application_name', 'mine'),
        'password=mine': ('password', 'mine'),
        'host=a:5&host=b:6': ('host', 'a,b'),
    },
}

WRONG = {
    PYMYSQL: {
        'read_timeout=x': 'read_timeout',
        'read_timeout=-1': 'read_timeout is wrong: read_timeout should',
        'connect_timeout=0': 'connect_timeout is wrong: connect_',
        'connect_timeout=': 'connect_timeout',
        'read_timeout=1&read_timeout=2': 'read_timeout is there more than',
        'local_infile=perhaps': 'local_infile is wrong: String is not true',
        'ssl_verify_cert=x': 'ssl_verify_cert',
        'max_allowed_packet=1G': 'max_allowed_packet',
        'client_flag=x': 'client_flag',
        'charset=klingon': 'charset',
        'ssl_ca=/nowhere': 'ssl_ca',
        'port=x': 'port',
        'autocommit=true': 'autocommit cannot be set in a URL',
        'cursorclass=x': 'cursorclass',
        'conv=x': 'conv',
        'ssl=true': 'ssl cannot be set in a URL',
        'compress=true': 'compress',
        'sslmode=require': 'sslmode is not a parameter; there are: binary',
        'timeout=3&read_timeout=3': 'timeout is not a parameter',
    },
    PSYCOPG: {
        'prepare_threshold=x': 'prepare_threshold',
        'prepare_threshold=-1': 'prepare_threshold takes a number from 0, or',
        'connect_timeout=x': 'connect_timeout',
        'keepalives_idle=x': 'keepalives_idle',
        'keepalives=x': 'keepalives',
        'tcp_user_timeout=1s': 'tcp_user_timeout',
        'sslmode=x': 'invalid sslmode value: "x"',
        'sslmode=disable&target_session_attrs=x': 'target_session_attrs',
        'port=x': 'port',
        'port=99999': 'port takes a number from 1 to 65535',
        'autocommit=true': 'autocommit cannot be set in a URL',
        'row_factory=x': 'row_factory',
        'read_timeout=3': 'read_timeout is not a parameter; there are: appl',
        'ssl_ca=/x': 'ssl_ca is not a parameter',
    },
    SQLITE: {
        'timeout=x': 'timeout',
        'timeout=-1': 'timeout',
        'detect_types=x': 'detect_types',
        'cached_statements=x': 'cached_statements',
        'check_same_thread=true': 'check_same_thread takes false or 0',
        'isolation_level=DEFERRED': 'isolation_level is not a parameter',
        'read_timeout=3': 'read_timeout is not a parameter; there are: cached',
        'mode=ro': 'mode needs uri=true',
    },
}


class ArgumentsTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.conf = cfg.ConfigOpts()
        options.register_opts(self.conf)
        self.conf([], project='myservice', default_config_files=[])

    def engines(self, **overrides: str) -> db.api.Engines:
        for name, value in overrides.items():
            self.conf.set_override(name, value, group='database')
        engines = db.api.Engines(self.conf)
        self.addCleanup(engines.dispose)
        return engines

    def arguments(self, engine: sa.Engine) -> dict[str, Any]:
        """Return what the driver is called with."""
        called = mock.Mock(side_effect=RecursionError)
        with (
            mock.patch('pymysql.connections.Connection.__init__', called),
            mock.patch('psycopg.connect', called),
            self.assertRaises(RecursionError),
        ):
            engine.connect()
        return dict(called.call_args.kwargs)


class TestTypes(ArgumentsTestCase):
    def test_each_reaches_the_driver_with_its_type(self) -> None:
        for url, queries in TYPED.items():
            for query, (name, expected) in queries.items():
                engines = self.engines(connection=f'{url}?{query}')
                for form in ('transaction', 'autocommit'):
                    arguments = self.arguments(engines.get_engine(form))
                    self.assertEqual(expected, arguments[name], query)
                    self.assertIs(type(expected), type(arguments[name]), query)

    def test_connection_parameters_are_the_same(self) -> None:
        engines = self.engines(
            connection=PSYCOPG, connection_parameters='prepare_threshold=3'
        )
        arguments = self.arguments(engines.get_engine('autocommit'))
        self.assertEqual(3, arguments['prepare_threshold'])
        self.assertRaisesRegex(
            exception.InvalidInput,
            'prepare_threshold',
            self.engines,
            connection_parameters='prepare_threshold=x',
        )

    def test_a_secret_does_not_stay_in_the_url(self) -> None:
        for url in (PYMYSQL, PSYCOPG):
            engines = self.engines(connection=f'{url}?password=s3cr3t')
            engine = engines.get_engine('transaction')
            self.assertNotIn('s3cr3t', f'{engine!r} {engine.url!r}')

    def test_a_password_is_utf_8(self) -> None:
        url = sa.make_url(PYMYSQL).set(password='pä€%')
        engines = self.engines(
            connection=url.render_as_string(hide_password=False)
        )
        arguments = self.arguments(engines.get_engine('transaction'))
        self.assertEqual('pä€%'.encode(), arguments['password'])

    def test_migrations_know_no_read_timeout(self) -> None:
        engines = self.engines(connection=PYMYSQL + '?read_timeout=1')
        arguments = self.arguments(engines.get_engine('migration'))
        self.assertIsNone(arguments['read_timeout'])


class TestWrong(ArgumentsTestCase):
    def test_it_is_refused_before_anything_connects(self) -> None:
        with (
            mock.patch.object(socket.socket, 'connect') as connect,
            mock.patch.object(pymysql.connections.Connection, 'connect'),
        ):
            for url, queries in WRONG.items():
                for query, expected in queries.items():
                    error = self.assertRaises(
                        exception.InvalidInput,
                        self.engines,
                        connection=f'{url}?{query}',
                    )
                    self.assertEqual('[database] connection', error.field)
                    self.assertIn(expected, error.reason, query)
        connect.assert_not_called()

    def test_that_of_a_replica_is_named(self) -> None:
        for url, queries in WRONG.items():
            error = self.assertRaises(
                exception.InvalidInput,
                self.engines,
                slave_connection=f'{url}?{next(iter(queries))}',
            )
            self.assertEqual('[database] slave_connection', error.field)

    def test_what_is_no_word_is_not_shown(self) -> None:
        error = self.assertRaises(
            exception.InvalidInput,
            self.engines,
            connection=PYMYSQL + '?s3cr3t/x=1',
        )
        self.assertNotIn('s3cr3t', str(error))


class TestConnected(base.DatabaseTestCase):
    """The same, where there is a server."""

    def test_arguments_are_those_of_the_connection(self) -> None:
        query = {
            'mysql': 'max_allowed_packet=65536&ssl_disabled=false',
            'postgresql': 'prepare_threshold=3&keepalives_idle=7',
            'sqlite': 'timeout=7&detect_types=0&check_same_thread=false',
        }[self.backend]
        self.database.configure(connection_parameters=query)
        with self.database.engine().connect() as connection:
            driver: Any = connection.connection.driver_connection
            if self.backend == 'mysql':
                self.assertEqual(65536, driver.max_allowed_packet)
            elif self.backend == 'postgresql':
                self.assertEqual(3, driver.prepare_threshold)
                told = driver.info.get_parameters()
                self.assertEqual('7', told['keepalives_idle'])
            else:
                waits = connection.exec_driver_sql('PRAGMA busy_timeout')
                self.assertEqual(7000, waits.scalar())

    def test_a_password_with_any_letters_is_taken(self) -> None:
        if self.backend != 'mysql':
            self.skipTest('other drivers do not encode it themselves')
        with self.database.engine('autocommit').connect() as connection:
            for sql in (
                "CREATE USER IF NOT EXISTS odd@'%%' IDENTIFIED BY 'pä€%%'",
                "GRANT ALL ON *.* TO odd@'%%'",
            ):
                connection.exec_driver_sql(sql)
        url = sa.make_url(self.database.connection).set(
            username='odd', password='pä€%'
        )
        self.database.configure(
            connection=url.render_as_string(hide_password=False)
        )
        self.assertEqual([], db.api.service_get_all(self.context))


class TestPrepared(base.DatabaseTestCase):
    """Whether psycopg prepares statements."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'postgresql':
            self.skipTest('only psycopg prepares statements')

    def threshold(self) -> Any:
        with self.database.engine('autocommit').connect() as connection:
            driver: Any = connection.connection.driver_connection
            return driver.prepare_threshold

    def fail_with(self, sqlstate: str) -> None:
        with (
            self.database.engine('autocommit').connect() as connection,
            self.assertRaisesRegex(Exception, 'raised'),
        ):
            connection.exec_driver_sql(
                "DO 'BEGIN RAISE EXCEPTION ''raised'' "
                f"USING ERRCODE = ''{sqlstate}''; END'"
            )

    def test_they_are_no_more_once_they_do_not_last(self) -> None:
        self.database.configure()
        before = self.threshold()
        for sqlstate in ('26000', '42P05'):
            self.database.configure()
            self.assertEqual(before, self.threshold())
            self.fail_with(sqlstate)
            self.assertIsNone(self.threshold())

    def test_the_url_wins(self) -> None:
        self.database.configure(connection_parameters='prepare_threshold=3')
        self.fail_with('26000')
        self.assertEqual(3, self.threshold())


class TestOtherEngines(base.TestCase):
    def test_no_driver_is_looked_for_without_parameters(self) -> None:
        self.useFixture(fixtures.Database())
        with mock.patch('sqlalchemy.engine.URL.get_dialect') as asked:
            conf = cfg.ConfigOpts()
            options.register_opts(conf)
            conf([], project='myservice', default_config_files=[])
            conf.set_override('connection', PSYCOPG, group='database')
            db.api.Engines(conf)
        asked.assert_not_called()

"""No password is shown, however its URL is misread."""

import io
import logging
import pathlib
import sys
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures as plain_fixtures
from oslo_config import cfg

from myservice import conf as options
from myservice import context
from myservice import db
from myservice.cmd import agent
from myservice.cmd import manage
from myservice.tests import base

SECRET = 's3cr3t'
# Where each refuses at once, if it comes to that.
SERVERS = (
    'mysql+pymysql://{}127.0.0.1:1/x',
    'mariadb://{}127.0.0.1:1',
    'postgresql+psycopg://{}127.0.0.1:1/x?connect_timeout=2',
)

# Each is misread by SQLAlchemy, and how to write it is said.
MISREAD = (
    f'user:a@{SECRET}@',
    f'user:a@{SECRET}/x@',
    f'user:a@{SECRET}:{SECRET}@',
    f'user:a@{SECRET}?{SECRET}@',
    f'user:a@{SECRET}/x?{SECRET}=1@',
    f'user:a@x?sslmode={SECRET}@',
    f'us/er:{SECRET}@',
    f'us/er:a@{SECRET}@',
    f'@{SECRET}@',
)
# Each means what it says, or is no URL.
READ = (
    f'user:{SECRET}@',
    f'user:a:{SECRET}@',
    f'user:a/{SECRET}@',
    f'user:a#{SECRET}@',
    f'user:a?{SECRET}@',
    f'user:a?b={SECRET}@',
    f'user:a%zz{SECRET}@',
    f'user:{SECRET}%@',
    f'user:{SECRET}%4@',
    f'user:{SECRET}%00@',
    f'user:{SECRET}%ff@',
    f'user:%40{SECRET}@',
    f'user:€{SECRET}@',
    f'user:[{SECRET}]@',
    f'user:{SECRET} @',
    f':{SECRET}@',
    f'user:{SECRET}:',
    f'user:{SECRET}/',
    f'user:{SECRET}?',
    f'user:{SECRET}#',
)
WHOLE = (
    SECRET,
    f'mysql:user:{SECRET}@127.0.0.1',
    f'mysql+pymysql:/user:{SECRET}@127.0.0.1/x',
    f'mysql+pymysql//user:{SECRET}@127.0.0.1/x',
    f'postgresql+psycopg://user:{SECRET}@/x?host=127.0.0.1&port=1',
    f'postgresql+psycopg://127.0.0.1:1/x?user=u&password={SECRET}',
    f'postgresql+psycopg://127.0.0.1:1/x?user=u&sslpassword={SECRET}',
    f'mysql+pymysql://127.0.0.1:1/x?user=u&password={SECRET}',
    f'mysql+pymysql://127.0.0.1:1/x?user=u&ssl_key_password={SECRET}',
    f'mysql+pymysql://127.0.0.1:1/x?user=u&read_timeout=1&{SECRET}@x=1',
    f'mssql+pyodbc://user:{SECRET}@127.0.0.1/x',
    f'sqlite://user:{SECRET}@127.0.0.1/x',
    f'sqlite://user:a@{SECRET}/x',
)
# In a file, $ names another option.
WITH_DOLLAR = (
    'user:a$s3cr3t@',
    'user:${s3cr3t}@',
    'user:a$s3cr3t:b@',
    'user:a$s3cr3t.b@',
    'user:a$s3cr3t.s3cr3t.b@',
    'user:a$s3cr3t::b@',
)


def urls() -> Iterator[str]:
    yield from WHOLE
    for credentials in (*MISREAD, *READ, *WITH_DOLLAR):
        for server in SERVERS:
            yield server.format(credentials)


class PasswordTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(db.api.configure, options.CONF)
        self.addCleanup(self.restore, logging.root.handlers[:])
        self.path = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path, 'my.conf'
        )
        self.out = io.StringIO()
        handler = logging.StreamHandler(self.out)
        logging.root.addHandler(handler)
        self.addCleanup(logging.root.removeHandler, handler)
        for name in ('myservice', 'oslo_db', 'oslo_config', 'sqlalchemy'):
            logger = logging.getLogger(name)
            self.addCleanup(logger.setLevel, logger.level)
            logger.setLevel(logging.DEBUG)

    def restore(self, handlers: list[logging.Handler]) -> None:
        # The agent's log.setup() has replaced them.
        logging.root.handlers[:] = handlers

    def write(self, url: str, option: str = 'connection') -> None:
        self.path.write_text(
            f'[database]\n{option} = {url}\ndb_max_retries = 0\n'
            'connect_timeout = 2\n[service]\nreport_interval = 1\n'
        )

    def said_by(self, call: Callable[[], Any]) -> str:
        """Return all that is shown anywhere, and what is raised."""
        self.out.seek(0)
        self.out.truncate()
        with (
            mock.patch.object(sys, 'stdout', self.out),
            mock.patch.object(sys, 'stderr', self.out),
        ):
            try:
                call()
            except BaseException as error:
                self.out.write(
                    ''.join(traceback.format_exception(error)) + repr(error)
                )
                self.show_causes(error)
        return self.out.getvalue()

    def assert_hidden(self, said: str, what: str) -> None:
        lines = [line for line in said.splitlines() if SECRET in line]
        self.assertEqual([], lines[:3], what)

    def show_causes(self, error: BaseException | None) -> None:
        """Show what is hidden by ``from None``, too."""
        while error is not None:
            self.out.write(f'{error!r} {error}')
            error = error.__context__


class TestPasswords(PasswordTestCase):
    def check(self, call: Callable[[], Any]) -> None:
        for url in urls():
            for option in ('connection', 'slave_connection'):
                self.write(url, option)
                said = self.said_by(call)
                self.assert_hidden(said, url)
                if option == 'connection':
                    self.assertNotEqual('', said, url)

    def test_by_an_engine(self) -> None:
        def connect() -> None:
            conf = cfg.ConfigOpts()
            options.register_opts(conf)
            conf(['--config-file', str(self.path)], project='myservice')
            engines = db.api.Engines(conf)
            print(repr(engines), engines.url, repr(engines.url))
            ctx = context.get_admin_context().using(engines)
            print(repr(db.api.get_engine(ctx)), vars(db.api.get_engine(ctx)))
            db.api.service_get_all(ctx.stale())

        self.check(connect)

    def test_by_the_program_of_operators(self) -> None:
        for command in (['db', 'version'], ['--debug', 'service', 'list']):
            self.check(
                lambda argv=command: manage.main(
                    ['--config-file', str(self.path), *argv]
                )
            )

    def test_by_the_agent(self) -> None:
        argv = ['--config-file', str(self.path), '--debug']
        # Were it to come up, it would not end.
        with mock.patch('signal.signal'):
            self.check(lambda: agent.main(argv) if self.is_wrong() else None)

    def is_wrong(self) -> bool:
        """Say something of a replica that an agent would not ask."""
        return 'slave_connection' not in self.path.read_text()

    def test_how_to_write_it_is_said(self) -> None:
        argv = ['--config-file', str(self.path), 'service', 'list']
        for option in ('connection', 'slave_connection'):
            for credentials in MISREAD:
                for server in SERVERS:
                    self.write(server.format(credentials), option)
                    said = self.said_by(lambda: manage.main(argv))
                    self.assertIn(f'[database] {option}: ', said)
                    self.assertIn('%40 for @', said, credentials)
            for credentials in WITH_DOLLAR:
                self.write(SERVERS[0].format(credentials), option)
                said = self.said_by(lambda: manage.main(argv))
                self.assertIn(f'[database] {option}: ', said)
                self.assertIn('write $$ for $', said, credentials)

    def test_two_dollars_are_one(self) -> None:
        self.write('mysql+pymysql://user:a$$b%40@127.0.0.1/x')
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf(['--config-file', str(self.path)], project='myservice')
        self.assertEqual('a$b@', db.api.Engines(conf).url.password)


class TestFiles(PasswordTestCase):
    """A file that cannot be read names its line, and does not show it."""

    def test_by_each_program(self) -> None:
        url = f'mysql+pymysql://user:{SECRET}@127.0.0.1/x'
        for number, text in enumerate(
            (
                f'[database]\n  connection = {url}\n',
                f'[database]\nconnection {SECRET}\n',
                f'[database]\n= {url}\n',
                f'[database]\n\nconnection/{SECRET}\n',
            )
        ):
            self.path.write_text(text)
            for main in (manage.main, agent.main):
                argv = ['--config-file', str(self.path)]
                if main is manage.main:
                    argv += ['service', 'list']
                said = self.said_by(lambda main=main, argv=argv: main(argv))
                self.assert_hidden(said, text)
                self.assertIn(f'my.conf, line {2 + number // 3}: ', said)

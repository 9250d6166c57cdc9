"""Other spellings of a URL mean the same; other databases are refused."""

import importlib.abc
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_config import cfg

from myservice import conf as options
from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.resources import acquire
from myservice.db.resources import listing
from myservice.db.sql import dialects
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import factories

SPELLINGS = {
    'sqlite': ('sqlite+pysqlite', 'SQLite'),
    'mysql': ('mariadb+pymysql', 'mysql', 'mariadb', 'MySQL+PyMySQL'),
    'postgresql': ('postgresql', 'PostgreSQL+psycopg'),
}
UNSUPPORTED = (
    'mssql',
    'mssql+pyodbc',
    'oracle',
    'oracle+oracledb',
    'oracle+oracledb_async',
    'postgres',
    'postgresql+psycopg2',
    'postgresql+pg8000',
    'mysql+',
    'mysql+mysqldb',
    'mysql+mysqlconnector',
    'mysql+pymysql+x',
    'mariadb+mariadbconnector',
    'sqlite+pysqlcipher',
    'nonsense',
)
ASYNC = {
    'sqlite+aiosqlite': 'sqlite',
    'mysql+aiomysql': 'mysql+pymysql',
    'mysql+asyncmy': 'mysql+pymysql',
    'mariadb+aiomysql': 'mysql+pymysql',
    'mariadb+asyncmy': 'mysql+pymysql',
    'postgresql+asyncpg': 'postgresql+psycopg',
    'postgresql+psycopg_async': 'postgresql+psycopg',
    'PostgreSQL+AsyncPG': 'postgresql+psycopg',
}
SUPPORTED = ('sqlite:///', 'mysql+pymysql://', 'postgresql+psycopg://')


class SpellingTestCase(base.DatabaseTestCase):
    """A test that looks at the database past the layer, too."""

    def setUp(self) -> None:
        super().setUp()
        self.direct = sa.create_engine(
            self.database.connection, poolclass=sa.NullPool
        )

    def spelled(self, name: str) -> str:
        """Return the URL of the database, beginning in another way."""
        return (
            name
            + self.database.connection[self.database.connection.index('://') :]
        )

    def spellings(self) -> Iterator[str]:
        for name in SPELLINGS[self.backend]:
            self.database.configure(connection=self.spelled(name))
            yield name

    def content(self) -> list[Any]:
        """Return all that is committed."""
        with self.direct.connect() as connection:
            return [
                sorted(map(repr, connection.execute(sa.select(table))))
                for table in models.Base.metadata.sorted_tables
            ]


class TestSpellings(SpellingTestCase):
    def test_all_that_calls_write_is_kept(self) -> None:
        kept = self.calls_that_keep_something()
        self.assertIn('service_create', kept)
        self.database.configure(
            connection=self.spelled(SPELLINGS[self.backend][0])
        )
        self.assertEqual(kept, self.calls_that_keep_something())

    def calls_that_keep_something(self) -> set[str]:
        kept = set()
        for name in filter(calls.writes, calls.names()):
            with self.direct.begin() as connection:
                for table in reversed(models.Base.metadata.sorted_tables):
                    connection.execute(sa.delete(table))
            call = calls.example(name, calls.World())
            before = self.content()
            call()
            if self.content() != before:
                kept.add(name)
        return kept

    def test_each_spelling_is_the_same_database(self) -> None:
        for name in self.spellings():
            made = factories.create_service(host=name)
            with self.direct.connect() as connection:
                table = sa.table('services', sa.column('id'))
                found = connection.scalars(sa.select(table.c.id)).all()
            self.assertIn(made.id, found, name)
            self.assertEqual(
                made.id, db.api.service_get(self.context, made.id).id
            )

    def test_each_spelling_has_the_same_engines(self) -> None:
        expected = self.engines()
        for name in self.spellings():
            self.assertEqual(expected, self.engines(), name)

    def engines(self) -> list[Any]:
        """Return how each engine is shaped, and what its server says."""
        found: list[Any] = []
        for form in ('transaction', 'autocommit', 'read', 'snapshot'):
            bind = self.database.engine(form)
            with bind.connect() as connection:
                found.append(
                    (
                        bind.dialect.name,
                        bind.url.drivername,
                        type(bind.pool),
                        connection.get_isolation_level(),
                        type(connection.connection.dbapi_connection).__name__,
                    )
                )
                if self.backend == 'mysql':
                    found.append(
                        connection.execute(
                            sa.text('SELECT @@sql_mode, @@autocommit')
                        ).all()
                    )
        return found

    def test_errors_are_the_same(self) -> None:
        for name in self.spellings():
            factories.create_service(host=name, binary='b')
            self.assertRaises(
                exception.ServiceExists,
                factories.create_service,
                host=name,
                binary='b',
            )

    def test_a_replica_may_be_spelled_so(self) -> None:
        made = factories.create_service()
        for name in SPELLINGS[self.backend]:
            self.database.configure(slave_connection=self.spelled(name))
            stale = self.context.stale()
            self.assertEqual(
                made.id, db.api.service_get(stale, made.id).id, name
            )

    def test_other_engines_may_be_spelled_so(self) -> None:
        for name in self.spellings():
            engines = db.api.Engines(self.database.conf)
            self.addCleanup(engines.dispose)
            made = db.api.service_create(
                self.context.using(engines), {'host': name, 'binary': 'b'}
            )
            self.assertIn(made.id, str(self.content()))
            self.assertEqual(
                self.backend,
                db.api.get_engine(self.context.using(engines)).dialect.name,
            )


class TestOwnEngines(SpellingTestCase):
    """An engine of the caller has the dialect that they took."""

    def setUp(self) -> None:
        super().setUp()
        name = {
            'mysql': 'mariadb+pymysql',
            'postgresql': 'postgresql+psycopg',
            'sqlite': 'sqlite',
        }[self.backend]
        self.own = sa.create_engine(self.spelled(name))
        self.addCleanup(self.own.dispose)

    def create_resources(self, count: int) -> list[db.api.ResourceRow]:
        return [
            db.api.resource_create(self.context, {'project_id': 'p'})
            for _ in range(count)
        ]

    def test_statements_have_the_text_that_the_server_knows(self) -> None:
        service = factories.create_service()
        one, *_, last = self.create_resources(4)
        session = db.api.get_session(bind=self.own)
        with session.begin():
            generation = acquire.claim(
                one.id, service.id, None, session=session
            )
            filters = listing.LISTING.check_filters({})
            claims = acquire.claim_unclaimed(
                service.id, None, filters, 2, session=session
            )
        self.assertEqual(one.generation + 1, generation)
        self.assertEqual(2, len(claims))
        held = db.api.resource_get_all(
            self.context, filters={'service_id': service.id}
        )
        self.assertEqual(3, len(held))
        self.assertIsNone(
            db.api.resource_get(self.context, last.id).service_id
        )

    def test_a_page_has_its_hints(self) -> None:
        sent: list[str] = []
        self.create_resources(3)
        sa.event.listen(
            self.own,
            'before_cursor_execute',
            lambda *arguments: sent.append(arguments[2]),
        )
        page = listing.LISTING.page(self.context, limit=2)
        session = db.api.get_session(bind=self.own)
        with session.begin():
            self.assertEqual(2, len(page.read(session=session)))
        self.assertEqual(
            self.backend == 'mysql', 'FORCE INDEX' in sent[-1], sent
        )

    def test_one_for_asyncio_is_refused(self) -> None:
        bind = sa.create_engine('postgresql+psycopg_async://nobody@localhost')
        for arguments in ({'bind': bind}, {'binds': {models.Base: bind}}):
            self.assertRaisesRegex(
                exception.InvalidInput,
                'asyncio',
                db.api.get_session,
                **arguments,
            )


class _Imports(plain_fixtures.Fixture, importlib.abc.MetaPathFinder):
    """Collects the names of the modules that somebody wants to import."""

    def _setUp(self) -> None:
        self.names: list[str] = []
        sys.meta_path.insert(0, self)
        self.addCleanup(sys.meta_path.remove, self)

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        self.names.append(name)


class TestRefused(base.TestCase):
    """Nobody is connected to, and nothing is imported."""

    def refusal(self, url: str, option: str = 'connection') -> str:
        """Return why a URL is refused, the same wherever it is used."""
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf([], project='myservice', default_config_files=[])
        late = db.api.Engines(conf)
        conf.set_override(option, url, group='database')
        messages = set()
        imports = self.useFixture(_Imports())
        for use in (
            lambda: db.api.Engines(conf),
            lambda: db.api.configure(conf),
            lambda: db.api.get_engine(context.RequestContext().using(late)),
            lambda: db.api.service_get_all(
                context.get_admin_context().using(late)
            ),
        ):
            error = self.assertRaises(exception.InvalidInput, use)
            messages.add(str(error))
            logged = ''.join(traceback.format_exception(error))
            self.assertNotIn('hidden', logged)
        (message,) = messages
        self.assertIn(f'[database] {option}', message)
        self.assertEqual([], imports.names)
        return message

    def test_what_is_not_supported(self) -> None:
        for name in UNSUPPORTED:
            message = self.refusal(f'{name}://nobody:hidden@localhost/x')
            for url in SUPPORTED:
                self.assertIn(url, message, name)
            self.assertIn(name, message)

    def test_drivers_for_asyncio_get_their_own_message(self) -> None:
        for name, ours in ASYNC.items():
            message = self.refusal(f'{name}://nobody:hidden@localhost/x')
            self.assertIn(f'{name.lower()} is a driver for asyncio', message)
            self.assertIn(f'write {ours},', message)

    def test_what_is_no_url(self) -> None:
        for url in (
            'hidden',
            '',
            'mysql',
            'mysql:nobody:hidden@localhost',
            'mysql+pymysql://nobody:hidden@localhost:port/x',
        ):
            self.assertIn(SUPPORTED[1], self.refusal(url))

    def test_a_password_that_is_not_quoted(self) -> None:
        for url in (
            'mysql+pymysql://nobody:p@hidden@localhost/x',
            'mysql+pymysql://nobody:p@s:hidden@localhost/x',
            'postgresql://nobody:p@s/hidden@localhost/x',
        ):
            self.refusal(url)

    def test_that_of_a_replica(self) -> None:
        for url in ('mssql://h/x', 'mysql+asyncmy://h/x', 'hidden'):
            self.refusal(url, 'slave_connection')

    def test_what_is_in_use_stays_when_another_is_refused(self) -> None:
        self.useFixture(fixtures.Database())
        made = factories.create_service()
        self.refusal('mssql://nobody@localhost/x')
        self.assertEqual(
            made.id,
            db.api.service_get(context.get_admin_context(), made.id).id,
        )

    def test_a_password_with_signs_in_it_is_taken(self) -> None:
        for password in ('p%40ss', 'p:ss', 'p/ss', 'p?ss'):
            url = dialects.parse_url(
                f'mariadb+pymysql://nobody:{password}@localhost/x', 'url'
            )
            self.assertEqual('localhost', url.host)
            self.assertEqual(password.replace('%40', '@'), url.password)
        for text in ('sqlite:////a@b@c', 'mysql://h/x?ssl_ca=/a@b@c'):
            dialects.parse_url(text, 'url')

"""URLs of SQLite: files, memory, and what can only be read."""

import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import conf as options
from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.engine import sqlite
from myservice.db.engine import sqlite_url
from myservice.tests import base

# Each, with a file in place of {}, and what is said.
REFUSED = {
    'sqlite:///file:{}': 'belong together',
    'sqlite:///file::memory:': 'belong together',
    'sqlite:///{}?uri=true': 'belong together',
    'sqlite:///{}?mode=ro': 'mode needs uri=true',
    'sqlite:///{}?immutable=1': 'immutable needs uri=true',
    'sqlite:///file:{}?uri=false': 'uri takes true or 1',
    'sqlite:///file:{}?uri=true&mode=r': 'mode takes ro or rw or rwc',
    'sqlite:///file:{}?uri=true&cache=all': 'cache takes',
    'sqlite:///file:{}?uri=true&immutable=yes': 'immutable takes',
    'sqlite:///file:{}?uri=true&imutable=1': 'imutable is not a parameter',
    'sqlite:///file:{}?uri=true&mode=ro&mode=rw': 'mode is there more than',
    'sqlite:///file:{}?uri=true&nolock=1': 'write over one another',
    'sqlite:///file:{}?uri=true&cache=shared': 'lock whole tables',
    'sqlite:///file:{}%3Fmode=ro?uri=true': '%253F',
    'sqlite:///file:{}%23x?uri=true': '%2523',
    'sqlite:///file://elsewhere{}?uri=true': 'another host',
    'sqlite://relative': 'write sqlite:///FILE',
    'sqlite://host{}': 'write sqlite:///FILE',
    'sqlite://user:hidden@host{}': 'write sqlite:///FILE',
}

FILES = (
    'sqlite:///{}',
    'sqlite:///file:{}?uri=true',
    'sqlite:///file:{}?uri=1&mode=rw',
    'sqlite:///file://{}?mode=rwc&uri=true',
    'sqlite:///file://localhost{}?cache=private&psow=1&uri=true',
)

MEMORY = (
    'sqlite://',
    'sqlite:///:memory:',
    'sqlite:///file::memory:?uri=true',
    'sqlite:///file::memory:?cache=shared&uri=true',
    'sqlite:///file:named?mode=memory&uri=true',
    'sqlite:///file:named?mode=memory&cache=shared&uri=true',
    'sqlite:///file:/named?vfs=memdb&uri=true',
)

READ_ONLY = ('mode=ro', 'immutable=1', 'mode=ro&immutable=1')

# What a process may do that is not root: its directory is not its own.
_AS_NOBODY = """
import os, sys
from myservice import conf, context, db, exception
conf.CONF([], project='myservice', default_config_files=[])
conf.CONF.set_override('connection', sys.argv[1], group='database')
context = context.get_admin_context()
# Imports need what root alone may read, if python is there.
db.api.get_engine()
os.setgid(65534)
os.setuid(65534)
for call in (
    lambda: len(db.api.service_get_all(context)),
    lambda: db.api.service_create(context, {'host': 'h', 'binary': 'b'}),
):
    try:
        print(call())
    except exception.MyServiceError as error:
        print(type(error).__name__, error)
"""


class SQLiteTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.useFixture(plain_fixtures.TempDir()).path
        self.path = pathlib.Path(self.directory, 'it #1?.sqlite')
        self.context = context.get_admin_context()
        self.addCleanup(db.api.configure, options.CONF)

    def use(self, url: str) -> None:
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf([], project='myservice', default_config_files=[])
        conf.set_override('connection', url, group='database')
        conf.set_override('sqlite_busy_timeout', 1, group='database')
        db.api.configure(conf)

    def create(self, host: str = 'h') -> Any:
        return db.api.service_create(
            self.context, {'host': host, 'binary': 'b'}
        )

    def make_file(self, path: pathlib.Path, journal: str = 'delete') -> None:
        """Make a file with a service in it."""
        path.write_bytes(fixtures._template())
        self.use(f'sqlite:///{path}')
        self.create('first')
        db.api.dispose()
        connection = sqlite3.connect(path)
        connection.execute(f'PRAGMA journal_mode = {journal}')
        connection.close()


class TestRefused(SQLiteTestCase):
    def test_with_a_reason_and_nothing_is_made(self) -> None:
        path = f'{self.directory}/x'
        for url, reason in REFUSED.items():
            error = self.assertRaises(
                exception.InvalidInput, self.use, url.format(path)
            )
            self.assertEqual('[database] connection', error.field)
            self.assertIn(reason, error.reason, url)
            self.assertNotIn('hidden', str(error))
        self.assertEqual([], os.listdir(self.directory))


class TestFiles(SQLiteTestCase):
    def test_each_spelling_is_the_same_file(self) -> None:
        path = pathlib.Path(self.directory, 'x')
        self.make_file(path)
        for url in FILES:
            self.use(url.format(path))
            self.create(url)
            found = sqlite_url.file_of(sa.make_url(url.format(path)))
            self.assertEqual(str(path), found)
            self.assertEqual(
                'FileConnection',
                type(
                    db.api.get_engine().raw_connection().driver_connection
                ).__name__,
            )
        self.assertEqual(
            1 + len(FILES), len(db.api.service_get_all(self.context))
        )

    def test_a_name_with_any_sign(self) -> None:
        self.make_file(pathlib.Path(self.directory, 'plain'))
        os.rename(f'{self.directory}/plain', self.path)
        escaped = 'it%2520%25231%253F.sqlite'
        for url in (
            f'sqlite:///{self.directory}/it #1%3F.sqlite',
            f'sqlite:///file:{self.directory}/{escaped}?uri=true&mode=rw',
        ):
            self.use(url)
            self.assertEqual(1, len(db.api.service_get_all(self.context)), url)

    def test_a_relative_one_stays_where_it_was(self) -> None:
        self.make_file(pathlib.Path(self.directory, 'x'))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        for url in ('sqlite:///x', 'sqlite:///file:x?uri=true'):
            self.use(url)
            db.api.get_engine()
            os.chdir('/')
            self.assertEqual(1, len(db.api.service_get_all(self.context)))
            os.chdir(self.directory)

    def test_one_that_has_to_be_there(self) -> None:
        self.use(f'sqlite:///file:{self.directory}/x?mode=rw&uri=true')
        self.assertRaises(
            db_exception.DBNonExistentDatabase,
            db.api.service_get_all,
            self.context,
        )
        self.assertEqual([], os.listdir(self.directory))


class TestInMemory(SQLiteTestCase):
    def test_each_spelling_is_one_database(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        for url in MEMORY:
            self.use(url)
            models.Base.metadata.create_all(db.api.get_engine())
            # Two connections would be two databases.
            pool = db.api.get_engine().pool
            self.assertIs(sqlite.MemoryPool, type(pool), url)
            made = self.create()
            with db.api.transaction(self.context, read_only=True):
                found = db.api.service_get(self.context, made.id)
            self.assertEqual(made.id, found.id)
            self.assertIsNone(sqlite_url.file_of(sa.make_url(url)))
            self.use('sqlite://')
        self.assertEqual([], os.listdir(self.directory))

    def test_one_with_a_name_is_seen_by_others(self) -> None:
        name = f'shared{id(self)}'
        self.use(f'sqlite:///file:{name}?mode=memory&cache=shared&uri=true')
        models.Base.metadata.create_all(db.api.get_engine())
        self.create()
        other = sqlite3.connect(
            f'file:{name}?mode=memory&cache=shared', uri=True
        )
        self.addCleanup(other.close)
        self.assertEqual(
            [(1,)], other.execute('SELECT count(*) FROM services').fetchall()
        )


class TestReadOnly(SQLiteTestCase):
    def check(self, url: str) -> None:
        self.use(url)
        self.assertEqual(1, len(db.api.service_get_all(self.context)), url)
        with db.api.transaction(self.context):
            self.assertEqual(1, len(db.api.service_get_all(self.context)))
        for write in (
            self.create,
            lambda: db.api.service_heartbeat(
                self.context, db.api.service_get_all(self.context)[0].id
            ),
            lambda: db.api.run_in_transaction(self.context, self.create_in),
        ):
            before = db.api.statistics().retries
            self.assertRaises(exception.DatabaseReadOnly, write)
            self.assertEqual(before, db.api.statistics().retries)

    def create_in(self) -> Any:
        return self.create()

    def test_reads_work_and_a_write_is_refused_at_once(self) -> None:
        for journal in ('delete', 'wal'):
            path = pathlib.Path(self.directory, journal)
            self.make_file(path, journal)
            for query in READ_ONLY:
                self.check(f'sqlite:///file:{path}?{query}&uri=true')

    def test_an_immutable_one_leaves_nothing_beside_it(self) -> None:
        path = pathlib.Path(self.directory, 'x')
        self.make_file(path, 'wal')
        before = path.read_bytes()
        self.check(f'sqlite:///file:{path}?immutable=1&uri=true')
        self.assertEqual(['x'], os.listdir(self.directory))
        self.assertEqual(before, path.read_bytes())


class TestNotOurs(SQLiteTestCase):
    """The file, or its directory, belongs to somebody else."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can become somebody else')
        # That of other tests is in one that others may not enter.
        top = os.environ.get('TMPDIR', '/tmp')
        self.directory = tempfile.mkdtemp(prefix='myservice-', dir=top)
        self.addCleanup(shutil.rmtree, self.directory)

    def outcome(self, journal: str, mode: int, query: str = '') -> list[str]:
        """Return what a read and a write come to, in another process."""
        path = pathlib.Path(self.directory, f'{journal}{mode}')
        self.make_file(path, journal)
        os.chmod(path, mode)
        os.chmod(self.directory, 0o755)
        done = subprocess.run(
            [
                *(sys.executable, '-c', _AS_NOBODY),
                f'sqlite:///file:{path}?uri=true{query}',
            ],
            capture_output=True,
            text=True,
            check=False,
            # Nobody may write what coverage has seen.
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith('COVERAGE_')
            },
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr[-2000:]))
        return done.stdout.splitlines()

    def test_a_file_in_rollback_mode_is_read(self) -> None:
        for mode in (0o644, 0o666):
            read, write = self.outcome('delete', mode)
            self.assertEqual('1', read)
            self.assertIn('DatabaseReadOnly', write)

    def test_one_in_wal_mode_says_how_it_can_be_read(self) -> None:
        for mode in (0o644, 0o666):
            for answer in self.outcome('wal', mode):
                self.assertIn('DatabaseReadOnly', answer)
                self.assertIn('immutable=1', answer)
            read, write = self.outcome('wal', mode, '&immutable=1')
            self.assertEqual('1', read)
            self.assertIn('DatabaseReadOnly', write)

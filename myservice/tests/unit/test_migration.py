"""Migrations: from nothing to what the models say, by any number at once."""

import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from alembic import command

import myservice
from myservice import context
from myservice import db
from myservice import exception
from myservice.db import engine
from myservice.db import migration
from myservice.db import models
from myservice.db.dialects import backend_of
from myservice.tests import base
from myservice.tests import fixtures
from myservice.tests import servers

VERSIONS = pathlib.Path(myservice.__file__).parent / 'db/migrations/versions'

_numbers = itertools.count(1)


class CopyOfVersions(plain_fixtures.Fixture):
    """Lets alembic read, and write, a copy of the migration scripts."""

    def _setUp(self) -> None:
        temporary = self.useFixture(plain_fixtures.TempDir()).path
        self.path = pathlib.Path(temporary, 'versions')
        shutil.copytree(
            VERSIONS, self.path, ignore=shutil.ignore_patterns('__pycache__')
        )
        original = migration._config

        def config(connection: sa.Connection | None = None) -> Any:
            made = original(connection)
            made.set_main_option('version_locations', str(self.path))
            return made

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.migration._config', config
            )
        )

    def names(self) -> set[str]:
        """Return the names of the scripts."""
        return {path.name for path in self.path.glob('*.py')}


class ModelsAhead(plain_fixtures.Fixture):
    """Lets services have a column ``colour`` that no migration knows."""

    def _setUp(self) -> None:
        present = models.Base.metadata
        ahead = sa.MetaData(naming_convention=present.naming_convention)
        for table in present.tables.values():
            table.to_metadata(ahead)
        ahead.tables['services'].append_column(
            sa.Column('colour', sa.Integer(), nullable=True)
        )
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.models.Base.metadata', ahead
            )
        )


class MigrationTestCase(base.TestCase):
    """A test with a database that has no tables."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.useFixture(fixtures.Database(self.empty()))

    def empty(self) -> str:
        """Make a database without tables, and return its URL."""
        server = os.environ.get(servers.CONNECTION)
        if not server:
            directory = self.useFixture(plain_fixtures.TempDir()).path
            return f'sqlite:///{directory}/test.sqlite'
        name = f'empty_{os.getpid()}_{next(_numbers)}'
        admin = sa.create_engine(server, isolation_level='AUTOCOMMIT')
        with admin.connect() as connection:
            connection.execute(sa.text(f'CREATE DATABASE {name}'))

        def drop() -> None:
            db.api.dispose()
            with admin.connect() as connection:
                connection.execute(sa.text(f'DROP DATABASE {name}'))
            admin.dispose()

        self.addCleanup(drop)
        url = sa.make_url(server).set(database=name)
        return url.render_as_string(hide_password=False)

    def execute(self, *statements: str) -> None:
        with self.database.engine().begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def tables(self) -> set[str]:
        with self.database.engine().begin() as connection:
            return set(sa.inspect(connection).get_table_names())


class TestSync(MigrationTestCase):
    def test_from_nothing_it_gives_what_the_models_say(self) -> None:
        migration.sync()
        self.assertIsNone(migration.check())
        self.assertEqual(
            set(models.Base.metadata.tables) | {'alembic_version'},
            self.tables(),
        )

    def test_the_api_works_on_what_it_made(self) -> None:
        migration.sync()
        admin = context.get_admin_context()
        made = db.api.service_register(admin, {'host': 'h', 'binary': 'b'})
        self.assertEqual(made, db.api.service_get(admin, made.id))

    def test_twice_does_no_harm(self) -> None:
        migration.sync()
        admin = context.get_admin_context()
        made = db.api.service_register(admin, {'host': 'h', 'binary': 'b'})
        migration.sync()
        self.assertIsNone(migration.check())
        self.assertEqual(made, db.api.service_get(admin, made.id))

    def test_step_by_step_it_comes_to_the_same(self) -> None:
        migration.sync('0001')
        self.assertEqual('0001', migration.current())
        self.assertEqual({'services', 'alembic_version'}, self.tables())
        migration.sync('0002')
        migration.sync()
        self.assertIsNone(migration.check())

    def test_a_schema_beyond_the_revision_stays_as_it_is(self) -> None:
        migration.sync()
        migration.sync('0001')
        self.assertEqual(migration.head(), migration.current())
        self.assertIsNone(migration.check())

    def test_an_unknown_revision_is_refused_and_nothing_is_made(self) -> None:
        for name in ('nonsense', '9999'):
            error = self.assertRaises(
                exception.UnknownRevision, migration.sync, name
            )
            self.assertEqual(name, error.revision)
        self.assertEqual(set(), self.tables())

    def test_a_revision_without_a_name_is_refused(self) -> None:
        self.assertRaises(exception.UnknownRevision, migration.sync, '')

    def test_a_schema_of_a_newer_release_is_refused_with_its_revision(
        self,
    ) -> None:
        migration.sync()
        self.execute("UPDATE alembic_version SET version_num = '9999'")
        error = self.assertRaises(exception.UnknownRevision, migration.sync)
        self.assertEqual('9999', error.revision)

    def test_four_programs_at_once_all_succeed(self) -> None:
        directory = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path
        )
        path = directory / 'myservice.conf'
        path.write_text(
            f'[database]\nconnection = {self.database.connection}\n'
        )
        programs = [
            subprocess.Popen(
                [
                    *(sys.executable, '-m', 'myservice.cmd.manage'),
                    *('--config-file', str(path), 'db', 'sync'),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(4)
        ]
        answers = [program.communicate()[0] for program in programs]
        self.assertEqual(
            [0] * 4, [program.returncode for program in programs], answers
        )
        for answer in answers:
            self.assertIn(f' {migration.head()} ', answer)
        self.assertIsNone(migration.check())

    def test_while_one_migrates_another_one_waits(self) -> None:
        migration.sync('0001')
        path = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path, 'myservice.conf'
        )
        path.write_text(
            f'[database]\nconnection = {self.database.connection}\n'
        )
        with migration._locked_connection():
            other = subprocess.Popen(
                [
                    *(sys.executable, '-m', 'myservice.cmd.manage'),
                    *('--config-file', str(path), 'db', 'sync'),
                ],
                stdout=subprocess.DEVNULL,
            )
            self.addCleanup(other.kill)
            self.assertRaises(subprocess.TimeoutExpired, other.wait, 3)
        self.assertEqual(0, other.wait(10))
        self.assertEqual(migration.head(), migration.current())


class TestRevisions(MigrationTestCase):
    def test_an_empty_database_is_at_none_and_the_head_is_the_newest(
        self,
    ) -> None:
        self.assertIsNone(migration.current())
        newest = max(path.name for path in VERSIONS.glob('[0-9]*.py'))
        self.assertEqual(newest.partition('_')[0], migration.head())
        migration.sync()
        self.assertEqual(migration.head(), migration.current())

    def test_every_downgrade_takes_back_its_upgrade(self) -> None:
        migration.sync()
        with self.database.engine().begin() as connection:
            command.downgrade(migration._config(connection), 'base')
        self.assertIsNone(migration.current())
        self.assertEqual({'alembic_version'}, self.tables())
        migration.sync()
        self.assertIsNone(migration.check())


class TestRegistrations(MigrationTestCase):
    """The rows that are there, and nodes that are not upgraded yet."""

    INSERT = (
        'INSERT INTO services (id, host, {binary}, version, disabled, '
        "forced_down, created_at, deleted) VALUES ('{id}', '{id}', 'b', 0, "
        "false, false, '2026-01-01 00:00:00.000000', '')"
    )

    def insert(self, service_id: str) -> None:
        """Insert a service as the release before the migration does."""
        mysql = backend_of(self.database.engine().dialect) == 'mysql'
        binary = '`binary`' if mysql else '"binary"'
        self.execute(self.INSERT.format(id=service_id, binary=binary))

    def test_a_row_without_a_registration_has_number_0(self) -> None:
        migration.sync('0004')
        self.insert('old')
        migration.sync()
        self.insert('new')
        admin = context.get_admin_context()
        for service_id in ('old', 'new'):
            row = db.api.service_get(admin, service_id)
            self.assertEqual(
                (0, None), (row.registration, row.unregistered_at)
            )
            again = db.api.service_register(
                admin,
                {'host': service_id, 'binary': 'b'},
                only_if_silent_for=60,
            )
            self.assertEqual((row.id, 1), (again.id, again.registration))


class TestCheck(MigrationTestCase):
    def test_a_database_without_tables_differs(self) -> None:
        self.assertIsNotNone(migration.check())

    def test_a_database_at_an_older_revision_differs(self) -> None:
        migration.sync('0001')
        self.assertIsNotNone(migration.check())

    def test_what_was_altered_by_hand_is_reported(self) -> None:
        for alteration, name in (
            ('ALTER TABLE services ADD COLUMN extra INTEGER', 'extra'),
            ('ALTER TABLE operations DROP COLUMN attempt', 'attempt'),
            ('CREATE TABLE things (id INTEGER)', 'things'),
            ('DROP TABLE operations', 'operations'),
        ):
            self.database.configure(connection=self.empty())
            migration.sync()
            self.execute(alteration)
            self.assertIn(name, migration.check() or '', alteration)

    def test_it_changes_nothing(self) -> None:
        migration.sync()
        self.execute('ALTER TABLE services ADD COLUMN extra INTEGER')
        first = migration.check()
        self.assertEqual(first, migration.check())


class TestRevision(MigrationTestCase):
    def test_the_script_makes_the_schema_what_the_models_say(self) -> None:
        copy = self.useFixture(CopyOfVersions())
        migration.sync()
        newest = migration.head()
        before = copy.names()
        self.useFixture(ModelsAhead())
        self.assertIn('colour', migration.check() or '')
        path = pathlib.Path(migration.revision('Give services a colour'))
        self.assertEqual(copy.path, path.parent)
        self.assertEqual({path.name}, copy.names() - before)
        script = path.read_text()
        self.assertIn("sa.Column('colour', sa.Integer()", script)
        self.assertIn('Give services a colour', script)
        self.assertIn(f'Revises: {newest}', script)
        migration.sync()
        self.assertIsNone(migration.check())
        with self.database.engine().begin() as connection:
            command.downgrade(migration._config(connection), '-1')
            columns = sa.inspect(connection).get_columns('services')
        self.assertNotIn('colour', [column['name'] for column in columns])
        self.assertEqual(newest, migration.current())


class TestDirectory(base.TestCase):
    def test_sync_makes_the_directory_of_a_sqlite_file(self) -> None:
        parent = self.useFixture(plain_fixtures.TempDir()).path
        path = pathlib.Path(parent, 'a', 'b', 'test.sqlite')
        self.useFixture(fixtures.Database(f'sqlite:///{path}'))
        migration.sync()
        self.assertTrue(path.is_file())
        self.assertIsNone(migration.check())

    def test_a_database_in_memory_needs_none(self) -> None:
        self.useFixture(fixtures.Database('sqlite://'))
        migration.sync()
        self.assertIsNone(migration.check())
        self.assertEqual('sqlite://', str(engine.get_engines().url))

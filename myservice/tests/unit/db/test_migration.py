"""Migrations: from nothing to what the models say, by any number at once."""

import contextlib
import functools
import itertools
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from alembic import autogenerate
from alembic import command
from alembic import operations
from alembic.runtime.migration import MigrationContext
from oslo_db import exception as db_exception
from sqlalchemy import event

import myservice
from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice import servers
from myservice.db import migration
from myservice.db import models
from myservice.db.engine import engines
from myservice.db.migrations import resumption
from myservice.db.sql import types
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.tests import base
from myservice.tests import proxy

VERSIONS = pathlib.Path(myservice.__file__).parent / 'db/migrations/versions'

_numbers = itertools.count(1)

# In seconds; for what takes far less where nothing is wrong.
_LONG = 60

_CHANGE = re.compile(r'\s*(CREATE|ALTER|DROP|INSERT|UPDATE|DELETE)\b')


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
                # A pooler keeps its connections to it.
                by_force = self.backend == 'postgresql'
                connection.execute(
                    sa.text(
                        f'DROP DATABASE {name}'
                        + (' WITH (FORCE)' if by_force else '')
                    )
                )
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

    def downgrade(self, revision: str = 'base') -> None:
        with self.database.engine().begin() as connection:
            command.downgrade(migration._config(connection), revision)

    @property
    def backend(self) -> Backend:
        """sqlite, mysql or postgresql."""
        return backend_of(sa.make_url(self.database.connection))


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


class TestInterrupted(MigrationTestCase):
    """Where a migration was cut off, the next one goes on."""

    def is_killed(self, after: int, work: Callable[[], None]) -> bool:
        """Work in a child, which is killed after so many changes.

        :returns: whether it came to that
        """
        child = os.fork()
        if child == 0:
            signal.alarm(_LONG)
            event.listen(sa.Engine, 'after_cursor_execute', _killer(after))
            try:
                work()
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    def schema(self) -> sa.MetaData:
        """Return the tables that there are, without that of alembic."""
        there = sa.MetaData()
        with self.database.engine('read').connect() as connection:
            there.reflect(
                connection, only=lambda name, _: name != 'alembic_version'
            )
        return there

    def assert_schema(self, wanted: sa.MetaData, message: str) -> None:
        with self.database.engine('read').connect() as connection:
            found = autogenerate.compare_metadata(
                MigrationContext.configure(connection), wanted
            )
        self.assertEqual([], found, message)

    def check_each_end(
        self, move: Callable[[], None], back: Callable[[], None]
    ) -> int:
        """Kill a migration after each of its statements, and run it again.

        :param move: migrates
        :param back: takes it back
        :returns: how many statements it has
        """
        before, old = migration.current(), self.schema()
        move()
        after, new = migration.current(), self.schema()
        for number in itertools.count(1):
            back()
            killed = self.is_killed(number, move)
            message = f'{before} to {after}, statement {number}'
            if killed and self.backend != 'mysql':
                # DDL is part of the transaction.
                self.assertEqual(before, migration.current())
                self.assert_schema(old, message)
            move()
            self.assertEqual(after, migration.current())
            self.assert_schema(new, message)
            if not killed:
                return number - 1
        raise AssertionError('unreachable')

    def test_killed_after_every_statement_of_every_revision(self) -> None:
        before = 'base'
        statements = 0
        for name in sorted(VERSIONS.glob('[0-9]*.py')):
            revision = name.name.partition('_')[0]
            up = functools.partial(migration.sync, revision)
            down = functools.partial(self.downgrade, before)
            statements += self.check_each_end(up, down)
            statements += self.check_each_end(down, up)
            migration.sync(revision)
            before = revision
        self.assertIsNone(migration.check())
        self.assertGreater(statements, 40)

    def test_killed_before_the_first_revision(self) -> None:
        # The table of alembic is made by itself.
        self.assertTrue(self.is_killed(1, migration.sync))
        migration.sync()
        self.assertIsNone(migration.check())


def _killer(after: int) -> Callable[..., None]:
    left = itertools.count(after - 1, -1)

    def kill(*arguments: Any) -> None:
        if _CHANGE.match(arguments[2]) and next(left) == 0:
            os._exit(9)

    return kill


class TestLostConnection(MigrationTestCase):
    """On a server: whoever is cut off there, is told why."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend == 'sqlite':
            self.skipTest('SQLite has no connection to lose')
        self.between = self.useFixture(
            proxy.FaultProxy(self.database.connection)
        )
        self.database.configure(connection=self.between.url)

    def test_the_error_is_the_first_one_and_the_next_sync_goes_on(
        self,
    ) -> None:
        for action in (proxy.DropAfter(), proxy.DropBefore()):
            for part in ('TABLE alembic', 'ix_services_host', "'0002'"):
                self.between.decide = _once(part, action)
                self.assertRaises(
                    db_exception.DBConnectionError, migration.sync
                )
            migration.sync()
            self.assertIsNone(migration.check())
            self.downgrade()
            self.execute('DROP TABLE alembic_version')

    def test_a_lost_commit(self) -> None:
        self.between.decide = self.lose_last_commit
        self.assertRaises(exception.CommitUnknown, migration.sync)
        self.between.decide = lambda command: None
        migration.sync()
        self.assertIsNone(migration.check())

    def lose_last_commit(self, command: proxy.Command) -> Any:
        version = f"'{migration.head()}'"
        if command.kind == 'commit' and any(
            version in before.sql for before in self.between.commands
        ):
            return proxy.DropAfter()
        return None


def _once(
    part: str, action: proxy.Action
) -> Callable[[proxy.Command], proxy.Action | None]:
    met: list[str] = []

    def decide(command: proxy.Command) -> proxy.Action | None:
        if part in command.sql and not met and _CHANGE.match(command.sql):
            met.append(command.sql)
            return action
        return None

    return decide


class TestSkipping(MigrationTestCase):
    """Each kind of change is made once, however often it is asked for."""

    def change(self, function: Callable[[Any], Any]) -> None:
        with self.database.engine().begin() as connection:
            resumption.resume(connection)
            migrating = MigrationContext.configure(connection)
            with operations.Operations.context(migrating) as op:
                function(op)

    def columns(self, table: str) -> set[str]:
        with self.database.engine('read').connect() as connection:
            there = sa.inspect(connection).get_columns(table)
        return {column['name'] for column in there}

    def create(self, op: Any, *columns: Any, name: str = 'things') -> None:
        op.create_table(
            name,
            sa.Column('id', sa.Integer(), nullable=False),
            sa.Column('name', types.ExactString(20), index=True),
            *columns,
            sa.PrimaryKeyConstraint('id', name=f'pk_{name}'),
        )

    def test_each_kind_of_change(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('a batch writes the table anew, by all that it has')

        def batch(op: Any, *changes: tuple[Any, ...]) -> None:
            with op.batch_alter_table('things') as in_batch:
                for name, *arguments in changes:
                    getattr(in_batch, name)(*arguments)

        number = sa.Integer()
        changes: tuple[Callable[[Any], None], ...] = (
            self.create,
            lambda op: self.create(op, name='others'),
            lambda op: op.add_column('things', sa.Column('size', number)),
            lambda op: op.create_index('ix', 'things', ['size', 'name']),
            lambda op: op.create_index(
                'uix', 'things', ['id', 'size'], unique=True
            ),
            lambda op: batch(
                op,
                ('add_column', sa.Column('other_id', number)),
                ('add_column', sa.Column('colour', number)),
                ('create_index', 'ix_colour', ['colour']),
            ),
            lambda op: batch(
                op, ('create_unique_constraint', 'uq', ['id', 'colour'])
            ),
            lambda op: batch(
                op,
                ('create_foreign_key', 'fk', 'others', ['other_id'], ['id']),
            ),
            lambda op: batch(
                op, ('create_check_constraint', 'ck', sa.text('size >= 0'))
            ),
            lambda op: op.drop_index('ix', 'things'),
            lambda op: batch(op, ('drop_constraint', 'ck', 'check')),
            lambda op: batch(op, ('drop_constraint', 'fk', 'foreignkey')),
            lambda op: batch(op, ('drop_constraint', 'uq', 'unique')),
            lambda op: _rename(op, 'things', 'colour', 'shade'),
            lambda op: batch(op, ('drop_index', 'ix_colour')),
            lambda op: batch(op, ('drop_column', 'shade')),
            lambda op: op.drop_column('things', 'other_id'),
            lambda op: op.rename_table('others', 'more'),
            lambda op: op.drop_table('more'),
        )
        for number_of, change in enumerate(changes):
            self.change(change)
            before = self.inspected()
            self.change(change)
            self.assertEqual(before, self.inspected(), number_of)
        self.assertEqual({'things'}, self.tables())
        self.assertEqual({'id', 'name', 'size'}, self.columns('things'))

    def inspected(self) -> Any:
        with self.database.engine('read').connect() as connection:
            look = sa.inspect(connection)
            return {
                kind: str(sorted(getattr(look, f'get_multi_{kind}')().items()))
                for kind in ('indexes', 'foreign_keys', 'unique_constraints')
            } | {name: self.columns(name) for name in look.get_table_names()}

    def test_the_index_of_a_table_that_was_made_without_it(self) -> None:
        self.change(self.create)
        with self.database.engine().begin() as connection:
            sa.Index(
                'ix_things_name',
                sa.Table('things', sa.MetaData(), autoload_with=connection).c[
                    'name'
                ],
            ).drop(connection)
        self.change(self.create)
        with self.database.engine('read').connect() as connection:
            (index,) = sa.inspect(connection).get_indexes('things')
        self.assertEqual(['name'], index['column_names'])

    def test_what_is_there_and_is_something_else_is_an_error(self) -> None:
        self.change(self.create)
        self.change(lambda op: op.create_index('ix', 'things', ['id', 'name']))
        for change in (
            lambda op: self.create(op, sa.Column('more', sa.Integer())),
            lambda op: op.create_index('ix', 'things', ['name', 'id']),
        ):
            self.assertRaises(db_exception.DBError, self.change, change)
        self.assertEqual({'id', 'name'}, self.columns('things'))

    def test_all_of_it_without_its_revision(self) -> None:
        migration.sync()
        self.execute('DELETE FROM alembic_version')
        migration.sync()
        self.assertIsNone(migration.check())

    def test_a_table_of_ours_that_somebody_else_has_is_an_error(self) -> None:
        self.execute('CREATE TABLE services (id INTEGER)')
        self.assertRaises(db_exception.DBError, migration.sync)
        self.assertIsNone(migration.current())


def _rename(op: Any, table: str, column: str, name: str) -> None:
    op.alter_column(
        table, column, new_column_name=name, existing_type=sa.Integer()
    )


class TestLock(MigrationTestCase):
    """On MariaDB, whose locks by name are of the whole server."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'mysql':
            self.skipTest('the lock is the transaction, or of one database')

    def limit(self, seconds: int) -> None:
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.migration._MYSQL_LOCK_TIMEOUT', seconds
            )
        )

    def test_each_database_has_one_of_its_own(self) -> None:
        self.limit(0)
        with migration._locked_connection():
            self.database.configure(connection=self.empty())
            migration.sync()
        self.assertIsNone(migration.check())

    def test_so_have_databases_of_the_longest_names(self) -> None:
        self.limit(0)
        url = sa.make_url(self.database.connection)
        names = [f'{"n" * 60}_{os.getpid() % 10}{number}' for number in (1, 2)]
        for name in names:
            self.execute(f'CREATE DATABASE {name}')
            self.addCleanup(self.execute, f'DROP DATABASE {name}')
        self.addCleanup(
            self.database.configure, connection=self.database.connection
        )
        with contextlib.ExitStack() as stack:
            for name in names:
                self.database.configure(
                    connection=url.set(database=name).render_as_string(False)
                )
                stack.enter_context(migration._locked_connection())
                error = self.assertRaises(
                    exception.MigrationLocked, migration.sync
                )
                self.assertEqual(name, error.database)

    def test_one_that_is_not_free_in_time_names_its_holder(self) -> None:
        self.limit(1)
        with migration._locked_connection() as holder:
            number = holder.scalar(sa.select(sa.func.connection_id()))
            error = self.assertRaises(
                exception.MigrationLocked, migration.sync
            )
        self.assertEqual(number, error.holder)
        self.assertIn(f'Connection {number} ', str(error))
        self.assertEqual(set(), self.tables())

    def test_a_wait_that_is_killed_is_an_error(self) -> None:
        with migration._locked_connection() as holder:
            waiting = _Thread(migration.sync)
            self.kill_waiting(holder, 'get_lock')
            self.assertIsInstance(
                waiting.result(),
                exception.MigrationLocked | exception.StatementInterrupted,
            )
        self.assertEqual(set(), self.tables())

    def kill_waiting(self, connection: sa.Connection, what: str) -> None:
        process = self.waiting(connection, what)
        connection.exec_driver_sql(f'KILL QUERY {process}')

    def waiting(self, connection: sa.Connection, what: str) -> int:
        query = sa.text(
            'SELECT id FROM information_schema.processlist WHERE info LIKE '
            ':what AND id != connection_id() AND command = :command AND '
            'db = database()'
        )
        give_up = time.monotonic() + _LONG
        while time.monotonic() < give_up:
            found = connection.scalar(
                query, {'what': f'%{what}%', 'command': 'Query'}
            )
            if found is not None:
                return int(found)
            time.sleep(0.05)
        there = connection.exec_driver_sql('SHOW FULL PROCESSLIST').all()
        raise AssertionError(f'nobody waits for {what}: {there}')

    @contextlib.contextmanager
    def blocker(self) -> Iterator[sa.Connection]:
        """Give a connection of somebody else, who is gone in the end."""
        other = sa.create_engine(self.database.connection)
        with other.connect() as connection:
            try:
                yield connection
            finally:
                connection.invalidate()
        other.dispose()

    def test_nor_the_wait_nor_ddl_is_cut_by_read_timeout(self) -> None:
        url = self.database.connection
        for parameter in ('', '?read_timeout=1'):
            self.database.configure(connection=url + parameter, read_timeout=1)
            with self.blocker() as blocker:
                with migration._locked_connection():
                    waiting = _Thread(migration.sync)
                    self.waiting(blocker, 'get_lock')
                    # That it is cut after a second can only be waited for.
                    time.sleep(2.5)
                    blocker.exec_driver_sql('FLUSH TABLES WITH READ LOCK')
                self.waiting(blocker, 'CREATE TABLE')
                time.sleep(2.5)
            self.assertIsNone(waiting.result())
            self.assertIsNone(migration.check())
            self.downgrade()

    def test_what_a_backup_lock_cuts_off_goes_on(self) -> None:
        url = sa.make_url(self.database.connection)
        impatient = {'init_command': 'SET lock_wait_timeout=1'}
        self.database.configure(
            connection=url.update_query_dict(impatient).render_as_string(False)
        )
        with self.blocker() as blocker:

            def back_up(*arguments: Any) -> None:
                if 'ix_services_host' in arguments[2]:
                    blocker.exec_driver_sql('BACKUP STAGE START')
                    blocker.exec_driver_sql('BACKUP STAGE BLOCK_COMMIT')

            event.listen(sa.Engine, 'before_cursor_execute', back_up)
            try:
                self.assertRaises(db_exception.DBError, migration.sync)
            finally:
                event.remove(sa.Engine, 'before_cursor_execute', back_up)
        self.assertIn('services', self.tables())
        migration.sync()
        self.assertIsNone(migration.check())


class _Thread(threading.Thread):
    """A thread that has a result: the exception, None without one."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._function()
        except Exception as error:
            self._error = error

    def result(self) -> BaseException | None:
        self.join(_LONG)
        if self.is_alive():
            raise AssertionError('the thread does not end')
        return self._error


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
        self.downgrade()
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
        binary = '`binary`' if self.backend == 'mysql' else '"binary"'
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
    def drop_index(self, name: str, table: str) -> str:
        on = f' ON {table}' if self.backend == 'mysql' else ''
        return f'DROP INDEX {name}{on}'

    def test_a_database_without_tables_differs(self) -> None:
        self.assertIsNotNone(migration.check())

    def test_a_database_at_an_older_revision_differs(self) -> None:
        migration.sync('0001')
        self.assertIsNotNone(migration.check())

    def test_what_was_altered_by_hand_is_reported(self) -> None:
        for alteration, name in (
            ('ALTER TABLE services ADD COLUMN extra INTEGER', 'extra'),
            ('ALTER TABLE operations DROP COLUMN attempt', 'attempt'),
            (self.drop_index('ix_operations_created_at', 'operations'), 'ix_'),
            ('CREATE INDEX ix_of_theirs ON services (topic)', 'of_theirs'),
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

    def test_it_writes_nothing(self) -> None:
        migration.check()
        self.assertEqual(set(), self.tables())
        migration.sync('0001')
        self.execute('DELETE FROM alembic_version')
        self.assertIn('db sync', migration.check() or '')
        self.execute('DROP TABLE alembic_version')
        self.assertIn('db sync', migration.check() or '')
        self.assertEqual({'services'}, self.tables())

    def test_who_may_only_read_may_check(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('SQLite has no users')
        migration.sync()
        name = f'reader_{os.getpid()}'
        grants = {
            'mysql': ['GRANT SELECT ON *.* TO {}'],
            'postgresql': [
                'ALTER USER {} SET default_transaction_read_only = on',
                'GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}',
            ],
        }[self.backend]
        drop = {
            'mysql': ['DROP USER {}'],
            'postgresql': ['DROP OWNED BY {}', 'DROP USER {}'],
        }[self.backend]
        self.execute(
            *(s.format(name) for s in [f'CREATE USER {name}', *grants])
        )
        url = sa.make_url(self.database.connection)
        reader = url.set(username=name).render_as_string(False)
        self.database.configure(connection=reader)
        self.assertEqual(migration.head(), migration.current())
        found = migration.check()
        self.database.configure(connection=url.render_as_string(False))
        self.execute(*(statement.format(name) for statement in drop))
        self.assertIsNone(found)

    def test_tables_of_others_are_left_alone(self) -> None:
        self.execute(
            'CREATE TABLE spatial_ref_sys (srid INTEGER PRIMARY KEY)',
            'CREATE TABLE theirs (id INTEGER, name VARCHAR(9))',
            'CREATE INDEX ix_theirs ON theirs (id)',
        )
        migration.sync()
        self.execute('CREATE VIEW living AS SELECT id FROM services')
        self.assertIsNone(migration.check())
        copy = self.useFixture(CopyOfVersions())
        self.useFixture(ModelsAhead())
        script = pathlib.Path(migration.revision('Colour')).read_text()
        self.assertIn('colour', script)
        for name in ('spatial_ref_sys', 'theirs', 'living'):
            self.assertNotIn(name, script)
        self.assertTrue(copy.names())
        self.execute('DROP VIEW living')

    def test_another_collation_is_reported(self) -> None:
        statement = {
            'mysql': 'ALTER TABLE services MODIFY host VARCHAR(255) NOT NULL '
            'COLLATE utf8mb4_bin',
            'postgresql': 'ALTER TABLE services ALTER host TYPE VARCHAR(255) '
            'COLLATE "POSIX"',
        }.get(self.backend)
        if statement is None:
            self.skipTest('SQLite compares code by code')
        migration.sync()
        self.execute(statement)
        self.assertRegex(
            migration.check() or '',
            'column host of table services has the collation (utf8mb4_bin|'
            'POSIX) instead of (utf8mb4_nopad_bin|C)$',
        )

    def test_another_engine_or_row_format_is_reported(self) -> None:
        if self.backend != 'mysql':
            self.skipTest('only MariaDB and MySQL have several')
        for table, how in (
            ('operations', 'ENGINE = Aria'),
            ('quotas', 'ROW_FORMAT = COMPRESSED'),
            ('alembic_version', 'ENGINE = MyISAM'),
        ):
            self.database.configure(connection=self.empty())
            migration.sync()
            self.execute(f'ALTER TABLE {table} {how}')
            found = migration.check() or ''
            self.assertIn(f'table {table} has another engine', found)
            self.execute(found.split('"')[1])
            self.assertIsNone(migration.check())

    def test_differences_are_told_in_words(self) -> None:
        migration.sync()
        self.execute(
            'ALTER TABLE services ADD COLUMN extra INTEGER',
            'ALTER TABLE operations DROP COLUMN attempt',
            self.drop_index('ix_services_host', 'services'),
        )
        self.assertEqual(
            {
                'column extra of table services is not in the models',
                'column attempt of table operations is missing',
                'index ix_services_host of table services is missing',
            },
            set((migration.check() or '').split('; ')),
        )


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
        self.downgrade('-1')
        with self.database.engine().begin() as connection:
            columns = sa.inspect(connection).get_columns('services')
        self.assertNotIn('colour', [column['name'] for column in columns])
        self.assertEqual(newest, migration.current())

    def test_a_schema_that_is_not_the_newest_is_refused(self) -> None:
        copy = self.useFixture(CopyOfVersions())
        before = copy.names()
        self.assertRaises(exception.NoTables, migration.revision, 'Colour')
        self.assertEqual(set(), self.tables())
        migration.sync('0001')
        error = self.assertRaises(
            exception.SchemaOutdated, migration.revision, 'Colour'
        )
        self.assertIn('run myservice-manage db sync', str(error))
        self.assertEqual(before, copy.names())

    def test_two_revisions_after_one_are_a_typed_error(self) -> None:
        copy = self.useFixture(CopyOfVersions())
        migration.sync()
        text = (copy.path / '0002_operations.py').read_text()
        (copy.path / '0002_too.py').write_text(
            text.replace("revision = '0002'", "revision = '0002b'")
        )
        for call in (migration.head, migration.check, migration.sync):
            self.assertRaises(exception.MigrationFailed, call)


class TestDirectory(base.TestCase):
    def test_sync_makes_the_directory_of_a_sqlite_file(self) -> None:
        parent = self.useFixture(plain_fixtures.TempDir()).path
        path = pathlib.Path(parent, 'a', 'b', 'test.sqlite')
        self.useFixture(fixtures.Database(f'sqlite:///{path}'))
        migration.sync()
        self.assertTrue(path.is_file())
        self.assertIsNone(migration.check())

    def test_who_only_looks_makes_none(self) -> None:
        parent = pathlib.Path(self.useFixture(plain_fixtures.TempDir()).path)
        for path in (parent / 'a' / 'test.sqlite', parent / 'test.sqlite'):
            self.useFixture(fixtures.Database(f'sqlite:///{path}'))
            self.assertIsNone(migration.current())
            self.assertIn('There are no tables', migration.check() or '')
            self.assertRaises(exception.NoTables, migration.revision, 'x')
            self.assertEqual([], list(parent.iterdir()))

    def test_a_file_that_only_can_be_read_can_be_checked(self) -> None:
        path = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path, 'test.sqlite'
        )
        self.useFixture(fixtures.Database(f'sqlite:///{path}'))
        migration.sync()
        writer = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(writer.close)
        writer.execute('BEGIN IMMEDIATE')
        self.assertIsNone(migration.check())

    def test_the_file_of_a_uri(self) -> None:
        parent = pathlib.Path(self.useFixture(plain_fixtures.TempDir()).path)
        url = f'sqlite:///file:{parent}/a%20b/test.sqlite?uri=true'
        self.useFixture(fixtures.Database(url))
        self.assertIn('There are no tables', migration.check() or '')
        self.assertEqual([], list(parent.iterdir()))
        migration.sync()
        self.assertIsNone(migration.check())
        self.assertTrue((parent / 'a b' / 'test.sqlite').is_file())

    def test_a_database_in_memory_needs_none(self) -> None:
        self.useFixture(fixtures.Database('sqlite://'))
        migration.sync()
        self.assertIsNone(migration.check())
        self.assertEqual('sqlite://', str(engines.get_engines().url))

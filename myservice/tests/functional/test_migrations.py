"""Migrations on servers with settings of their own, and programs there."""

import json
import subprocess
from typing import Any
from typing import ClassVar

import sqlalchemy as sa

from myservice import db
from myservice import fixtures
from myservice import servers
from myservice.db import migration
from myservice.db import models
from myservice.tests.functional import base

OURS = {'alembic_version', *models.Base.metadata.tables}


class Migrations(base.ServerTestCase):
    """A test on a server whose database has no tables."""

    def setUp(self) -> None:
        super(base.ServerTestCase, self).setUp()
        assert self.server_class is not None
        self.root = sa.create_engine(
            self.server.root_url, isolation_level='AUTOCOMMIT'
        )
        self.addCleanup(self.root.dispose)
        self.as_root('DROP DATABASE IF EXISTS test', 'CREATE DATABASE test')
        self.database = self.useFixture(fixtures.Database(self.server.url))

    def as_root(self, *statements: str) -> Any:
        with self.root.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
                found = result.all() if result.returns_rows else None
        return found

    def use(self, **parts: Any) -> None:
        """Configure another user or database of the server."""
        url = sa.make_url(self.server.url).set(**parts)
        self.database.connection = url.render_as_string(False)
        self.database.configure(connection=self.database.connection)

    def manage(self, *arguments: str) -> tuple[int, str, str]:
        """Run myservice-manage; return its exit code, stdout and stderr."""
        command = self.program('manage', self.write_config(), *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def assert_refused(self, reason: str, *arguments: str) -> None:
        code, out, err = self.manage(*arguments)
        self.assertEqual((2, ''), (code, out), err)
        self.assertEqual(1, err.count('\n'), err)
        self.assertIn(reason, err)


class Defaults(Migrations):
    """A server whose defaults would not do."""

    def stored(self) -> dict[str, set[Any]]:
        """Return how all tables and their texts are stored."""
        tables = self.as_root(
            'SELECT table_name, engine, row_format, table_collation FROM '
            "information_schema.tables WHERE table_schema = 'test'"
        )
        texts = self.as_root(
            'SELECT collation_name FROM information_schema.columns WHERE '
            "table_schema = 'test' AND collation_name IS NOT NULL"
        )
        return {
            'names': {row[0] for row in tables},
            'tables': {tuple(row[1:]) for row in tables},
            'texts': {row[0] for row in texts},
        }

    def assert_stored(self, names: set[str]) -> None:
        exact = 'utf8mb4_nopad_bin'
        self.assertEqual(
            {
                'names': names,
                'tables': {('InnoDB', 'Dynamic', exact)},
                'texts': {exact},
            },
            self.stored(),
        )

    def test_a_migration_says_what_it_needs(self) -> None:
        code, _, err = self.manage('db', 'sync')
        self.assertEqual((0, ''), (code, err))
        self.assert_stored(OURS)
        self.assertIsNone(migration.check())
        made = db.api.service_register(
            self.context, {'host': 'h😀', 'binary': 'b'}
        )
        self.assertEqual(made, db.api.service_get(self.context, made.id))

    def test_so_do_the_models(self) -> None:
        models.Base.metadata.create_all(self.database.engine())
        self.assert_stored(OURS - {'alembic_version'})

    def test_a_table_that_an_older_release_has_made_is_converted(
        self,
    ) -> None:
        migration.sync()
        with self.database.engine().begin() as connection:
            for statement in (
                *(
                    f'DROP TABLE {table.name}'
                    for table in reversed(models.Base.metadata.sorted_tables)
                    if table.name != 'services'
                ),
                *(
                    f'DROP INDEX {index.name} ON services'
                    for index in models.Base.metadata.tables[
                        'services'
                    ].indexes
                ),
                'ALTER TABLE services DROP INDEX '
                'uq_services_host_binary_deleted',
                'ALTER TABLE services ENGINE = Aria',
                'ALTER TABLE services ADD CONSTRAINT '
                'uq_services_host_binary_deleted '
                'UNIQUE (host, `binary`, deleted)',
                'DELETE FROM alembic_version',
            ):
                connection.exec_driver_sql(statement)
        migration.sync()
        self.assertIsNone(migration.check())
        self.assert_stored(OURS)


class TestMyISAM(Defaults):
    server_class = servers.MariaDB
    settings: ClassVar[dict[str, Any]] = {
        'default_storage_engine': 'MyISAM',
        'innodb_default_row_format': 'compact',
        'character_set_server': 'latin1',
    }


class TestAria(Defaults):
    server_class = servers.MariaDB
    settings: ClassVar[dict[str, Any]] = {
        'default_storage_engine': 'Aria',
        'innodb_default_row_format': 'redundant',
        'character_set_server': 'utf8mb3',
    }


class ReadOnly(Migrations):
    """A server, or a user of it, that does not write."""

    def become_read_only(self) -> None:
        raise NotImplementedError

    def become_writable(self) -> None:
        raise NotImplementedError

    def test_sync_is_refused_in_one_line(self) -> None:
        self.become_read_only()
        self.assert_refused('the database cannot be used', 'db', 'sync')
        self.assert_refused('read', 'db', 'sync')

    def test_check_and_version_answer(self) -> None:
        self.become_read_only()
        code, out, err = self.manage('db', 'check', '--json')
        self.assertEqual((1, ''), (code, err))
        self.assertIn('There are no tables', json.loads(out)['difference'])
        self.become_writable()
        migration.sync()
        self.become_read_only()
        self.assertEqual(0, self.manage('db', 'check')[0])
        code, out, _ = self.manage('db', 'version', '--json')
        self.assertEqual(0, code)
        self.assertEqual(migration.head(), json.loads(out)['revision'])
        # There is nothing to be done.
        self.assertEqual(0, self.manage('db', 'sync')[0])


class TestReadOnlyMariaDB(ReadOnly):
    server_class = servers.MariaDB

    def become_read_only(self) -> None:
        # Those who administrate may write all the same.
        self.as_root(
            'CREATE OR REPLACE USER plain',
            'GRANT ALL ON test.* TO plain',
            'SET GLOBAL read_only = 1',
        )
        self.use(username='plain')

    def become_writable(self) -> None:
        self.as_root('SET GLOBAL read_only = 0')

    def tearDown(self) -> None:
        self.become_writable()
        super().tearDown()


class TestReadOnlyPostgreSQL(ReadOnly):
    server_class = servers.PostgreSQL

    def become_read_only(self) -> None:
        self.alter('on')

    def become_writable(self) -> None:
        self.alter('off')

    def alter(self, state: str) -> None:
        self.database.configure()
        self.as_root(
            f'ALTER DATABASE test SET default_transaction_read_only = {state}'
        )


class TestEncodings(Migrations):
    server_class = servers.PostgreSQL

    def test_what_is_not_utf8_is_refused(self) -> None:
        for encoding in ('SQL_ASCII', 'LATIN1', 'EUC_JP'):
            name = f'in_{encoding.lower()}'
            self.as_root(
                f"CREATE DATABASE {name} ENCODING '{encoding}' "
                "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            )
            self.use(database=name)
            reason = f'The encoding of database {name} is {encoding}'
            self.assert_refused(reason, 'db', 'sync')
            code, out, err = self.manage('db', 'check', '--json')
            self.assertEqual((1, ''), (code, err))
            self.assertIn(reason, json.loads(out)['difference'])
            self.assertEqual(0, self.manage('db', 'version')[0])
            with self.database.engine().begin() as connection:
                self.assertEqual([], sa.inspect(connection).get_table_names())

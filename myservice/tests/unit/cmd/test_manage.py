"""myservice-manage: what operators type, read, and get as exit codes."""

import configparser
import contextlib
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

import fixtures as plain_fixtures
from oslo_config import cfg

from myservice import conf as options
from myservice import context
from myservice import db
from myservice import exception
from myservice.cmd import manage
from myservice.db import migration
from myservice.db.engine import engines
from myservice.tests import base
from myservice.tests import factories
from myservice.tests.unit.db import test_migration

CODES = (
    'Exit codes: 0 done; 1 refused, or the answer is no; 2 the command line, '
    'the configuration or the database is at fault, or the answer cannot be '
    'written; 130 interrupted; 141 nobody reads the answer.'
)


class ManageTestCase(base.TestCase):
    """A test with a configuration file, which names a SQLite file."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path
        )
        self.config = self.directory / 'myservice.conf'
        self.configure('')
        self.context = context.get_admin_context()
        self.addCleanup(db.api.configure, options.CONF)

    def configure(self, database: str) -> None:
        """Write the configuration file, with these lines in [database]."""
        self.config.write_text(
            f'[DEFAULT]\nstate_path = {self.directory}\n'
            f'[database]\n{database}\n'
        )

    def run_it(self, *arguments: str) -> tuple[int, str, str]:
        """Run the program, and return its exit code, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = manage.main(
                    ['--config-file', str(self.config), *arguments]
                )
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, out.getvalue(), err.getvalue()

    def done(self, *arguments: str) -> str:
        """Run the program, which succeeds silently, and return its stdout."""
        code, out, err = self.run_it(*arguments)
        self.assertEqual((0, ''), (code, err))
        return out

    def answer(self, *arguments: str) -> Any:
        """Return what the program answers as JSON."""
        return json.loads(self.done(*arguments, '--json'))

    def refused(self, expected: int, *arguments: str) -> str:
        """Run the program, which fails, and return its one line."""
        code, out, err = self.run_it(*arguments)
        self.assertEqual((expected, ''), (code, out), err)
        self.assertEqual(1, err.count('\n'), err)
        self.assertEqual('myservice-manage: ', err[:18])
        return err[18:].rstrip()

    def execute(self, statement: str) -> None:
        """Execute SQL in the database that the program used last."""
        bind = engines.get_engines().get_engine('transaction')
        with bind.begin() as connection:
            connection.exec_driver_sql(statement)


class TestDatabaseCommands(ManageTestCase):
    def test_sync_makes_the_tables_and_says_the_revision(self) -> None:
        self.assertEqual(
            {'revision': migration.head()}, self.answer('db', 'sync')
        )
        self.assertTrue((self.directory / 'myservice.sqlite').exists())
        self.assertIsNone(migration.check())
        table = self.done('db', 'sync')
        self.assertRegex(table, f'revision .* {migration.head()} ')

    def test_sync_takes_a_revision(self) -> None:
        self.assertEqual(
            {'revision': '0001'}, self.answer('db', 'sync', '0001')
        )

    def test_sync_to_an_unknown_revision_is_refused(self) -> None:
        self.assertEqual(
            'There is no revision 77 of the database schema.',
            self.refused(1, 'db', 'sync', '77'),
        )

    def test_sync_of_a_newer_schema_is_refused(self) -> None:
        self.done('db', 'sync')
        self.execute("UPDATE alembic_version SET version_num = '9999'")
        self.assertIn('9999', self.refused(1, 'db', 'sync'))

    def test_version_says_the_revision_and_the_newest(self) -> None:
        head = migration.head()
        self.assertEqual(
            {'revision': None, 'head': head}, self.answer('db', 'version')
        )
        self.assertRegex(self.done('db', 'version'), 'revision .* - ')
        self.done('db', 'sync')
        self.assertEqual(
            {'revision': head, 'head': head}, self.answer('db', 'version')
        )

    def test_check_is_0_where_nothing_differs(self) -> None:
        self.done('db', 'sync')
        self.assertEqual(
            {'differs': False, 'difference': None},
            self.answer('db', 'check'),
        )
        self.assertRegex(self.done('db', 'check'), 'differs .* False ')

    def test_check_is_1_where_something_differs(self) -> None:
        self.done('db', 'sync')
        self.execute('ALTER TABLE services ADD COLUMN extra INTEGER')
        code, out, err = self.run_it('db', 'check', '--json')
        self.assertEqual((1, ''), (code, err))
        self.assertTrue(json.loads(out)['differs'])
        self.assertIn('extra', json.loads(out)['difference'])
        code, out, err = self.run_it('db', 'check')
        self.assertEqual((1, ''), (code, err))
        self.assertIn('extra', out)

    def test_check_is_1_where_nothing_was_synced(self) -> None:
        code, out, err = self.run_it('db', 'check')
        self.assertEqual((1, ''), (code, err))
        self.assertIn('run myservice-manage db sync', out)
        self.assertFalse((self.directory / 'myservice.sqlite').exists())

    def test_revision_writes_a_script_and_prints_its_path(self) -> None:
        copy = self.useFixture(test_migration.CopyOfVersions())
        self.done('db', 'sync')
        self.useFixture(test_migration.ModelsAhead())
        before = copy.names()
        script = self.answer('db', 'revision', '-m', 'Add a colour')['script']
        path = pathlib.Path(script)
        self.assertEqual({path.name}, copy.names() - before)
        self.assertIn('colour', path.read_text())

    def test_revision_needs_a_message(self) -> None:
        code, _, err = self.run_it('db', 'revision')
        self.assertEqual(2, code)
        self.assertIn('--message', err)


class TestServiceCommands(ManageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.done('db', 'sync')

    def hosts(self, *arguments: str) -> list[str]:
        """Return the hosts that "service list" gives, in order."""
        return [
            service['host']
            for service in self.answer('service', 'list', *arguments)
        ]

    def test_list_shows_a_table(self) -> None:
        made = factories.create_service(host='h1', availability_zone='west')
        db.api.service_update(
            self.context, made.id, {'disabled': True, 'disabled_reason': 'x'}
        )
        factories.create_service(host='h2')
        forced = factories.create_service(host='h3')
        db.api.service_update(self.context, forced.id, {'forced_down': True})
        db.api.service_heartbeat(self.context, forced.id)
        heading, *rows = [
            [cell.strip() for cell in line[1:-1].split(line[0])]
            for line in self.done('service', 'list').splitlines()
            if line[0] in '┃│'
        ]
        self.assertEqual(
            ['ID', 'Host', 'Binary', 'Zone', 'Status', 'State', 'Last seen'],
            heading,
        )
        name = 'myservice-agent'
        self.assertEqual(
            [
                [made.id, 'h1', name, 'west', 'disabled: x', 'up', '-'],
                ['h2', name, '-', 'enabled', 'up', '-'],
                ['h3', name, '-', 'enabled', 'forced down'],
            ],
            [rows[0], rows[1][1:], rows[2][1:-1]],
        )
        self.assertRegex(rows[2][-1], r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d')

    def test_one_that_was_stopped_is_told_from_one_that_died(self) -> None:
        made = factories.create_service(host='h1')
        db.api.service_unregister(self.context, made.id)
        self.assertIn(' down: stopped ', self.done('service', 'list'))
        shown = self.answer('service', 'show', made.id)
        self.assertEqual((0, False), (shown['registration'], shown['is_up']))
        self.assertIsNotNone(shown['unregistered_at'])
        self.assertNotIn('operation', shown)
        db.api.service_register(
            self.context, {'host': 'h1', 'binary': made.binary}
        )
        self.assertIn(' up ', self.done('service', 'list'))
        self.assertRegex(
            self.done('service', 'show', made.id), 'registration .* 1 '
        )

    def test_list_as_json_has_every_field(self) -> None:
        made = factories.create_service(host='h1', version=3)
        db.api.service_heartbeat(self.context, made.id)
        made = db.api.service_get(self.context, made.id)
        (found,) = self.answer('service', 'list')
        self.assertEqual(
            {
                name: value.isoformat() if hasattr(value, 'year') else value
                for name, value in dict(made).items()
            },
            found,
        )

    def test_list_of_nothing_is_an_empty_list(self) -> None:
        self.assertEqual([], self.answer('service', 'list'))
        self.assertIn('Host', self.done('service', 'list'))

    def test_each_filter_of_list(self) -> None:
        factories.create_service(
            host='h1', binary='b1', topic='t1', availability_zone='z1'
        )
        other = factories.create_service(
            host='h2', binary='b2', topic='t2', availability_zone='z2'
        )
        db.api.service_update(
            self.context, other.id, {'disabled': True, 'forced_down': True}
        )
        arguments: tuple[str, ...]
        for arguments in (
            ('--host', 'h1'),
            ('--binary', 'b1'),
            ('--topic', 't1'),
            ('--availability-zone', 'z1'),
            ('--up',),
            ('--enabled',),
        ):
            self.assertEqual(['h1'], self.hosts(*arguments), arguments)
        for arguments in (
            ('--host', 'h2'),
            ('--down',),
            ('--disabled',),
            ('--down', '--disabled', '--topic', 't2'),
        ):
            self.assertEqual(['h2'], self.hosts(*arguments), arguments)
        self.assertEqual([], self.hosts('--host', 'h1', '--down'))
        self.assertEqual(['h1', 'h2'], self.hosts())

    def test_filters_that_exclude_each_other_are_refused(self) -> None:
        code, _, err = self.run_it('service', 'list', '--up', '--down')
        self.assertEqual(2, code)
        self.assertIn('not allowed with', err)

    def test_list_is_sorted_as_told(self) -> None:
        for host, version in (('a', 2), ('b', 1), ('c', 2)):
            factories.create_service(host=host, binary='x', version=version)
        self.assertEqual(['a', 'b', 'c'], self.hosts())
        self.assertEqual(['c', 'b', 'a'], self.hosts('--sort', 'host:desc'))
        self.assertEqual(
            ['b', 'c', 'a'], self.hosts('--sort', 'version,host:desc')
        )

    def test_list_gives_pages(self) -> None:
        for number in range(5):
            factories.create_service(host=f'h{number}')
        first = self.answer('service', 'list', '--limit', '2')
        self.assertEqual(['h0', 'h1'], [row['host'] for row in first])
        marker = ('--marker', first[-1]['id'])
        self.assertEqual(['h2', 'h3'], self.hosts('--limit', '2', *marker))
        self.assertEqual(['h2', 'h3', 'h4'], self.hosts(*marker))

    def test_list_refuses_what_makes_no_sense(self) -> None:
        for arguments, code in (
            (('--sort', 'nonsense'), 2),
            (('--sort', 'host:sideways'), 2),
            (('--limit', '-1'), 2),
            (('--marker', 'nonsense'), 1),
        ):
            self.refused(code, 'service', 'list', *arguments)

    def test_show_gives_every_field(self) -> None:
        made = factories.create_service(host='h1')
        shown = self.answer('service', 'show', made.id)
        self.assertEqual('h1', shown['host'])
        self.assertEqual(set(dict(made)), set(shown))
        self.assertRegex(self.done('service', 'show', made.id), 'host .* h1 ')

    def test_disable_and_enable_change_the_service(self) -> None:
        made = factories.create_service()

        def get() -> tuple[bool, str | None]:
            found = db.api.service_get(self.context, made.id)
            return found.disabled, found.disabled_reason

        self.assertEqual(
            {'id': made.id, 'disabled': True, 'disabled_reason': 'broken'},
            self.answer('service', 'disable', made.id, '--reason', 'broken'),
        )
        self.assertEqual((True, 'broken'), get())
        self.assertIn(made.id, self.done('service', 'enable', made.id))
        self.assertEqual((False, None), get())
        self.done('service', 'disable', made.id)
        self.assertEqual((True, None), get())

    def test_remove_destroys_the_service(self) -> None:
        for arguments in ((), ('--force',)):
            made = factories.create_service()
            self.assertEqual(
                {'id': made.id, 'removed': True},
                self.answer('service', 'remove', made.id, *arguments),
            )
            self.assertRaises(
                exception.ServiceNotFound,
                db.api.service_get,
                self.context,
                made.id,
            )

    def test_an_unknown_service_is_refused(self) -> None:
        for command in ('show', 'disable', 'enable', 'remove'):
            self.assertEqual(
                'Service nonsense could not be found.',
                self.refused(1, 'service', command, 'nonsense'),
            )

    def test_text_that_looks_like_markup_is_shown_as_it_is(self) -> None:
        reason = '[bold]x[/bold] :smile:'
        made = factories.create_service(host='h1')
        self.done('service', 'disable', made.id, '--reason', reason)
        self.assertIn(reason, self.done('service', 'list'))

    def test_a_long_text_is_not_cut(self) -> None:
        host = 'h' * 255
        factories.create_service(host=host)
        self.assertIn(host, self.done('service', 'list'))


class TestConfiguration(ManageTestCase):
    def test_config_dir_is_read_after_the_file(self) -> None:
        parts = self.directory / 'parts'
        parts.mkdir()
        (parts / 'database.conf').write_text(
            f'[database]\nconnection = sqlite:///{self.directory}/other\n'
        )
        self.done('--config-dir', str(parts), 'db', 'sync')
        self.assertTrue((self.directory / 'other').exists())
        self.assertFalse((self.directory / 'myservice.sqlite').exists())

    def test_the_sample_has_every_option(self) -> None:
        sample = self.done('config', 'sample')
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(sample)
        # The options are comments; without the sign they are still one.
        bare = configparser.ConfigParser(interpolation=None, strict=False)
        bare.read_string(
            '\n'.join(
                line[1:] if line[:1] == '#' and line[1:2].isalpha() else line
                for line in sample.splitlines()
                if line[:2] != '# '
            )
        )
        for group, group_options in options.list_opts():
            self.assertIn(group, ['DEFAULT', *parser.sections()])
            for option in group_options:
                self.assertIn(option.dest, bare[group])
        self.assertEqual(
            'sqlite:///$state_path/myservice.sqlite',
            bare['database']['connection'],
        )

    def test_the_sample_names_no_option_without_effect(self) -> None:
        sample = self.done('config', 'sample')
        for name in ('synchronous_reader', 'asyncio_'):
            self.assertNotIn(name, sample)

    def test_the_sample_is_a_configuration_that_works(self) -> None:
        path = self.directory / 'sample.conf'
        path.write_text(self.done('config', 'sample'))
        self.done('--config-file', str(path), 'db', 'version')
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf([], default_config_files=[str(path)])
        self.assertEqual('/var/lib/myservice', conf.state_path)

    def test_the_sample_needs_no_database(self) -> None:
        self.configure('connection = mysql+pymysql://nobody@127.0.0.1:1/x')
        self.done('config', 'sample')


class TestFailure(ManageTestCase):
    def test_a_dead_server_is_told_in_one_line_and_soon(self) -> None:
        for url in (
            'mysql+pymysql://nobody:secret@127.0.0.1:1/x',
            'postgresql+psycopg://nobody:secret@127.0.0.1:1/x',
        ):
            self.configure(f'connection = {url}')
            for command in (
                ('db', 'sync'),
                ('db', 'version'),
                ('db', 'check'),
                ('service', 'list'),
            ):
                started = time.monotonic()
                message = self.refused(2, *command)
                self.assertTrue(time.monotonic() - started < 15)
                self.assertIn('the database cannot be used', message)
                self.assertIn('refused', message)
                self.assertNotIn('secret', message)

    def test_a_server_that_says_nothing_is_told_within_15_seconds(
        self,
    ) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            port = listener.getsockname()[1]
            for url in (
                f'mysql+pymysql://nobody@127.0.0.1:{port}/x',
                f'postgresql+psycopg://nobody@127.0.0.1:{port}/x',
            ):
                self.configure(
                    f'connection = {url}\nconnect_timeout = 1\n'
                    'read_timeout = 1'
                )
                started = time.monotonic()
                self.refused(2, 'db', 'version')
                self.assertTrue(time.monotonic() - started < 15)

    def test_a_url_that_cannot_be_parsed(self) -> None:
        for url in ('nonsense', '', 'nonsense://x'):
            self.configure(f'connection = {url}')
            message = self.refused(2, 'db', 'sync')
            self.assertIn('Invalid input for [database] connection', message)

    def test_a_url_whose_port_is_no_number(self) -> None:
        self.configure('connection = mysql+pymysql://nobody@localhost:x/y')
        self.refused(2, 'db', 'sync')

    def test_a_url_whose_driver_is_not_installed(self) -> None:
        self.configure('connection = mysql+oursql://nobody@localhost/x')
        self.refused(2, 'db', 'sync')
        # Without a driver SQLAlchemy takes mysqlclient.
        self.configure('connection = mysql+mysqldb://nobody@localhost/x')
        self.refused(2, 'db', 'sync')

    def test_a_database_that_is_not_supported(self) -> None:
        for option in ('connection', 'slave_connection'):
            for name in ('mssql', 'oracle', 'mysql+mysqlconnector'):
                self.configure(
                    f'{option} = {name}://nobody:hidden@localhost/x'
                )
                for command in (
                    ('db', 'sync'),
                    ('db', 'check'),
                    ('db', 'version'),
                    ('service', 'list'),
                ):
                    message = self.refused(2, *command)
                    self.assertIn(f'[database] {option}: {name} ', message)
                    self.assertIn('mariadb+pymysql', message)
                    self.assertNotIn('hidden', message)
            self.configure(f'{option} = mysql+aiomysql://nobody@localhost/x')
            self.assertIn('asyncio', self.refused(2, 'db', 'sync'))

    def test_a_file_in_a_directory_that_is_missing(self) -> None:
        self.configure(f'connection = sqlite:///{self.directory}/a/b.sqlite')
        for arguments in (('service', 'list'), ('db', 'revision', '-m', 'x')):
            message = self.refused(2, *arguments)
            self.assertIn('run myservice-manage db sync', message)
        self.assertFalse((self.directory / 'a').exists())

    def test_a_state_path_that_cannot_be_made(self) -> None:
        (self.directory / 'file').touch()
        self.configure(f'connection = sqlite:///{self.directory}/file/x/y')
        self.refused(2, 'db', 'sync')

    def test_a_file_that_is_no_database(self) -> None:
        (self.directory / 'myservice.sqlite').write_text('nonsense ' * 1000)
        self.assertIn(
            'file is not a database', self.refused(2, 'service', 'list')
        )

    def test_a_configuration_file_that_is_missing(self) -> None:
        self.config.unlink()
        message = self.refused(2, 'db', 'version')
        self.assertIn(str(self.config), message)

    def test_a_configuration_file_that_cannot_be_parsed(self) -> None:
        self.config.write_text('nonsense\n')
        self.assertIn(str(self.config), self.refused(2, 'db', 'version'))

    def test_an_option_that_is_no_number(self) -> None:
        self.configure('max_pool_size = many')
        self.assertIn('max_pool_size', self.refused(2, 'db', 'version'))

    def test_an_option_out_of_its_range(self) -> None:
        self.configure('read_timeout = 0')
        self.assertIn('read_timeout', self.refused(2, 'db', 'version'))

    def test_usage(self) -> None:
        for arguments in (
            (),
            ('db',),
            ('service',),
            ('nonsense',),
            ('db', 'nonsense'),
            ('service', 'show'),
            ('service', 'list', '--nonsense'),
            ('service', 'list', '--limit', 'many'),
        ):
            code, out, err = self.run_it(*arguments)
            self.assertEqual((2, ''), (code, out), arguments)
            self.assertIn('usage: ', err)


class TestWithoutTables(ManageTestCase, test_migration.MigrationTestCase):
    """On each database: what is missing, and what to do about it."""

    def test_every_command_says_what_to_run(self) -> None:
        self.configure(f'connection = {self.empty()}')
        for arguments in (
            ('service', 'list'),
            ('service', 'show', 'x'),
            ('service', 'disable', 'x'),
            ('quota', 'show', 'p1'),
            ('quota', 'set', 'p1', 'resources', '1'),
            ('quota', 'check'),
            ('quota', 'expire'),
            ('resource', 'list'),
            ('db', 'revision', '-m', 'x'),
        ):
            message = self.refused(2, *arguments)
            self.assertIn('run myservice-manage db sync', message)
        self.assertEqual(1, self.run_it('db', 'check')[0])

    def test_check_is_1_until_it_was_run(self) -> None:
        self.configure(f'connection = {self.empty()}')
        for expected in (
            'There are no tables: run myservice-manage db sync.',
            'The tables are at revision 0001, but this release needs '
            f'{migration.head()}: run myservice-manage db sync.',
        ):
            code, out, err = self.run_it('db', 'check', '--json')
            self.assertEqual((1, ''), (code, err))
            self.assertEqual(
                {'differs': True, 'difference': expected}, json.loads(out)
            )
            self.done('db', 'sync', '0001')


class TestHelp(ManageTestCase):
    def test_it_names_the_exit_codes_everywhere(self) -> None:
        for arguments in (
            (),
            ('db',),
            ('service',),
            ('config',),
            ('db', 'check'),
            ('service', 'list'),
            ('config', 'sample'),
        ):
            code, out, err = self.run_it(*arguments, '--help')
            self.assertEqual((0, ''), (code, err))
            self.assertIn(CODES, ' '.join(out.split()), arguments)

    def test_version(self) -> None:
        code, out, _ = self.run_it('--version')
        self.assertEqual(0, code)
        self.assertRegex(out, r'^\d+\.\d+\.\d+')


class TestProcess(ManageTestCase):
    """What only a process of its own can show."""

    def process(self, *arguments: str) -> Any:
        return subprocess.run(
            [
                *(sys.executable, '-m', 'myservice.cmd.manage'),
                *('--config-file', str(self.config), *arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {'PYTHONIOENCODING': 'utf-8'},
        )

    def test_it_exits_with_the_code_and_prints_one_line(self) -> None:
        self.configure('connection = mysql+pymysql://nobody@127.0.0.1:1/x')
        done = self.process('service', 'list')
        self.assertEqual((2, ''), (done.returncode, done.stdout))
        self.assertEqual(1, done.stderr.count('\n'), done.stderr)

    def test_debug_shows_what_is_done_on_stderr_alone(self) -> None:
        self.process('db', 'sync')
        quiet = self.process('service', 'list', '--json')
        self.assertEqual(('[]\n', ''), (quiet.stdout, quiet.stderr))
        done = self.process('--debug', 'db', 'version', '--json')
        self.assertEqual(migration.head(), json.loads(done.stdout)['head'])
        self.assertIn('DEBUG', done.stderr)

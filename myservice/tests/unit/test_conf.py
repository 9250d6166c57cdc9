"""Options: each one is tested, documented, and has the default it claims."""

import configparser
import importlib
import pathlib
import re
from typing import Any

import fixtures
from oslo_config import cfg
from oslo_config import types

import myservice
from myservice import conf as options
from myservice import db
from myservice import exception
from myservice.conf import ranges
from myservice.tests import base

EXAMPLE = (
    pathlib.Path(myservice.__file__).parent.parent
    / 'etc/myservice/myservice.conf'
)

# The test that shows what an option does; there may be more than one.
TESTED = {
    'agent.worker': 'test_worker_pool.TestOptions.'
    'test_worker_names_what_works',
    'agent.worker_seconds': 'test_worker_pool.TestOptions.'
    'test_worker_seconds_is_how_long_the_built_in_one_takes',
    'agent.poll_interval': 'test_worker_pool.TestOptions.'
    'test_poll_interval_is_the_time_between_two_looks',
    'agent.concurrency': 'test_worker_pool.TestOptions.'
    'test_concurrency_is_how_many_are_worked_on_at_once',
    'agent.take_over_interval': 'test_worker_pool.TestOptions.'
    'test_take_over_interval_is_when_the_dead_lose_their_claims',
    'DEFAULT.state_path': 'test_engine.TestConnection.'
    'test_the_default_is_a_sqlite_file_under_state_path',
    'database.connection': 'test_engine.TestConnection.'
    'test_connection_names_the_database',
    'database.connection_parameters': 'test_engine.TestConnection.'
    'test_connection_parameters_are_kept_beside_ours',
    'database.slave_connection': 'test_stale.TestStale.'
    'test_reads_that_may_be_stale_go_to_slave_connection',
    'database.max_pool_size': 'test_engine.TestPool.'
    'test_max_pool_size_is_how_many_stay_open',
    'database.max_overflow': 'test_engine.TestPool.'
    'test_max_overflow_and_pool_timeout_limit_and_the_error_says_so',
    'database.pool_timeout': 'test_engine.TestPool.'
    'test_max_overflow_and_pool_timeout_limit_and_the_error_says_so',
    'database.connection_recycle_time': 'test_engine.TestPool.'
    'test_connection_recycle_time_replaces_old_connections',
    'database.ping_after_idle': 'test_engine.TestPing.'
    'test_ping_after_idle_moves_the_limit',
    'database.connection_debug': 'test_engine.TestLogging.'
    'test_a_connection_debug_of_50_logs_statements',
    'database.connection_trace': 'test_engine.TestLogging.'
    'test_connection_trace_says_in_sql_who_sent_it',
    'database.max_retries': 'test_engine.TestDeadServer.'
    'test_with_max_retries_the_first_use_tries_again',
    'database.retry_interval': 'test_engine.TestDeadServer.'
    'test_retry_interval_is_the_wait_between_two_tries',
    'database.connect_timeout': 'test_engine.TestDeadServer.'
    'test_connect_timeout_ends_the_wait_for_a_host',
    'database.read_timeout': 'test_engine.TestMariaDB.'
    'test_read_timeout_ends_the_wait_for_an_answer',
    'database.mysql_sql_mode': 'test_engine.TestMariaDB.'
    'test_mysql_sql_mode_is_set_in_each_form',
    'database.mysql_wsrep_sync_wait': 'test_engine.TestMariaDB.'
    'test_mysql_wsrep_sync_wait_is_set_in_each_form',
    'database.sqlite_busy_timeout': 'test_engine.TestSQLiteFile.'
    'test_sqlite_busy_timeout_is_how_long_a_writer_waits',
    'database.sqlite_synchronous': 'test_engine.TestSQLiteFile.'
    'test_without_sqlite_synchronous_nothing_waits_for_the_disk',
    'quota.default_limits': 'test_quota.TestWhichLimitCounts.'
    'test_default_limits_are_the_resources_and_their_defaults',
    'quota.default_class': 'test_quota.TestWhichLimitCounts.'
    'test_default_class_names_the_class_that_counts',
    'quota.reservation_expire': 'test_reservation.TestExpiry.'
    'test_reservation_expire_is_the_default',
    'quota.reservation_clean_interval': 'test_process.TestAgent.'
    'test_it_gives_back_expired_reservations',
    'service.report_interval': 'test_process.TestAgent.'
    'test_report_interval_is_the_time_between_two_beats',
}

# By the tests of retries, and of services.
TESTED_ELSEWHERE = {
    'database.db_max_retries': 'test_retry.TestOptions',
    'database.db_retry_interval': 'test_retry.TestOptions',
    'database.db_inc_retry_interval': 'test_retry.TestOptions',
    'database.db_max_retry_interval': 'test_retry.TestOptions',
    'database.use_db_reconnect': 'test_retry.TestOptions',
    'database.db_retry_deadline': 'test_retry.TestOptions',
    'database.operation_lifetime': 'test_retry.TestOptions',
    'service.down_time': 'test_service',
}


def dotted(module: str) -> str:
    """Return the whole name of a module of the tests, wherever it is."""
    home = pathlib.Path(__file__).parent
    (path,) = home.rglob(f'{module}.py')
    parts = path.relative_to(home).with_suffix('').parts
    return '.'.join(('myservice.tests.unit', *parts))


def every_option() -> dict[str, cfg.Opt]:
    """Return the options that operators are offered, by group.name."""
    return {
        f'{group}.{option.dest}': option
        for group, group_options in options.list_opts()
        for option in group_options
    }


class TestOptions(base.TestCase):
    def test_each_is_tested(self) -> None:
        self.assertEqual(
            set(every_option()), set(TESTED) | set(TESTED_ELSEWHERE)
        )

    def test_each_test_that_is_named_exists(self) -> None:
        for option, test in TESTED.items():
            module, kind, name = test.split('.')
            tests = importlib.import_module(dotted(module))
            self.assertTrue(
                callable(getattr(getattr(tests, kind), name, None)), option
            )

    def test_each_has_help(self) -> None:
        for name, option in every_option().items():
            self.assertTrue(option.help, name)

    def test_each_number_has_a_range(self) -> None:
        for name, option in every_option().items():
            kind: Any = getattr(option.type, 'value_type', option.type)
            if not isinstance(kind, types.Number):
                self.assertNotIn(type(option.default), (float, int), name)
                continue
            self.assertIsInstance(kind, ranges.Whole | ranges.Real, name)
            self.assertTrue(-1 <= (kind.min or 0) < (kind.max or 0), name)

    def test_a_number_out_of_its_range_is_refused_at_the_start(self) -> None:
        for name, option in every_option().items():
            if not isinstance(option.type, types.Number):
                continue
            kind: Any = option.type
            for wrong in (
                kind.min - 0.5,
                kind.min - 1,
                kind.max + 1,
                1e10 * kind.max,
                'nan',
                'inf',
                '-inf',
                'many',
                '1' * 5000,
            ):
                error = self.assertRaises(
                    exception.InvalidInput, self.start, name, wrong
                )
                self.assertIn(name.partition('.')[2], error.field)
                self.assertIn(f'{wrong!s:.80}', error.reason)
                self.assertIn(f' {kind.min} and {kind.max}', error.reason)
            for right in (kind.min, kind.max):
                self.start(name, right)
            if option.default is not None:
                self.assertRaises(exception.InvalidInput, self.start, name, '')

    def start(self, name: str, value: Any) -> None:
        """Read a configuration file, as programs and services do."""
        group, _, option = name.partition('.')
        path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path, 'myservice.conf'
        )
        path.write_text(f'[{group}]\n{option} = {value}\n')
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(path)])
        db.api.Engines(conf)

    def test_registering_twice_does_no_harm(self) -> None:
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        options.register_opts(conf)
        conf([], default_config_files=[])
        self.assertEqual(10, conf.service.report_interval)

    def test_the_defaults_keep_a_service_from_flapping(self) -> None:
        default = {k: v.default for k, v in every_option().items()}
        self.assertTrue(
            default['service.down_time']
            >= 2.5 * default['service.report_interval']
        )


class TestExample(base.TestCase):
    """The configuration file that is installed in /etc."""

    def setUp(self) -> None:
        super().setUp()
        if not EXAMPLE.exists():
            self.skipTest('not in a source tree')
        self.text = EXAMPLE.read_text()

    def uncommented(self) -> dict[str, str]:
        """Return what it shows, by group.name; of several the first."""
        shown: dict[str, str] = {}
        group = ''
        for line in self.text.splitlines():
            if line.startswith('['):
                group = line.strip('[]')
            match = re.match(r'#(\w+) = (.*)', line)
            if match:
                shown.setdefault(f'{group}.{match[1]}', match[2])
        return shown

    def test_it_changes_nothing(self) -> None:
        parser = configparser.ConfigParser()
        parser.read_string(self.text)
        self.assertEqual({}, dict(parser.defaults()))
        for group in parser.sections():
            self.assertEqual([], parser.options(group))

    def test_each_option_in_it_exists_and_shows_its_default(self) -> None:
        known = every_option()
        shown = self.uncommented()
        self.assertTrue(shown)
        for name, value in shown.items():
            self.assertIn(name, known)
            if name != 'database.connection':
                option = known[name]
                # As the file would be read: a dict is no text.
                self.assertEqual(option.default, option.type(value), name)

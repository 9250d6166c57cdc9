"""The agent: registers, beats, outlives its database, and ends when told."""

import datetime
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.agent.process import Agent
from myservice.agent.process import SignalEvent
from myservice.db import models
from myservice.tests import base
from myservice.tests import interrupts

IDENTITY = {'host': 'h1', 'binary': 'b1'}
HOUR = datetime.timedelta(hours=1)


class AgentTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.useFixture(plain_fixtures.TempDir()).path
        self.url = f'sqlite:///{self.directory}/myservice.sqlite'
        self.database = self.useFixture(fixtures.Database(self.url))
        with self.database.engine().begin() as connection:
            models.Base.metadata.create_all(connection)
        self.context = context.get_admin_context()

    def get(self) -> db.api.ServiceRow:
        """Return the service that the agent has registered."""
        return db.api.service_get_by_host_and_binary(
            self.context, IDENTITY['host'], IDENTITY['binary']
        )

    def seen(self) -> str:
        """Return when the service was last seen, '' for not yet."""
        try:
            return str(self.get().last_seen_at or '')
        except exception.ServiceNotFound:
            return ''

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds; it fails after a minute."""
        give_up = time.monotonic() + 60
        while not condition():
            self.assertTrue(time.monotonic() < give_up, 'it never happened')
            time.sleep(0.02)

    def wait_for_a_beat(self) -> None:
        """Wait until the service is seen once more."""
        before = self.seen()
        self.wait_for(lambda: self.seen() > before)


class TestAgent(AgentTestCase):
    def start(
        self,
        interval: float = 0.1,
        replace: bool = False,
        reload: Callable[[], None] = lambda: None,
        **service: float,
    ) -> Agent:
        """Run an agent in a thread; ``self.errors`` gets what it raises."""
        for name, value in (service | {'report_interval': interval}).items():
            self.database.conf.set_override(name, value, group='service')
        values = IDENTITY | {'topic': 'work'}
        process = Agent(self.database.conf, values, replace, reload)
        self.errors: list[Exception] = []
        errors = self.errors

        def run() -> None:
            try:
                process.run()
            except Exception as error:
                errors.append(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        self.addCleanup(self.thread.join, 10)
        self.addCleanup(process.stop)
        return process

    def end(self) -> None:
        """Wait until the agent has ended by itself."""
        self.thread.join(5)
        self.assertFalse(self.thread.is_alive())

    def logged(
        self, level: int = logging.INFO, name: str = 'myservice.agent.process'
    ) -> Any:
        return self.useFixture(plain_fixtures.FakeLogger(name, level=level))

    def test_it_registers_what_it_was_given(self) -> None:
        self.start()
        self.wait_for(self.seen)
        service = self.get()
        self.assertEqual('work', service.topic)
        self.assertTrue(service.is_up)

    def test_it_beats(self) -> None:
        self.start()
        for _ in range(3):
            self.wait_for_a_beat()
        self.assertEqual([], self.errors)

    def test_report_interval_is_the_time_between_two_beats(self) -> None:
        self.start(0.4)
        self.wait_for_a_beat()
        started = time.monotonic()
        for _ in range(3):
            self.wait_for_a_beat()
        self.assertTrue(0.7 < time.monotonic() - started < 8)

    def test_stop_ends_it_without_waiting_for_the_next_beat(self) -> None:
        process = self.start(60)
        self.wait_for(self.seen)
        started = time.monotonic()
        process.stop()
        self.end()
        self.assertTrue(time.monotonic() - started < 5)
        self.assertEqual([], self.errors)

    def test_after_stop_it_does_not_beat(self) -> None:
        process = self.start()
        self.wait_for(self.seen)
        process.stop()
        self.end()
        before = self.seen()
        time.sleep(0.3)
        self.assertEqual(before, self.seen())

    def test_a_second_start_finds_its_service_again(self) -> None:
        ids = []
        for _ in range(2):
            process = self.start()
            self.wait_for_a_beat()
            ids.append(self.get().id)
            process.stop()
            self.end()
        self.assertEqual(1, len(set(ids)))

    def test_a_destroyed_service_ends_it(self) -> None:
        log = self.logged()
        self.start()
        self.wait_for(self.seen)
        service_id = self.get().id
        db.api.service_destroy(self.context, service_id)
        self.end()
        (error,) = self.errors
        self.assertIsInstance(error, exception.ServiceNotFound)
        self.assertIn(service_id, str(error))
        self.assertIn(f'Service {service_id} was destroyed', log.output)

    def test_a_clean_stop_is_known_at_once(self) -> None:
        process = self.start(60)
        self.wait_for(self.seen)
        process.stop()
        self.end()
        service = self.get()
        self.assertFalse(service.is_up)
        self.assertIsNotNone(service.unregistered_at)
        log = self.logged()
        self.start(60)
        self.wait_for(lambda: self.get().is_up)
        self.assertNotIn('waiting', log.output)
        self.assertEqual(2, self.get().registration)

    def test_a_database_that_is_away_is_no_reason_not_to_stop(self) -> None:
        log = self.logged(logging.WARNING)
        process = self.start(60)
        self.wait_for(self.seen)

        def unregister(*args: Any) -> None:
            raise db_exception.DBConnectionError(OSError('gone\nand more'))

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.service_unregister', unregister
            )
        )
        process.stop()
        self.end()
        self.assertEqual([], self.errors)
        self.assertIn('could not be unregistered', log.output)
        self.assertNotIn('and more', log.output)

    def test_one_that_lives_is_not_replaced(self) -> None:
        self.start()
        first, errors = self.thread, self.errors
        self.wait_for_a_beat()
        log = self.logged()
        self.start()
        self.thread.join(60)
        self.assertFalse(self.thread.is_alive())
        (error,) = self.errors
        self.assertIsInstance(error, exception.ServiceAlive)
        self.assertIn('waiting up to 1.15 seconds', log.output)
        self.wait_for_a_beat()
        self.assertEqual(([], True), (errors, first.is_alive()))
        self.assertEqual(1, self.get().registration)

    def test_unless_it_is_told_to(self) -> None:
        self.start()
        first, errors = self.thread, self.errors
        self.wait_for_a_beat()
        log = self.logged()
        self.start(replace=True)
        first.join(60)
        (error,) = errors
        self.assertIsInstance(error, exception.ServiceReplaced)
        self.assertIn('was replaced; this process stops', log.output)
        self.wait_for_a_beat()
        self.assertEqual([], self.errors)
        service = self.get()
        self.assertEqual((2, True), (service.registration, service.is_up))

    def test_one_that_died_a_moment_ago_is_waited_for(self) -> None:
        died = db.api.service_register(self.context, IDENTITY)
        log = self.logged()
        self.start()
        self.wait_for(lambda: self.get().registration == 2)
        self.assertIn(
            f'Service {died.id}, b1 on host h1, was last seen at '
            f'{died.last_seen_at} UTC: waiting',
            log.output,
        )
        self.wait_for_a_beat()
        self.assertEqual([], self.errors)

    def test_stop_ends_it_while_it_waits(self) -> None:
        service = db.api.service_register(self.context, IDENTITY)
        log = self.logged()
        process = self.start(60)
        self.wait_for(lambda: 'waiting' in log.output)
        process.stop()
        self.end()
        self.assertEqual([], self.errors)
        self.assertEqual(service, self.get())

    def start_after_one_that_is_ahead(
        self, ahead: datetime.timedelta
    ) -> list[Exception]:
        """Start where another one was seen in the future."""
        seen = db.api.service_register(self.context, IDENTITY).last_seen_at
        assert seen is not None
        table = models.Service.__table__
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(table).values(last_seen_at=seen + ahead)
            )
        self.start()
        self.wait_for(lambda: self.errors or self.get().registration == 2)
        return self.errors

    def test_a_clock_that_was_set_back_is_not_waited_for_for_ever(
        self,
    ) -> None:
        (error,) = self.start_after_one_that_is_ahead(HOUR / 70)
        self.assertIsInstance(error, exception.ServiceAlive)

    def test_one_that_was_seen_in_the_far_future_does_not_live(self) -> None:
        self.assertEqual([], self.start_after_one_that_is_ahead(HOUR))

    def test_it_warns_of_a_down_time_that_one_late_beat_exceeds(self) -> None:
        log = self.logged(logging.WARNING)
        self.start(0.1, down_time=0.24)
        self.wait_for(self.seen)
        self.assertIn('down_time is 0.24', log.output)
        self.assertIn('Make down_time 0.25 or more', log.output)

    def test_it_does_not_warn_of_a_down_time_that_is_long_enough(
        self,
    ) -> None:
        log = self.logged(logging.WARNING)
        self.start(0.1, down_time=0.25)
        self.wait_for(self.seen)
        self.assertEqual('', log.output)

    def test_it_outlives_a_database_that_goes_away(self) -> None:
        log = self.logged()
        beat = db.api.service_heartbeat
        failures = [
            db_exception.DBConnectionError(OSError('gone\nand more'))
            for _ in range(2)
        ]

        def heartbeat(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return beat(*args)

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.service_heartbeat', heartbeat
            )
        )
        self.start()
        self.wait_for(lambda: not failures)
        self.wait_for_a_beat()
        self.wait_for_a_beat()
        self.assertEqual(2, log.output.count('Heartbeat failed'))
        self.assertEqual(1, log.output.count('The database is back.'))
        self.assertNotIn('and more', log.output)
        self.assertEqual([], self.errors)

    def test_it_outlives_a_database_that_is_busy(self) -> None:
        """None of the errors that the database layer calls transient ends it.

        A heartbeat raises them when its retries are exhausted.
        """
        beat = db.api.service_heartbeat
        failures: list[Exception] = [
            exception.ServerBusy(reason='full'),
            exception.ServerReadOnly(reason='failover'),
            exception.StatementInterrupted(reason='killed'),
            exception.PoolTimeout(timeout=30, held=55),
            exception.CommitUnknown(
                function='service_heartbeat', operation='x', known='lost'
            ),
        ]

        def heartbeat(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return beat(*args)

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.service_heartbeat', heartbeat
            )
        )
        self.start()
        self.wait_for(lambda: self.errors or not failures)
        self.assertEqual([], self.errors)
        self.wait_for_a_beat()

    def test_it_gives_back_expired_reservations(self) -> None:
        def reserved() -> int:
            usages = db.api.quota_usage_get_all(self.context, 'p')
            return usages['gigabytes']['reserved']

        db.api.quota_reserve(self.context, {'gigabytes': 5}, 'p', expire=-1)
        self.database.conf.set_override(
            'reservation_clean_interval', 1, group='quota'
        )
        self.start()
        self.assertEqual(5, reserved())
        self.wait_for(lambda: reserved() == 0)

    def test_a_database_that_is_not_there_at_the_start_is_an_error(
        self,
    ) -> None:
        self.database.configure(
            connection='mysql+pymysql://nobody@127.0.0.1:1/x',
            db_max_retries=0,
        )
        self.start()
        self.end()
        (error,) = self.errors
        self.assertIsInstance(error, db_exception.DBConnectionError)

    def test_a_thread_that_fails_ends_it(self) -> None:
        """Whatever fails in it: what it waits for, or what it runs."""
        for target in (
            'myservice.agent.periodic.PeriodicTasks._run',
            'myservice.agent.periodic.PeriodicTasks._call',
            'myservice.agent.worker_pool.Work._run',
            'myservice.agent.worker_pool.Work._pause',
            'myservice.agent.worker_pool.Work._work_once',
        ):
            for error in (SystemExit(3), OverflowError('too large')):
                if target.endswith('_work_once') and error.args != (3,):
                    # Which it outlives.
                    continue
                with plain_fixtures.MonkeyPatch(target, failing(error)):
                    log = self.logged(logging.CRITICAL, 'myservice.threads')
                    self.set_intervals()
                    self.start()
                    self.thread.join(60)
                    self.assertFalse(self.thread.is_alive(), target)
                (failed,) = self.errors
                self.assertIsInstance(failed, exception.ThreadFailed)
                self.assertIn(type(error).__name__, str(failed))
                self.assertIn('Traceback', log.output)
                self.assertIsNotNone(self.get().unregistered_at)

    def set_intervals(self) -> None:
        for name, group in (
            ('take_over_interval', 'agent'),
            ('poll_interval', 'agent'),
        ):
            self.database.conf.set_override(name, 0.1, group=group)

    def test_told_to_reload_it_looks_at_its_intervals_anew(self) -> None:
        changed = threading.Event()

        def reload() -> None:
            self.database.conf.set_override('report_interval', 0.1, 'service')
            self.database.conf.set_override(
                'take_over_interval', 0.1, group='agent'
            )
            changed.set()

        taken_over = threading.Semaphore(0)
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.claims_take_over',
                lambda ctx: taken_over.release(),
            )
        )
        self.database.conf.set_override('take_over_interval', 3600, 'agent')
        process = self.start(24, reload=reload)
        self.wait_for(self.seen)
        self.assertFalse(changed.is_set())
        process.reload()
        self.assertTrue(changed.wait(60))
        for _ in range(3):
            self.wait_for_a_beat()
            self.assertTrue(taken_over.acquire(timeout=60))


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


class TestSignalEvent(base.TestCase):
    def test_a_signal_at_any_point_of_a_wait_ends_it(self) -> None:
        events: list[SignalEvent] = []
        interrupt = self.useFixture(
            interrupts.AtAnyPoint(lambda *_: events[-1].set())
        )
        for _ in range(1000):
            events.append(SignalEvent())
            self.assertFalse(events[-1].is_set())
            interrupt.after(0.0002)
            while not events[-1].wait(0.00001):
                pass
            self.assertTrue(events[-1].is_set())


class TestProgram(AgentTestCase):
    def launch(
        self,
        *arguments: str,
        connection: str | None = None,
        stdout: int | None = subprocess.PIPE,
    ) -> 'subprocess.Popen[str]':
        """Start the agent as a process of its own; None is no stdout."""
        path = pathlib.Path(self.directory, 'myservice.conf')
        path.write_text(
            f'[database]\nconnection = {connection or self.url}\n'
            'db_max_retries = 0\n[service]\nreport_interval = 0.1\n'
        )
        process = subprocess.Popen(
            [
                *('sh', '-c', f'exec "$@" {"" if stdout else ">&-"}', 'sh'),
                *(sys.executable, '-m', 'myservice.cmd.agent'),
                *('--config-file', str(path), '--host', IDENTITY['host']),
                *('--binary', IDENTITY['binary'], *arguments),
            ],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_it_registers_beats_and_exits_0_on_a_signal(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.launch(
                '--topic', 'work', '--availability_zone', 'west'
            )
            self.wait_for_a_beat()
            self.wait_for_a_beat()
            service = self.get()
            self.assertEqual('work', service.topic)
            self.assertEqual('west', service.availability_zone)
            process.send_signal(number)
            self.assertEqual(0, process.wait(5))

    def hang_up(
        self, process: 'subprocess.Popen[str]', configuration: str
    ) -> str:
        """Change its file and send SIGHUP; return the line that it logs."""
        assert process.stdout is not None
        pathlib.Path(self.directory, 'myservice.conf').write_text(
            configuration
        )
        process.send_signal(signal.SIGHUP)
        for line in process.stdout:
            self.lines.append(line)
            if 'The configuration' in line:
                return line
        self.fail('it ended')

    def test_sighup_reads_the_configuration_again(self) -> None:
        self.lines: list[str] = []
        process = self.launch('--config-file', self.more(''))
        self.wait_for_a_beat()
        text = (
            f'[database]\nconnection = {self.url}\n[service]\n'
            'report_interval = {}\n[DEFAULT]\ndebug = True\n'
            '[agent]\nconcurrency = 2\n'
        )
        for broken in (
            'nonsense\n',
            text.format('many'),
            text.format('1e10'),
            text.format('nan'),
            f'{text.format(1)}[quota]\ndefault_limits = {"x" * 300}:1\n',
            '# \N{LATIN SMALL LETTER A WITH DIAERESIS}\n',
        ):
            if broken.startswith('# '):
                path = pathlib.Path(self.directory, 'more.conf')
                path.write_bytes(broken.encode('latin-1'))
                broken = text.format(1)
            self.assertIn(
                'The configuration stays as it was: ',
                self.hang_up(process, broken),
            )
            self.wait_for_a_beat()
        self.more('')
        self.assertIn(
            'The configuration was read again.',
            self.hang_up(process, text.format(3600)),
        )
        self.wait_for(self.is_silent)
        self.hang_up(process, text.format(0.1))
        self.wait_for_a_beat()
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        self.assertEqual((0, ''), (process.returncode, err))
        for told in (
            'Option DEFAULT.debug changed from [None] to [True]',
            'Option service.report_interval changed from [0.1] to [3600]',
            'Ignoring change to immutable option agent.concurrency',
        ):
            self.assertIn(told, ''.join(self.lines))

    def test_it_lives_on_when_nobody_reads_its_log(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        for stdout in (writer, None):
            process = self.launch(stdout=stdout)
            self.wait_for_a_beat()
            process.send_signal(signal.SIGHUP)
            self.wait_for_a_beat()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
            self.assertEqual((0, ''), (process.returncode, err))
        os.close(writer)

    def is_silent(self) -> bool:
        """Return whether no beat comes for a second."""
        before = self.seen()
        time.sleep(1)
        return before == self.seen()

    def more(self, text: str) -> str:
        """Write another configuration file, and return its path."""
        path = pathlib.Path(self.directory, 'more.conf')
        path.write_text(text)
        return str(path)

    def test_it_exits_1_when_its_service_is_destroyed(self) -> None:
        process = self.launch()
        self.wait_for_a_beat()
        service_id = self.get().id
        db.api.service_destroy(self.context, service_id)
        self.assertEqual(1, process.wait(5))
        self.assert_last_line(
            process,
            f'myservice-agent: Service {service_id} could not be found.',
        )

    def test_it_exits_1_while_another_one_runs(self) -> None:
        first = self.launch()
        self.wait_for_a_beat()
        second = self.launch()
        self.assertEqual(1, second.wait(60))
        self.assert_last_line(
            second, 'myservice-agent: Another process runs as b1 on host h1:'
        )
        self.wait_for_a_beat()
        self.assertIsNone(first.poll())
        self.assertEqual(1, self.get().registration)

    def test_it_exits_1_when_it_is_replaced(self) -> None:
        first = self.launch()
        self.wait_for_a_beat()
        second = self.launch('--replace')
        self.assertEqual(1, first.wait(60))
        self.assert_last_line(
            first,
            f'myservice-agent: Registration 1 of service {self.get().id} is '
            'no longer valid: another process has registered as b1 on host '
            'h1, or the registration was ended. Stop this process. To run '
            'both, give each its own host or binary (myservice-agent: '
            '--host, --binary).',
        )
        self.wait_for_a_beat()
        self.assertIsNone(second.poll())

    def test_it_exits_2_on_a_wrong_url(self) -> None:
        for url, line in (
            (
                'nonsense',
                'myservice-agent: Invalid input for [database] connection:',
            ),
            (
                'mysql+pymysql://nobody@127.0.0.1:1/x',
                'myservice-agent: the database cannot be used: (pymysql',
            ),
        ):
            process = self.launch(connection=url)
            self.assertEqual(2, process.wait(10))
            self.assert_last_line(process, line)

    def test_it_exits_2_on_a_database_without_tables(self) -> None:
        process = self.launch(connection=f'sqlite:///{self.directory}/none')
        self.assertEqual(2, process.wait(10))
        self.assert_last_line(
            process, 'myservice-agent: the database cannot be used:'
        )

    def assert_last_line(
        self, process: 'subprocess.Popen[str]', start: str
    ) -> None:
        """Check that stderr ends in one line, which is not a traceback's."""
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        self.assertEqual(start, lines[-1][: len(start)])
        self.assertNotIn('Traceback', '\n'.join(lines))
        told = [line for line in lines if line.startswith('myservice-agent')]
        self.assertEqual(1, len(told), lines)

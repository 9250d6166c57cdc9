"""What a signal handler raises, as the time limits of task queues do."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice.db import models
from myservice.tests import factories
from myservice.tests import proxy
from myservice.tests.unit.db.engine import test_errors

_SERVICES = models.Base.metadata.tables['services']
few_errors = test_errors.few_errors


class TestTimeLimits(test_errors.ForeignTestCase):
    """What a signal handler raises, as the time limits of task queues do."""

    def setUp(self) -> None:
        super().setUp()
        before = signal.signal(signal.SIGUSR1, self._raise)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

    def _raise(self, *_: Any) -> None:
        raise self.error

    @contextlib.contextmanager
    def interrupted(self, is_time: Callable[[], bool]) -> Iterator[None]:
        """Interrupt the main thread once something is true."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set() and not is_time():
                time.sleep(0.01)
            if not over.is_set():
                signal.pthread_kill(
                    threading.main_thread().ident or 0, signal.SIGUSR1
                )

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def test_in_a_statement(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('a handler is not called before SQLite returns')
        self.watch = sa.create_engine(
            self.database.connection,
            isolation_level='AUTOCOMMIT',
            poolclass=sa.NullPool,
        )
        self.addCleanup(self.watch.dispose)
        sleep = {'mysql': 'sleep(60)', 'postgresql': 'pg_sleep(60)'}
        for number, error in enumerate(few_errors()):
            self.error = error
            sql = f'SELECT {sleep[self.backend]}, {number}'

            def execute(sql: str = sql) -> None:
                session = db.api.get_session(self.context)
                with session.begin():
                    session.execute(sa.text(sql))

            with self.interrupted(lambda sql=sql: bool(self._busy_with(sql))):
                self.assertEqual(1, self.attempts(execute, error))
            self._end(sql)

    def _busy_with(self, sql: str) -> Any:
        query = {
            'mysql': (
                'SELECT id FROM information_schema.processlist '
                'WHERE db = database() AND info = :sql'
            ),
            'postgresql': (
                "SELECT pid FROM pg_stat_activity WHERE state = 'active' "
                'AND datname = current_database() AND query = :sql'
            ),
        }[self.backend]
        with self.watch.connect() as connection:
            return connection.scalar(sa.text(query), {'sql': sql})

    def _end(self, sql: str) -> None:
        kill = {
            'mysql': 'KILL {}',
            'postgresql': 'SELECT pg_terminate_backend({})',
        }[self.backend]
        busy = self._busy_with(sql)
        if busy is not None:
            with (
                self.watch.connect() as connection,
                contextlib.suppress(sa.exc.DBAPIError),
            ):
                connection.exec_driver_sql(kill.format(busy))

    def test_while_it_waits_for_a_lock(self) -> None:
        service = factories.create_service()
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            own = context.get_admin_context()
            with db.api.transaction(own):
                db.api.service_update(own, service.id, {'version': 7})
                held.set()
                over.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        self.addCleanup(holder.join)
        self.addCleanup(over.set)
        held.wait(60)
        for error in few_errors():
            self.error = error
            started = time.monotonic()
            with self.interrupted(
                lambda started=started: time.monotonic() - started > 0.2
            ):
                self.assert_untouched(
                    error,
                    lambda: db.api.service_update(
                        self.context, service.id, {'disabled': True}
                    ),
                    # It commits by itself; in SQLite it was not sent.
                    in_doubt=self.backend != 'sqlite',
                )

    def silence(self) -> socket.socket:
        """Let the URL lead to a server that never answers."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(('127.0.0.1', 0))
        listener.listen(100)
        url = sa.make_url(self.database.connection).set(
            host='127.0.0.1', port=listener.getsockname()[1]
        )
        self.database.configure(
            connection=url.render_as_string(hide_password=False)
        )
        return listener

    def test_while_it_connects(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('nobody waits for a file')
        listener = self.silence()
        for error in few_errors():
            self.error = error
            arrived: list[Any] = []

            def arrives(arrived: list[Any] = arrived) -> bool:
                listener.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    arrived.append(listener.accept())
                return bool(arrived)

            with self.interrupted(arrives):
                self.assert_untouched(
                    error, lambda: db.api.service_get_all(self.context)
                )
            for side, _ in arrived:
                side.close()

    def test_while_it_pings(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('a file is not pinged')
        self.database.configure(ping_after_idle=0)
        between = self.use_proxy()
        pings: list[None] = []

        def delay(_: proxy.Command) -> proxy.Action:
            pings.append(None)
            return proxy.Delay(60)

        for error in few_errors():
            self.error = error
            between.decide = lambda command: None
            db.api.service_get_all(self.context)
            pings.clear()
            between.decide = delay
            with self.interrupted(lambda: bool(pings)):
                self.assert_untouched(
                    error, lambda: db.api.service_get_all(self.context)
                )

    def test_after_an_attempt_that_is_in_doubt(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('a file is not lost')
        between = self.use_proxy()
        for error in few_errors():
            self.database.configure()
            db.api.service_get_all(self.context)
            lost: list[None] = []

            def lose(
                command: proxy.Command, lost: list[None] = lost
            ) -> proxy.Action | None:
                if 'INSERT INTO services' not in command.sql or lost:
                    return None
                lost.append(None)
                return proxy.DropAfter()

            def fail(
                cursor: Any,
                statement: Any,
                *_: Any,
                lost: list[None] = lost,
                error: Exception = error,
            ) -> None:
                if lost:
                    raise error

            engine = self.database.engine('autocommit')
            event.listen(engine, 'do_execute', fail)
            between.decide = lose
            raised = self.assertRaises(type(error), factories.create_service)
            self.assertIs(error, raised)
            self.assertTrue(lost)

    def test_between_two_attempts(self) -> None:
        attempts: list[float] = []

        def call(_: object) -> None:
            attempts.append(time.monotonic())
            raise db_exception.DBDeadlock()

        self.database.configure(db_retry_interval=50, db_max_retries=5)
        for error in few_errors():
            self.error = error
            attempts.clear()
            # Not while the attempt is being undone, which is another test.
            with self.interrupted(
                lambda: (
                    bool(attempts) and time.monotonic() - attempts[-1] > 0.3
                )
            ):
                self.assert_untouched(
                    error,
                    lambda: db.api.run_in_transaction(self.context, call),
                )

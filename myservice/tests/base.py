"""The base classes of the tests."""

import contextlib
import faulthandler
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslotest import base

from myservice import context
from myservice import fixtures
from myservice.db.sql import dialects
from myservice.tests import proxy

# In seconds; the longest test takes a tenth of this.
_HANGS = 1200


class TestCase(base.BaseTestCase):
    """A test, which fails on a warning of SQLAlchemy."""

    def setUp(self) -> None:
        super().setUp()
        # It prints where each thread is, and ends the worker: otherwise a test
        # that waits for ever would print nothing, and block all later tests.
        # (oslotest's OS_TEST_TIMEOUT uses a signal that tests here use.)
        assert sys.__stderr__ is not None
        faulthandler.dump_traceback_later(
            _HANGS, exit=True, file=sys.__stderr__
        )
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        self.useFixture(
            plain_fixtures.WarningsFilter(
                [{'action': 'error', 'category': sa.exc.SAWarning}]
            )
        )


class DatabaseTestCase(TestCase):
    """A test with an empty database and an administrator's context."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.useFixture(fixtures.Database())
        self.context = context.get_admin_context()

    @property
    def backend(self) -> dialects.Backend:
        """sqlite, mysql or postgresql."""
        return dialects.backend_of(sa.make_url(self.database.connection))

    def in_threads(
        self, count: int, function: Callable[[int], Any]
    ) -> list[Any]:
        """Call a function with 0 to count - 1, at once, each in a thread.

        :returns: what the calls returned, or the exceptions that they raised
        """
        barrier = threading.Barrier(count)

        def call(number: int) -> Any:
            barrier.wait()
            try:
                return function(number)
            except Exception as error:
                return error

        with futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(call, range(count)))

    @contextlib.contextmanager
    def commands(self) -> Iterator[list[str]]:
        """Collect the statements that the database gets in this block.

        For a server a proxy counts them; SQLite has no server, so the library
        itself counts them. The connections in use are warm.
        """
        sent: list[str] = []
        if self.backend == 'sqlite':
            with (
                _traced(self.database.engine('autocommit'), sent),
                _traced(self.database.engine('read'), sent),
            ):
                yield sent
            return
        yield from self._commands_on_the_wire(sent)

    def use_proxy(self) -> proxy.FaultProxy:
        """Send all connections through a proxy from now on."""
        between = self.useFixture(proxy.FaultProxy(self.database.connection))
        self.database.configure(connection=between.url)
        return between

    def _commands_on_the_wire(self, sent: list[str]) -> Iterator[list[str]]:
        if not hasattr(self, '_between'):
            self._between = self.use_proxy()
        for form in ('autocommit', 'transaction', 'snapshot'):
            self.database.engine(form).connect().close()
        self._between.clear()
        yield sent
        # psycopg drops a prepared statement together with the next command:
        # that is not a round trip.
        ignored = {'connect', 'quit'}
        if self.backend == 'postgresql':
            ignored.add('other')
        sent += [
            command.sql or command.kind
            for command in self._between.commands
            if command.kind not in ignored
        ]


@contextlib.contextmanager
def _traced(engine: sa.Engine, sent: list[str]) -> Iterator[None]:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_trace_callback(sent.append)
    try:
        yield
    finally:
        driver.set_trace_callback(None)

"""Interrupts for tests: a real signal in the middle of a command."""

import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
import sqlalchemy as sa

from myservice.tests import proxy
from myservice.tests import tracing

_LONGEST = 60

_AGAIN = 1

_SIGNAL = signal.SIGUSR1


class TimeLimit(Exception):
    """The error of a signal handler when time is up."""


class Interrupt(fixtures.Fixture):
    """Interrupts the main thread in the middle of a command.

    :param engine: on SQLite, the engine of all forms; else None
    :param between: the proxy in front of a server; on SQLite None
    """

    def __init__(
        self, engine: sa.Engine | None, between: proxy.FaultProxy | None
    ) -> None:
        super().__init__()
        self._engine = engine
        self._between = between

    def _setUp(self) -> None:
        self.addCleanup(signal.signal, _SIGNAL, signal.getsignal(_SIGNAL))

    @contextlib.contextmanager
    def at(
        self,
        what: str | int,
        handler: Callable[[], None],
        arrives: bool = True,
    ) -> Iterator['Hits']:
        """Interrupt one command in this block.

        :param what: the first command of this kind ('statement', 'commit',
            'rollback', 'ping', 'connect'), or with this beginning; or its
            number, from 0
        :param handler: the signal handler; it may raise
        :param arrives: whether the server still gets the command
        :returns: a context manager that returns the counter of commands
        """
        handled = threading.Event()

        def handle(*_: Any) -> None:
            handled.set()
            handler()

        signal.signal(_SIGNAL, handle)
        hits = Hits(what)
        if self._between is None:
            with _in_sqlite(self._engine, hits, arrives):
                yield hits
            return

        def decide(command: proxy.Command) -> proxy.Action | None:
            if not hits.count(command.kind, command.sql):
                return None
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, _SIGNAL)
            handled.wait(_LONGEST)
            return None if arrives else proxy.DropBefore()

        self._between.decide = decide
        try:
            yield hits
        finally:
            self._between.decide = lambda command: None


class AtAnyPoint(fixtures.Fixture):
    """Lets signals, exceptions and finalizers come at any point of a thread.

    Nothing is traced meanwhile: see ``tracing``.

    A signal is sent again until it is handled: CPython can lose one that comes
    while it looks for others, and then a test would loop for ever.

    :param handler: the signal handler, if signals are used; it may raise
    """

    def __init__(self, handler: Callable[..., None] = lambda *_: None) -> None:
        super().__init__()
        self._handler = handler

    def _setUp(self) -> None:
        self.addCleanup(sys.settrace, sys.gettrace())
        self.addCleanup(threading.settrace, threading.gettrace())
        threading.settrace(None)
        tracing.stop()
        before = signal.signal(signal.SIGALRM, self._handle)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.addCleanup(self.after, 0)

    def after(self, seconds: float) -> None:
        """Have the handler called once, or never if seconds is 0."""
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)

    def _handle(self, *arguments: Any) -> None:
        self.after(0)
        self._handler(*arguments)

    def raise_in(self, thread: threading.Thread, error: type) -> None:
        """Raise an exception in a thread, at any point of its code."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)
        )


def raising(error: BaseException) -> Callable[..., None]:
    """Return a handler that raises an error."""

    def handler(*_: Any) -> None:
        raise error

    return handler


class Hits:
    """Counts commands, and recognises the wanted one.

    :param what: as for ``Interrupt.at``
    """

    def __init__(self, what: str | int) -> None:
        self.seen = 0
        self._what = what
        self._lock = threading.Lock()

    def count(self, kind: str, sql: str) -> bool:
        """Count a command, and return whether it is the wanted one."""
        number = 0
        if isinstance(self._what, int):
            number = self._what
            counts = kind not in ('connect', 'quit')
        else:
            begins = sql.lower().startswith(self._what.lower())
            counts = kind == self._what or begins
        with self._lock:
            self.seen += counts
            return counts and self.seen == number + 1


@contextlib.contextmanager
def _in_sqlite(engine: Any, hits: Hits, arrives: bool) -> Iterator[None]:
    """Python does not wait for SQLite: it handles a signal after the
    answer."""
    dialect = engine.dialect

    def interrupting(real: Any, kind: str) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            sql = args[1] if kind == 'statement' else ''
            if not hits.count(kind, sql):
                real(*args, **kwargs)
                return
            if arrives:
                # After the layer's own work on the answer.
                getattr(type(dialect), real.__name__)(dialect, *args, **kwargs)
            signal.raise_signal(_SIGNAL)

        return call

    kinds = {
        'do_execute': 'statement',
        'do_commit': 'commit',
        'do_rollback': 'rollback',
    }
    with contextlib.ExitStack() as stack:
        for name, kind in kinds.items():
            stack.enter_context(
                mock.patch.object(
                    dialect, name, interrupting(getattr(dialect, name), kind)
                )
            )
        yield

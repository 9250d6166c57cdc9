"""Turns: the order in which the threads of a process go.

This module uses no lock. A signal handler that raises can stop a thread
between any two steps, and a lock would then be held for ever; a handler or a
finalizer can call in the middle of any step, and would wait for a lock of its
own thread. So there is a queue, and the first place in it has the turn: no
other state has to agree with it. Each operation on the queue is a single step
of CPython, and if a thread is interrupted between two of them, the waiting
threads correct it.
"""

import asyncio
import collections
import contextlib
import contextvars
import gc
import threading
import time
import weakref

from myservice import exception
from myservice.db.engine import fork

# In seconds. Waiting threads look at the queue this often without being told:
# the thread that should tell them may be interrupted, or its place garbage.
_LOOK_AGAIN = 0.5


class Turns:
    """A lock that goes to the thread that has waited longest.

    A ``threading.Lock`` goes to the thread that is running when it becomes
    free, which is mostly the one that has just released it: the others starve.

    :param what: what the turn is for, in words
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin with an empty queue; a forked child does so too."""
        self.queue: _Queue = collections.deque()


class Place:
    """A place in the queue, for one turn.

    The queue does not keep it alive: it ends when it is left, and also when
    its user is garbage.

    :param turns: the queue that it is in
    """

    __slots__ = (
        '__weakref__',
        '_queue',
        '_ref',
        '_waits',
        '_wake',
        '_what',
        'user',
        'waited',
    )

    def __init__(self, turns: Turns) -> None:
        #: for how many seconds
        self.waited = 0.0
        #: the thread that used it last
        self.user = 0
        self._what = turns.what
        self._queue = turns.queue
        self._ref = weakref.ref(self)
        self._wake: threading.Lock | None = None
        self._waits = True

    def take(self, timeout: float) -> bool:
        """Wait for the turn; call ``leave()`` after it in any case.

        :param timeout: how many seconds at most
        :returns: whether it came; if not, the place is left
        :raises WouldWaitForItself: when the caller has, or waits for, a turn
            before this one, as in a signal handler
        """
        self.use()
        self._queue.append(self._ref)
        if not (self._is_first() or self._wait(timeout)):
            self.leave()
            return False
        self._waits = False
        return True

    def use(self) -> None:
        """Note that the calling thread uses the place from now on."""
        self.user = threading.get_ident()
        live = [ref for ref in _used.get() if ref() not in (None, self)]
        _used.set((*live, self._ref))

    def leave(self) -> None:
        """End the turn, or give it up; harmless when that is done already."""
        try:
            self._queue.remove(self._ref)
            first = self._queue[0]()
        except (ValueError, IndexError):
            # It is left already, and nobody has to be told.
            return
        if first is not None and first._wake is not None:
            try:
                first._wake.release()
            except RuntimeError:
                # It was told already.
                return

    def _wait(self, timeout: float) -> bool:
        self._refuse_to_wait_for_caller()
        started = time.monotonic()
        # This comes before the look at the queue: a thread that leaves after
        # that finds the lock.
        self._wake = threading.Lock()
        while not self._is_first():
            left = timeout - self.waited
            if left <= 0:
                return False
            self._wake.acquire(timeout=min(left, _LOOK_AGAIN))
            self.waited = time.monotonic() - started
        return True

    def _is_first(self) -> bool:
        while self._queue:
            first = self._queue[0]
            if first is self._ref or first() is not None:
                return first is self._ref
            # Another thread may have done it.
            with contextlib.suppress(ValueError):
                self._queue.remove(first)
        return False

    def _refuse_to_wait_for_caller(self) -> None:
        if self._is_behind_caller():
            # A place that nobody can use any more may not be collected yet.
            gc.collect()
            if self._is_behind_caller():
                self.leave()
                raise exception.WouldWaitForItself(held=self._what)

    def _is_behind_caller(self) -> bool:
        for ref in self._queue.copy():
            if ref is self._ref:
                break
            ahead = ref()
            if ahead is not None and ahead._is_of_caller():
                return True
        return False

    def _is_of_caller(self) -> bool:
        # A thread of a pool goes on to other work, while what it began is used
        # elsewhere: so the thread does not identify the user. But each piece
        # of work has a Context of its own (asyncio.to_thread, anyio).
        return self.user == threading.get_ident() and (
            self._waits or self._ref in _used.get() or _runs_event_loop()
        )


_Queue = collections.deque[weakref.ref[Place]]

# The places that were used in a Context, or before it was copied.
_used: contextvars.ContextVar[tuple[weakref.ref[Place], ...]] = (
    contextvars.ContextVar('used', default=())
)


def _runs_event_loop() -> bool:
    # While a thread waits, none of its tasks goes on, not even the one that it
    # waits for.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

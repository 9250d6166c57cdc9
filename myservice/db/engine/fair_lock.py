"""Turns: who goes first, among the threads of a process.

Nothing in here is locked. A signal handler that raises can leave a thread
between any two steps, and what it held would then be held for ever; a handler
or a finalizer can call in the middle of any step, and would wait for what its
own thread holds. So there is a queue, and whoever is first in it has the turn:
no other state has to agree with it. Each of its operations that are used here
is a single step of CPython, and whatever is interrupted between two of them is
put right by those who wait.
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

# Whoever waits looks after so many seconds without being told: those who
# would tell can be interrupted, or garbage.
_LOOK_AGAIN = 0.5


class Turns:
    """A lock that is handed over to the one who has waited longest.

    A ``threading.Lock`` goes to whoever is running when it becomes free, which
    is mostly the thread that has just released it: the others starve.

    :param what: what the turn is for, in words
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin, in a forked child too: who stood there is in the parent."""
        self.queue: _Queue = collections.deque()


class Place:
    """A place in the queue, for one turn.

    The queue does not keep it alive: it is over when it is left, and also when
    whoever had it is gone.

    :param turns: whose queue
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
        """Wait for the turn; ``leave()`` is called after it in any case.

        :param timeout: how many seconds at most
        :returns: whether it came; if not, the place is left
        :raises WouldWaitForItself: behind a turn that the caller has, or
            waits for, as a signal handler that has interrupted that would
        """
        self.use()
        self._queue.append(self._ref)
        if not (self._is_first() or self._wait(timeout)):
            self.leave()
            return False
        self._waits = False
        return True

    def use(self) -> None:
        """Note that the calling thread is who uses it, from now on."""
        self.user = threading.get_ident()
        live = [ref for ref in _used.get() if ref() not in (None, self)]
        _used.set((*live, self._ref))

    def leave(self) -> None:
        """End the turn, or give it up; no harm where that is done."""
        try:
            self._queue.remove(self._ref)
            first = self._queue[0]()
        except (ValueError, IndexError):
            # It is left, and nobody is to be told.
            return
        if first is not None and first._wake is not None:
            try:
                first._wake.release()
            except RuntimeError:
                # It was told before.
                return

    def _wait(self, timeout: float) -> bool:
        self._refuse_to_wait_for_caller()
        started = time.monotonic()
        # Before it looks whether it is first: whoever leaves after that finds
        # the lock.
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
            # Others may have done it.
            with contextlib.suppress(ValueError):
                self._queue.remove(first)
        return False

    def _refuse_to_wait_for_caller(self) -> None:
        if self._is_behind_caller():
            # What nobody can use any more may not have been collected yet.
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
        # Threads of a pool go on with the work of others, while what they
        # began for one is used elsewhere: a thread is not enough. But each
        # piece of work has a Context of its own (asyncio.to_thread, anyio).
        return self.user == threading.get_ident() and (
            self._waits or self._ref in _used.get() or _runs_event_loop()
        )


_Queue = collections.deque[weakref.ref[Place]]

# The places that were used in a Context, or before it was copied.
_used: contextvars.ContextVar[tuple[weakref.ref[Place], ...]] = (
    contextvars.ContextVar('used', default=())
)


def _runs_event_loop() -> bool:
    # No task goes on while its thread waits, whichever of them it waits for.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

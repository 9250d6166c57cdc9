"""Turns: who goes first, among the threads of a process."""

import collections
import threading
import time
from collections.abc import Callable
from typing import Any

# In seconds. PostgreSQL takes one to find a deadlock.
_LONGEST = 10


class Turns:
    """A lock that is handed over to the one who has waited longest.

    A ``threading.Lock`` goes to whoever is running when it becomes free, which
    is mostly the thread that has just released it: the others starve.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: collections.deque[threading.Event] = collections.deque()
        self._taken = False

    def take(self, timeout: float) -> bool:
        """Wait for one's turn.

        :param timeout: how many seconds at most
        :returns: whether it came
        """
        with self._mutex:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(timeout):
            return True
        with self._mutex:
            if mine.is_set():
                return True
            self._waiting.remove(mine)
            return False

    def end(self) -> None:
        """Let the next one have his turn."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class Collisions:
    """Lets attempts go in single file for a while after some have collided.

    Transactions that want the same rows roll each other back again and again
    when all of them try again at once, and those who fail most wait longest.
    In single file they cannot. It lasts ten times as long as the collision
    took, so that no more than a tenth of the time is lost by collisions.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._until = 0.0

    def note(self, seconds: float) -> None:
        """Note that an attempt collided, after so many seconds."""
        until = time.monotonic() + min(10 * seconds, _LONGEST)
        self._until = max(self._until, until)

    def avoid(self, attempt: Callable[[], Any]) -> Any:
        """Make an attempt, in its turn where that is called for."""
        left = self._until - time.monotonic()
        # Whoever is held up by something else, as by a lock of another
        # process, holds up nobody here for longer than that.
        if left <= 0 or not self._turns.take(left):
            return attempt()
        try:
            return attempt()
        finally:
            self._turns.end()

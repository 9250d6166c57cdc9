"""Turns: a lock that is given in the order in which it was asked for."""

import collections
import threading


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

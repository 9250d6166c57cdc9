"""Contention: calls that have collided do not collide again and again."""

import collections
import contextlib
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from myservice import exception
from myservice.db.engine import fair_lock
from myservice.db.engine import fork
from myservice.db.engine.engines import Engines

# In seconds. PostgreSQL takes one second to find a deadlock.
_LONGEST = 10


R = TypeVar('R')


class Collisions:
    """Lets attempts go in single file for a while after some have collided.

    Transactions that want the same rows roll each other back again and again
    when all of them try again at once, and those that fail most wait longest.
    In single file they cannot. Single file lasts ten times as long as the
    collision took, so that no more than a tenth of the time is lost by
    collisions.
    """

    def __init__(self) -> None:
        self._turns = fair_lock.Turns('a turn')
        self._until = 0.0

    def note(self, seconds: float) -> None:
        """Note that an attempt collided, and after how many seconds."""
        until = time.monotonic() + min(10 * seconds, _LONGEST)
        self._until = max(self._until, until)

    def avoid(self, attempt: Callable[[], R]) -> R:
        """Make an attempt, in its turn after a collision."""
        left = self._until - time.monotonic()
        if left <= 0:
            return attempt()
        place = fair_lock.Place(self._turns)
        try:
            # An attempt that waits for something else, such as a lock of
            # another process, delays nobody here for longer than that. An
            # attempt inside of another one uses the turn of that one.
            with contextlib.suppress(exception.WouldWaitForItself):
                place.take(left)
            return attempt()
        finally:
            place.leave()


class _Known:
    """The collisions of this process; a forked child begins without any."""

    def __init__(self) -> None:
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin without any."""
        self.of: weakref.WeakKeyDictionary[
            Engines, collections.defaultdict[str, Collisions]
        ] = weakref.WeakKeyDictionary()


_known = _Known()


def collisions_of(engines: Engines, function: str) -> Collisions:
    """Return the collisions of the calls of a function.

    Calls of the same function are likely to want the same rows.

    :param engines: the engines that the calls use
    :param function: its name
    """
    try:
        return _known.of[engines][function]
    except KeyError:
        made: collections.defaultdict[str, Collisions] = (
            collections.defaultdict(Collisions)
        )
        return _known.of.setdefault(engines, made)[function]

"""Contention: calls that have collided do not do so again and again."""

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

# In seconds. PostgreSQL takes one to find a deadlock.
_LONGEST = 10


R = TypeVar('R')


class Collisions:
    """Lets attempts go in single file for a while after some have collided.

    Transactions that want the same rows roll each other back again and again
    when all of them try again at once, and those who fail most wait longest.
    In single file they cannot. It lasts ten times as long as the collision
    took, so that no more than a tenth of the time is lost by collisions.
    """

    def __init__(self) -> None:
        self._turns = fair_lock.Turns('a turn')
        self._until = 0.0

    def note(self, seconds: float) -> None:
        """Note that an attempt collided, after so many seconds."""
        until = time.monotonic() + min(10 * seconds, _LONGEST)
        self._until = max(self._until, until)

    def avoid(self, attempt: Callable[[], R]) -> R:
        """Make an attempt, in its turn where that is called for."""
        left = self._until - time.monotonic()
        if left <= 0:
            return attempt()
        place = fair_lock.Place(self._turns)
        try:
            # Whoever is held up by something else, as by a lock of another
            # process, holds up nobody here for longer than that. An attempt
            # inside of another one goes in the turn of that.
            with contextlib.suppress(exception.WouldWaitForItself):
                place.take(left)
            return attempt()
        finally:
            place.leave()


class _Known:
    """The collisions of this process; a forked child begins at none."""

    def __init__(self) -> None:
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin at none."""
        self.of: weakref.WeakKeyDictionary[
            Engines, collections.defaultdict[str, Collisions]
        ] = weakref.WeakKeyDictionary()


_known = _Known()


def collisions_of(engines: Engines, function: str) -> Collisions:
    """Return the collisions of the calls of a function.

    They are those that are likely to want the same rows.

    :param engines: those that the calls use
    :param function: its name
    """
    try:
        return _known.of[engines][function]
    except KeyError:
        made: collections.defaultdict[str, Collisions] = (
            collections.defaultdict(Collisions)
        )
        return _known.of.setdefault(engines, made)[function]

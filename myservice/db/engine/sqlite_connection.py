"""The connections of SQLite's driver, which take turns.

A turn belongs to the driver's connection, because everything that can end it
arrives there: COMMIT and ROLLBACK, by SQLAlchemy or by hand, a connection that
is invalidated, detached, closed, or dropped and collected.
"""

import os
import sqlite3
import sys
import weakref
from threading import get_ident
from typing import Any

from oslo_db import exception as db_exception

from myservice.db.engine import fair_lock
from myservice.db.engine import sqlite_driver

# In seconds. A smaller change of SQLite's timeout is not worth the statement.
_SHORT = 0.1


class Connection(sqlite_driver.Connection):
    """A connection that is lent to one user at a time."""

    place: fair_lock.Place | None = None
    _only_reads = False

    def only_read(self) -> None:
        """Make SQLite refuse all writes, until the end of the turn."""
        if not self._only_reads:
            self._only_reads = True
            self.execute('PRAGMA query_only = ON').close()

    def cursor(self, *args: Any) -> Any:
        """Return a cursor; the calling thread now uses the connection."""
        if self.place is not None and self.place.user != get_ident():
            self.place.use()
        return super().cursor(*args)

    def close(self) -> None:
        """Close it; the turn ends with it."""
        try:
            super().close()
        finally:
            self.leave_place()

    def leave_place(self) -> None:
        """End the turn, even if a transaction is open."""
        place = self.place
        if place is not None:
            place.leave()
            self.place = None

    def roll_back_all(self) -> None:
        """Roll back, also a transaction that the driver leaves to its user."""
        if sys.version_info >= (3, 12):
            self.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL
        self.rollback()

    def give_back(self) -> None:
        """End the turn, and begin no transaction unless BEGIN is sent."""
        if self._only_reads:
            self.execute('PRAGMA query_only = OFF').close()
            self._only_reads = False
        if sys.version_info >= (3, 12):
            self.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL
        # SQLAlchemy resets another isolation level to the driver's default,
        # where a statement in AUTOCOMMIT would not be committed. Setting this
        # commits; but the transaction is already rolled back.
        self.isolation_level = None
        if self.place is not None:
            self.leave_place()


class FileConnection(Connection):
    """A connection to a file, whose transactions take turns to write."""

    _busy_timeout = 0.0
    _is_shortened = False

    def take_turn(self, turns: fair_lock.Turns, timeout: float) -> None:
        """Wait for the turn to write.

        :param turns: the turns of the file
        :param timeout: how many seconds at most; SQLite may use the rest of it
            to wait for writers of other processes
        :raises DBDeadlock: when the turn did not come
        :raises WouldWaitForItself: when the caller has it already
        """
        self._busy_timeout = timeout
        self.place = place = fair_lock.Place(turns)
        if not place.take(timeout):
            raise db_exception.DBDeadlock('database is locked')
        if place.waited > _SHORT:
            self._is_shortened = True
            self._set_busy_timeout(timeout - place.waited)

    def end_turn(self) -> None:
        """End the turn, unless a transaction is open."""
        if self.place is not None and not self.in_transaction:
            self.leave_place()
            if self._is_shortened:
                self._set_busy_timeout(self._busy_timeout)
                self._is_shortened = False

    def commit(self) -> None:
        """Commit, or roll back if that fails, and end the turn."""
        try:
            super().commit()
        finally:
            # For SQLAlchemy the transaction is over in any case; for SQLite it
            # is not if it breaks a deferred foreign key.
            if self.in_transaction:
                self.rollback()
            self.end_turn()

    def rollback(self) -> None:
        """Roll back, and end the turn."""
        try:
            super().rollback()
        finally:
            self.end_turn()

    def _set_busy_timeout(self, seconds: float) -> None:
        self.execute(f'PRAGMA busy_timeout = {int(seconds * 1000)}').close()


_turns: weakref.WeakValueDictionary[str, fair_lock.Turns] = (
    weakref.WeakValueDictionary()
)


def turns_of(path: str) -> fair_lock.Turns:
    """Return the turns of all writers to a file, whichever engine they use."""
    new = fair_lock.Turns(
        'the lock of the one writer that SQLite has at a time'
    )
    return _turns.setdefault(os.path.realpath(path), new)

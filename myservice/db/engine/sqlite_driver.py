"""SQLite's driver, for processes that fork.

SQLite records its locks on a file in tables of the process, which a forked
child inherits: the child would believe that it has locks which it has not, and
wait for locks that nobody releases. Writes are lost, without an error, if both
processes use the file. So no thread is inside of the library while a process
forks, and the child closes all inherited connections before it opens anything.
See https://www.sqlite.org/howtocorrupt.html, "Carrying an open database
connection across a fork()".

It is harmless that a child closes a connection in the middle of its parent's
transaction, as nothing of that is in the file before COMMIT.
"""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any
from typing import Protocol
from typing import TypeVar

from myservice import exception
from myservice.db.engine import fork

# In seconds. How long a fork waits for one statement while it keeps all others
# waiting; then all of them go on.
_SHORT = 0.02


T = TypeVar('T')


class Lock(Protocol):
    """A lock that may be waited for in vain."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...

    def release(self) -> None: ...


def _inside(method: Callable[..., T]) -> Callable[..., T]:
    """Return a method of a cursor that keeps forks waiting while it runs."""

    def call(self: Any, *args: object) -> T:
        with self.connection.inside:
            return method(self, *args)

    return call


class Cursor(sqlite3.Cursor):
    """A cursor that keeps forks waiting while it is inside of SQLite."""

    execute = _inside(sqlite3.Cursor.execute)
    executemany = _inside(sqlite3.Cursor.executemany)
    executescript = _inside(sqlite3.Cursor.executescript)
    fetchone = _inside(sqlite3.Cursor.fetchone)
    fetchmany = _inside(sqlite3.Cursor.fetchmany)
    fetchall = _inside(sqlite3.Cursor.fetchall)
    __next__ = _inside(sqlite3.Cursor.__next__)
    close = _inside(sqlite3.Cursor.close)


class _Dropped(Cursor):
    """A cursor that its user may drop, which resets its statement.

    SQLAlchemy closes its own cursors.
    """

    def __del__(self) -> None:
        # Its connection may have been closed, and the cursor with it.
        with contextlib.suppress(sqlite3.ProgrammingError):
            self.close()


class Connection(sqlite3.Connection):
    """A connection that a forked child closes; its parent goes on with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: held while a thread is inside of SQLite with this connection
        self.inside = threading.RLock()
        # An open statement would keep SQLite from closing the file.
        self._cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()
        with fork.in_one_piece:
            _forks.refuse_to_open()
            super().__init__(*args, **kwargs)
            _forks.open.add(self)
        # Otherwise changes that do not fit into memory are written before
        # COMMIT.
        self.execute('PRAGMA cache_spill = OFF')

    def cursor(self, factory: type[Cursor] = Cursor) -> Cursor:  # type: ignore[override]
        """Return a cursor."""
        cursor = super().cursor(factory)
        self._cursors.add(cursor)
        return cursor

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute one statement, and return its cursor."""
        cursor: sqlite3.Cursor = self.cursor(_Dropped).execute(*args)
        return cursor

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement for each of many parameters."""
        cursor: sqlite3.Cursor = self.cursor(_Dropped).executemany(*args)
        return cursor

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """Execute many statements."""
        cursor: sqlite3.Cursor = self.cursor(_Dropped).executescript(*args)
        return cursor

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        with self.inside:
            super().commit()

    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        with self.inside:
            super().rollback()

    def close(self) -> None:
        """Close the connection and its cursors."""
        with self.inside:
            cursors, self._cursors = list(self._cursors), weakref.WeakSet()
            for cursor in cursors:
                cursor.close()
            super().close()
            _forks.open.discard(self)


class _Forks:
    """Brings the connections of this process through its forks."""

    def __init__(self) -> None:
        self.open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._held: list[Lock] = []
        self._was_busy = False

    def refuse_to_open(self) -> None:
        """Refuse to open a file where that would lose writes.

        :raises ForkedWhileBusy: in a child that could not close what it has
            inherited
        """
        if self._was_busy:
            raise exception.ForkedWhileBusy(process=os.getpid())

    def before(self) -> None:
        """Wait until no thread is inside of SQLite, and keep them out."""
        until = time.monotonic() + fork.PATIENCE
        while not self._take_all() and time.monotonic() < until:
            # A thread may be waiting for a lock of a thread that is kept out.
            self.after_in_parent()
            time.sleep(_SHORT)

    def _take_all(self) -> bool:
        # Connections that are just being opened count, too.
        taken = self._take(fork.in_one_piece)
        for connection in list(self.open):
            taken = self._take(connection.inside) and taken
        return taken

    def _take(self, lock: Lock) -> bool:
        taken = lock.acquire(timeout=_SHORT)
        if taken:
            self._held.append(lock)
        return taken

    def after_in_parent(self) -> None:
        """Let everybody go on."""
        while self._held:
            self._held.pop().release()

    def after_in_child(self) -> None:
        """Close what the child has inherited."""
        at_rest = [c for c in self.open if c.inside in self._held]
        self._was_busy |= len(at_rest) < len(self.open)
        self.open.clear()
        self.after_in_parent()
        # In another thread: a thread of the parent that used SQLite without
        # our cursors may hold a lock of the library for ever.
        closing = threading.Thread(
            target=self._close, args=(at_rest,), daemon=True
        )
        closing.start()
        closing.join(fork.PATIENCE)
        self._was_busy |= closing.is_alive()

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            try:
                connection.close()
            except sqlite3.Error:
                # It can only be closed in the thread that opened it.
                self._was_busy = True


_forks = _Forks()
os.register_at_fork(
    before=_forks.before,
    after_in_parent=_forks.after_in_parent,
    after_in_child=_forks.after_in_child,
)

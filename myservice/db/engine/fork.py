"""Forks: a child must not share locks and connections with its parent.

A child inherits the memory of its parent, but only one thread: locks that the
others held stay locked, and connections stay the parent's, as the server
cannot see that there is a child. So each object with locks or connections
registers here, and begins anew in a child. See
https://docs.sqlalchemy.org/core/pooling.html, "Using Connection Pools with
Multiprocessing or os.fork()".
"""

# The first connection imports this. A child that is forked during an import of
# its parent can never finish that import.
import encodings.idna  # noqa: F401
import itertools
import os
import threading
import weakref
from typing import Any
from typing import Protocol

from myservice import exception

#: the id of this process; asking the system would be a call in every statement
pid = os.getpid()

#: held during work that a fork must not cut in two, such as an import, which
#: the child could never finish
in_one_piece = threading.RLock()

# For how many seconds a fork waits for other threads.
PATIENCE = 5


class Renewable(Protocol):
    """Something that begins anew in a forked child."""

    def renew(self) -> None:
        """Forget the parent's resources; called in the child."""


_numbers = itertools.count()
_renewables: weakref.WeakValueDictionary[int, Renewable] = (
    weakref.WeakValueDictionary()
)

# Connections of a parent are never deallocated: some drivers would then send a
# goodbye on the parent's socket.
_parents_connections: list[object] = []


def renew_in_child(renewable: Renewable) -> None:
    """Let something begin anew in each forked child.

    The object that registered last is renewed first.

    :param renewable: the object; it is not kept alive
    """
    _renewables[next(_numbers)] = renewable


class _Hooks:
    """Functions that Python calls before and after a fork."""

    _waited = False

    def before(self) -> None:
        """Wait until the fork cuts no work in two."""
        self._waited = in_one_piece.acquire(timeout=PATIENCE)

    def after_in_parent(self) -> None:
        """Let everybody go on."""
        if self._waited:
            in_one_piece.release()

    def after_in_child(self) -> None:
        """Begin anew."""
        global pid, in_one_piece
        pid = os.getpid()
        in_one_piece = threading.RLock()
        for renewable in reversed(list(_renewables.values())):
            renewable.renew()


_hooks = _Hooks()
os.register_at_fork(
    before=_hooks.before,
    after_in_parent=_hooks.after_in_parent,
    after_in_child=_hooks.after_in_child,
)


class ParentsConnection:
    """Replaces, in a child, a driver's connection that the parent uses.

    It refuses everything except rollback and close, which do nothing: the
    blocks of the parent end with a rollback in the child.

    :param parent: the process that uses the connection
    """

    # An attribute of SQLite's driver: the child has nothing to roll back.
    in_transaction = False

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def rollback(self) -> None:
        """Do nothing: the parent ends its transaction."""

    def close(self) -> None:
        """Do nothing: the parent closes its connection."""

    def __getattr__(self, name: str) -> Any:
        raise in_use(self._parent)


def in_use(parent: int) -> exception.TransactionInUse:
    """Return the error for a child that uses its parent's transaction.

    :param parent: the process that began it
    """
    return exception.TransactionInUse(
        owner=f'process {parent}', caller=f'process {pid}, forked from it'
    )


def leave_to_parent(record: Any, parent: int) -> None:
    """Take a connection of the parent out of SQLAlchemy's hands.

    Nothing is sent, and the child can no longer use it.

    :param record: the entry of a pool, a ConnectionPoolEntry
    :param parent: the process that uses the connection
    """
    proxy = record.fairy_ref and record.fairy_ref()
    _parents_connections.append(record.dbapi_connection)
    # The pool that it would return to may be locked for ever.
    record.fairy_ref = record.dbapi_connection = None
    if proxy is not None:
        proxy.dbapi_connection = ParentsConnection(parent)

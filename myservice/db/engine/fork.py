"""Forks: what a child must not share with its parent.

A child inherits the memory of its parent, but one thread only: locks that the
others held stay locked, and connections are the parent's, whose server knows
nothing of a child. So whatever holds locks or connections registers here, and
begins anew in a child. See https://docs.sqlalchemy.org/core/pooling.html,
"Using Connection Pools with Multiprocessing or os.fork()".
"""

# A first connection imports it, and a child that is forked in the middle of an
# import of its parent never gets past it.
import encodings.idna  # noqa: F401
import itertools
import os
import threading
import weakref
from typing import Any
from typing import Protocol

from myservice import exception

#: of this process; asking the system would be a call in every statement
pid = os.getpid()

#: held by whoever does what a fork must not cut in two, such as an import: no
#: child would ever get past it
in_one_piece = threading.RLock()

# How long a fork waits for other threads, in seconds.
PATIENCE = 5


class Renewable(Protocol):
    """Something that begins anew in a forked child."""

    def renew(self) -> None:
        """Forget what belongs to the parent; called in the child."""


_numbers = itertools.count()
_renewables: weakref.WeakValueDictionary[int, Renewable] = (
    weakref.WeakValueDictionary()
)

# Connections of a parent are never freed: some drivers say goodbye to the
# server then, on a socket that is the parent's.
_parents_connections: list[object] = []


def renew_in_child(renewable: Renewable) -> None:
    """Let something begin anew in each forked child.

    What has registered last is renewed first.

    :param renewable: the object; it is not kept alive
    """
    _renewables[next(_numbers)] = renewable


class _Hooks:
    """What Python calls before and after a fork."""

    _waited = False

    def before(self) -> None:
        """Wait until nobody would be cut in two."""
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
    """Stands in a child for the connection of a driver that its parent uses.

    Whatever the child asks of it is refused. A rollback, which is how the
    blocks of the parent end in the child, is none of the child's business.

    :param parent: the process that uses the connection
    """

    # Of SQLite's driver: to the child, there is nothing to roll back.
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
    """Return the error for a child that uses what its parent has begun.

    :param parent: the process that has begun it
    """
    return exception.TransactionInUse(
        owner=f'process {parent}', caller=f'process {pid}, forked from it'
    )


def leave_to_parent(record: Any, parent: int) -> None:
    """Take a connection of the parent out of SQLAlchemy's hands.

    Nothing is sent, and whoever still has it in the child is refused.

    :param record: the entry of a pool, a ConnectionPoolEntry
    :param parent: the process that uses the connection
    """
    proxy = record.fairy_ref and record.fairy_ref()
    _parents_connections.append(record.dbapi_connection)
    # The pool that it would go back to may be locked for ever.
    record.fairy_ref = record.dbapi_connection = None
    if proxy is not None:
        proxy.dbapi_connection = ParentsConnection(parent)

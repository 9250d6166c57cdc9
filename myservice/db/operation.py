"""An operation: what one call does, however many attempts it takes.

Each attempt finds the same uuids here. What an attempt whose COMMIT was lost
has left in the database can so be told from what others wrote.
"""

import contextvars
from collections.abc import Callable
from typing import Any

import uuid6


def new_id() -> str:
    """Return a time-ordered UUID (version 7, RFC 9562), as text."""
    return str(uuid6.uuid7())


class Operation:
    """One call of a public function, or one transaction.

    :param function: what was called, for messages
    :param engines: those that the caller's context names, if it does
    """

    __slots__ = ('_ids', 'attempt', 'engines', 'function')

    def __init__(self, function: str, engines: Any = None) -> None:
        self.function = function
        self.engines = engines
        # The number of the attempt that is under way, from 1 on.
        self.attempt = 1
        self._ids: dict[str, str] = {}

    @property
    def id(self) -> str:
        """The uuid of the operation itself."""
        return self.id_for('')

    def id_for(self, what: str) -> str:
        """Return the uuid for one thing, the same in every attempt."""
        try:
            return self._ids[what]
        except KeyError:
            return self._ids.setdefault(what, new_id())


CURRENT: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    'operation', default=None
)


def current() -> Operation:
    """Return the operation of the call that this code runs in."""
    return CURRENT.get() or Operation('the transaction')


def run(operation: Operation, function: Callable[[], Any]) -> Any:
    """Call a function, in which an operation is the current one.

    :param operation: the operation
    :param function: takes no arguments
    :returns: what it returns
    """
    token = CURRENT.set(operation)
    try:
        return function()
    finally:
        CURRENT.reset(token)

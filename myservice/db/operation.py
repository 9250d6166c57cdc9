"""An operation: one call, with all its attempts.

Each attempt finds the same uuids here. They tell what an attempt whose COMMIT
was lost has left in the database from what others wrote.

An operation also records whether anything may have been committed, and notes
that in an interrupt that leaves it.
"""

import contextvars
from collections.abc import Callable
from typing import Any
from typing import TypeVar

import uuid6
from oslo_db import exception as db_exception

from myservice import exception

# The layer and its libraries raise these. Anything else that leaves a call is
# an interrupt, or a fault of the function that was called: it leaves as it is.
_OURS = (
    exception.MyServiceError,
    db_exception.DBError,
    db_exception.DBInvalidUnicodeParameter,
)

R = TypeVar('R')

_UNKNOWN = 'It is unknown whether'


def new_id() -> str:
    """Return a time-ordered UUID (version 7, RFC 9562), as text."""
    return str(uuid6.uuid7())


class Operation:
    """One call of a public function, or one transaction.

    :param function: the name of the function, for messages
    :param engines: the engines that the caller's context names, if any
    """

    __slots__ = ('_ids', 'attempt', 'engines', 'function', 'sent')

    def __init__(self, function: str, engines: Any = None) -> None:
        self.function = function
        self.engines = engines
        # The number of the current attempt, from 1 on.
        self.attempt = 1
        # Whether a COMMIT, or a write that commits by itself, may have taken
        # effect.
        self.sent = False
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

    def note_doubt(self, error: BaseException) -> None:
        """Note in an interrupt that the outcome of this is unknown.

        :param error: the error that leaves the operation; an error of ours
            says by its type what is known, and is left alone
        """
        if self.sent and is_foreign(error):
            self.leave_in_doubt(error)

    def leave_in_doubt(self, error: BaseException) -> None:
        """Note in an error that the outcome of this is unknown.

        :param error: the error that leaves it; one that says so already is
            left alone
        """
        self.sent = True
        if not says_unknown(error):
            error.add_note(
                f'{_UNKNOWN} {self.function} (operation {self.id}) took '
                f'effect: it was interrupted.'
            )


def says_unknown(error: BaseException) -> bool:
    """Return whether an error notes that an outcome is unknown."""
    notes = getattr(error, '__notes__', ())
    return any(note.startswith(_UNKNOWN) for note in notes)


def is_foreign(error: BaseException) -> bool:
    """Return whether neither the layer nor its libraries raised an error."""
    return not isinstance(error, _OURS)


CURRENT: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    'operation', default=None
)


def current() -> Operation:
    """Return the operation of the call that this code runs in."""
    return CURRENT.get() or Operation('the transaction')


def run(operation: Operation, function: Callable[[], R]) -> R:
    """Call a function with an operation as the current one.

    :param operation: the operation
    :param function: takes no arguments
    :returns: the result of the function
    """
    token = CURRENT.set(operation)
    try:
        return function()
    finally:
        CURRENT.reset(token)

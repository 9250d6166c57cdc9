"""Errors of sessions and transactions."""

from myservice.exception.base import MyServiceError


class SessionMisuse(MyServiceError):
    """A session was used in a way that its kind does not allow."""


class WriteInReadOnly(SessionMisuse):
    """A read-only session was asked to write, or to lock rows."""

    message = (
        'This session only reads, without locks. It refused: {statement}. To '
        'write, use get_session(context).'
    )
    statement: str


class SecondWriteInAutocommit(SessionMisuse):
    """An autocommit session was asked to write a second time."""

    message = (
        'This session commits each statement by itself, so a second write '
        'would not be atomic with the first. It was not sent: {statement}. '
        'For a transaction, use get_session(context).'
    )
    statement: str


class LockInAutocommit(SessionMisuse):
    """An autocommit session was asked to lock rows; nothing was sent."""

    message = (
        'This session commits each statement by itself, so it cannot keep the '
        'locks of this statement. It was not sent: {statement}. For a '
        'transaction, use get_session(context).'
    )
    statement: str


class SessionNotBegun(SessionMisuse):
    """A session was used outside of its block."""

    message = 'Use this session inside of "with session.begin():".'


class TransactionInUse(SessionMisuse):
    """A transaction belongs to another thread, task or process."""

    message = (
        'This transaction or session belongs to {owner}, and was used from '
        '{caller}. Like a session, a context belongs to one thread of '
        'control. Make another one here: context.get_admin_context() is cheap.'
    )
    owner: str
    caller: str


class ForkedWhileBusy(SessionMisuse):
    """A child was forked while SQLite was busy, and cannot use the file."""

    message = (
        'Process {process} was forked while another thread of its parent was '
        'executing a SQLite statement, which took longer than a fork waits. '
        'SQLite could lose writes of this process: end it, and fork again.'
    )
    process: int


class TransactionEnded(MyServiceError):
    """The session of a transaction was used after its end."""

    message = (
        'The transaction of this session has ended. Open another one: '
        'db.api.transaction(context) or db.api.get_session().'
    )


class CannotJoinHere(TransactionEnded):
    """An event listener made a call where the session cannot be used."""

    message = (
        'This call was made while the session begins or ends a transaction or '
        'a savepoint, so it cannot join the transaction. Listen to '
        'before_flush, after_flush or before_commit instead: there, calls can '
        'join.'
    )


class NotTransactionOwner(SessionMisuse):
    """A part of a shared transaction tried to end it."""

    message = (
        'Refused: {what} would end a transaction that others share; only the '
        'block that opened it may end it. To undo a part, leave "with '
        'db.api.savepoint(context):" by an exception. For a separate '
        'transaction, use transaction(context, independent=True).'
    )
    what: str


class TransactionDoomed(MyServiceError):
    """A statement of this transaction failed, so it cannot be committed."""

    message = (
        'This transaction can only be rolled back, because a statement in it '
        'failed: {reason}. Put statements that may fail inside of "with '
        'db.api.savepoint(context):".'
    )
    reason: str


class PartRolledBack(MyServiceError):
    """A part of a shared transaction called ``session.rollback()``."""

    message = 'A part of the transaction asked for a rollback.'


class NoTransaction(SessionMisuse):
    """A savepoint needs a transaction, and there is none."""

    message = (
        'A savepoint needs a transaction, and none is open. Open one by "with '
        'db.api.transaction(context):".'
    )


class WouldWaitForItself(SessionMisuse):
    """This call would wait for something that its own thread holds."""

    message = (
        'This call would wait for ever, as its own thread holds {held}. End '
        'that transaction first, or make the call join it: pass the context '
        'of the transaction.'
    )
    held: str


class CommitUnknown(MyServiceError):
    """The connection was lost during COMMIT: it may have taken effect.

    The change happened once or not at all, and will not happen later.
    ``known`` says what was found out. ``operation`` is the uuid that the
    change would have stored. Read the row before you repeat the call.
    """

    message = (
        'It is unknown whether {function} (operation {operation}) took '
        'effect: {known}. Read the row before you repeat the call.'
    )
    function: str
    operation: str
    known: str

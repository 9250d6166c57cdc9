"""What each error of each driver means: the one place that says so.

Every error is one of three:

- *transient*: the whole transaction may be repeated (``TRANSIENT``);
- *outcome unknown*: the connection was lost while COMMIT, or a statement that
  commits by itself, was under way (``CommitUnknown``);
- *permanent*: anything else.

oslo.db translates most errors. What it leaves raw, or gives a type that says
too little, is in the table below, by the codes of the drivers: MySQL's error
numbers, SQLSTATE in PostgreSQL, result codes in SQLite. After ``translate``
a caller sees types of ``myservice.exception`` and ``oslo_db.exception`` only.
"""

import copyreg
import re
from collections.abc import Callable
from typing import Any

from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc

from myservice import exception
from myservice import pickling
from myservice.db import dialects
from myservice.db import operation
from myservice.db.dialects import Backend

TRANSIENT = (
    db_exception.DBDeadlock,
    db_exception.DBConnectionError,
    exception.ServerBusy,
    exception.ServerReadOnly,
    exception.StatementInterrupted,
)

for _kind in vars(db_exception).values():
    if isinstance(_kind, type) and issubclass(_kind, Exception):
        copyreg.pickle(_kind, pickling.reduce_error)

Code = int | str | None
Make = Callable[[Exception], Exception]


def _ours(kind: type[exception.ServerError]) -> Make:
    return lambda error: kind(reason=first_line(error))


_deadlock: Make = db_exception.DBDeadlock
_lost: Make = db_exception.DBConnectionError
_data: Make = db_exception.DBDataError
_busy = _ours(exception.ServerBusy)
_read_only = _ours(exception.ServerReadOnly)
_interrupted = _ours(exception.StatementInterrupted)
_no_space = _ours(exception.NoSpace)

_MEANING: dict[Backend, dict[Code, Make]] = {
    'mysql': {
        # A transaction that another Galera node aborted is reported once, by
        # whatever comes next; if that is a savepoint's end, as 1305.
        1305: _deadlock,
        1040: _busy,
        1203: _busy,
        1290: _read_only,
        1792: _read_only,
        1836: _read_only,
        1317: _interrupted,
        1969: _interrupted,
        3024: _interrupted,
        1021: _no_space,
        1114: _no_space,
        1153: _data,
        1366: _data,
        # Galera lost its quorum while a COMMIT was in flight.
        1180: _lost,
    },
    'postgresql': {
        '40001': _deadlock,
        '40P01': _deadlock,
        '55P03': _deadlock,
        '53300': _busy,
        '57P03': _busy,
        '25006': _read_only,
        '57014': _interrupted,
        '53100': _no_space,
        '53200': _no_space,
        '53400': _no_space,
        '22001': _data,
        '22003': _data,
        '22021': _data,
    },
    'sqlite': {
        5: _deadlock,
        6: _deadlock,
        13: _no_space,
    },
}

# These have rolled the whole transaction back, whatever savepoint they met.
_ENDED: set[Code] = {1213, 1020, 1305, '40001', '40P01'}

# Refused, so surely not executed, also where it was COMMIT that was refused.
_REFUSED: set[Code] = {1047}

# libpq gives no SQLSTATE for a connection that did not come about.
_PERMANENT_AT_CONNECT = re.compile(
    r'authentication failed|no pg_hba.conf entry|role ".*" does not exist'
)


def translate(context: Any) -> None:
    """Raise what a driver's error means; listens to ``handle_error``.

    :param context: SQLAlchemy's ExceptionContext
    :raises Exception: of myservice.exception or oslo_db.exception
    """
    original = context.original_exception
    if isinstance(original, exception.MyServiceError | db_exception.DBError):
        raise original
    code = _code(original)
    if code == 1146 and (context.statement or '').startswith('DESCRIBE'):
        # In this way SQLAlchemy asks whether a table is there.
        return
    error = _meaning(context, original, code)
    if error is None:
        return
    if isinstance(error, exception.ServerReadOnly):
        # The writer is elsewhere now; new connections will find it.
        context.is_disconnect = True
    if code in _ENDED and _in_savepoint(context.connection):
        # On an invalidated connection SQLAlchemy sends no ROLLBACK TO
        # SAVEPOINT, which would fail, or worse: find nothing to undo.
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
    raise error from original


def is_lost(error: Exception) -> bool:
    """Return whether the connection was lost, and what was sent with it.

    A server that refuses a command has surely not executed it.
    """
    return (
        isinstance(error, db_exception.DBConnectionError)
        and _code(error.__cause__) not in _REFUSED
    )


def has_ended_transaction(error: BaseException) -> bool:
    """Return whether an error has rolled back the whole transaction.

    A deadlock or a conflict has; to have waited too long for a lock has not.
    """
    return _code(error.__cause__) in _ENDED


def commit_unknown(error: BaseException) -> exception.CommitUnknown:
    """Return the error for a call whose last command was lost.

    :param error: the loss of the connection
    """
    lost = operation.current()
    return exception.CommitUnknown(
        function=lost.function, operation=lost.id, known=first_line(error)
    )


def doomed(failure: BaseException) -> exception.TransactionDoomed:
    """Return the error for a transaction in which a statement has failed.

    :param failure: what the statement has raised
    """
    return exception.TransactionDoomed(reason=first_line(failure))


def first_line(error: BaseException) -> str:
    """Return what an error says, without the statement and its parameters."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _meaning(context: Any, original: Any, code: Code) -> Exception | None:
    wrapped = context.sqlalchemy_exception or original
    error: Exception | None
    make = _MEANING[dialects.backend_of(context.dialect)].get(code)
    if make is not None:
        if make is _lost:
            context.is_disconnect = True
        error = make(wrapped)
        return error
    try:
        error = exc_filters.handler(context)
    except exc.OperationalError as raw:
        # oslo.db raises these as they are.
        if _is_lost_at_connect(context, raw):
            context.is_disconnect = True
            error = _lost(raw)
        else:
            error = db_exception.DBError(raw)
    except exc.DBAPIError as raw:
        error = db_exception.DBError(raw)
    except ValueError:
        # oslo.db takes the columns from between the first and the last "_" of
        # the constraint's name, which may have none.
        if code != '23505':
            raise
        error = db_exception.DBDuplicateEntry(inner_exception=wrapped)
    return error


def _is_lost_at_connect(context: Any, raw: exc.OperationalError) -> bool:
    return (
        context.connection is None
        and dialects.backend_of(context.dialect) == 'postgresql'
        and not _PERMANENT_AT_CONNECT.search(str(raw))
    )


def _in_savepoint(connection: Any) -> bool:
    return connection is not None and connection.in_nested_transaction()


def _code(error: BaseException | None) -> Code:
    # PyMySQL has both; its numbers say more than its SQLSTATE.
    number = error.args[0] if error is not None and error.args else None
    if isinstance(number, int):
        return number
    result: int | None = getattr(error, 'sqlite_errorcode', None)
    if result is not None:
        # The low byte is the code; the rest says which kind of it.
        return result & 0xFF
    sqlstate: str | None = getattr(error, 'sqlstate', None)
    return sqlstate

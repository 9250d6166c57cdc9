"""The meaning of each error for a call, in one place.

Every error of a driver has one of three kinds:

- *transient*: the whole transaction may be repeated (``TRANSIENT``);
- *outcome unknown*: the connection was lost while COMMIT, or a statement that
  commits by itself, was under way (``CommitUnknown``);
- *permanent*: anything else.

``translate`` turns them into types of ``myservice.exception`` and
``oslo_db.exception``, by their numbers, which are in error_codes.py. An error
that no driver has raised (a time limit, a type of the caller's, a listener)
passes unchanged.
"""

import copyreg
from types import TracebackType as Traceback
from typing import NoReturn

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import exc
from sqlalchemy.engine import ExceptionContext

from myservice import exception
from myservice import pickling
from myservice.db import operation
from myservice.db.engine import error_codes
from myservice.db.engine import purpose
from myservice.db.engine import refused_connection
from myservice.db.engine.error_codes import first_line as first_line
from myservice.db.engine.error_details import Code
from myservice.db.engine.error_details import DriverError
from myservice.db.engine.error_details import made
from myservice.db.sql import dialects

TRANSIENT = (
    db_exception.DBDeadlock,
    db_exception.DBConnectionError,
    exception.ServerBusy,
    exception.ServerReadOnly,
    exception.StatementInterrupted,
)

#: the errors of a call when a database is away or in trouble, after all
#: retries
DATABASE_ERRORS = (
    db_exception.DBError,
    exception.CommitUnknown,
    exception.PoolTimeout,
    exception.ServerError,
)

for _kind in vars(db_exception).values():
    if isinstance(_kind, type) and issubclass(_kind, Exception):
        copyreg.pickle(_kind, pickling.reduce_error)

_TYPED = (
    exception.MyServiceError,
    db_exception.DBError,
    db_exception.DBInvalidUnicodeParameter,
)

_MISSING = (
    db_exception.DBNonExistentTable,
    db_exception.DBNonExistentDatabase,
)

# Drivers raise these, beside their own errors, for a value they cannot send.
_BUILT_IN = (UnicodeEncodeError, OverflowError)

# The modules that call drivers, which may be written in C: SQLAlchemy, and our
# subclasses of drivers.
_CALLS_DRIVERS = ('sqlalchemy.engine.default', f'{__package__}.')

# The modules that wait for the network below a driver written in Python.
_NETWORK = {'socket', 'ssl', 'gevent', 'eventlet'}


class _Untouched(Exception):
    """Stands for an error that stays unchanged, while SQLAlchemy handles it.

    SQLAlchemy wraps an error that comes before the call of the driver, and
    raises the listener's result *from* it, which would make the error its own
    cause.

    :param error: the error that is raised as soon as this is
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error

    def with_traceback(self, traceback: Traceback | None) -> NoReturn:
        """Raise the error itself: SQLAlchemy calls this last."""
        raise self.error.with_traceback(traceback)


def translate(context: ExceptionContext) -> BaseException | None:
    """Return what an error means, for ``handle_error``.

    :param context: SQLAlchemy's ExceptionContext
    :returns: an error of myservice.exception or oslo_db.exception for an error
        of a driver; for any other a value that lets it pass unchanged
    """
    raised = context.original_exception
    dialect = context.dialect
    if not isinstance(raised, dialect.loaded_dbapi.Error):
        if _is_built_in_of_driver(context):
            return _meaning_of_built_in(raised)
        is_wrapped = context.sqlalchemy_exception is not None
        return _Untouched(raised) if is_wrapped else None
    taken = taken_by_driver(raised, dialect)
    if taken is not None:
        return _Untouched(taken)
    backend = dialects.backend_of(dialect)
    code = error_codes.number(raised)
    able = dialects.ABILITIES[backend]
    if context.connection is None and not able.numbers_refusals:
        code = code or refused_connection.sqlstate(
            raised, dialect.loaded_dbapi
        )
    error = error_codes.meaning(
        backend,
        DriverError(
            raised=raised,
            wrapped=context.sqlalchemy_exception or raised,
            code=code,
            statement=context.statement or '',
            only_reads=_only_reads(context.connection),
        ),
    )
    if code is None and _is_lost_without_number(context, backend):
        error = made(
            db_exception.DBConnectionError, context.sqlalchemy_exception
        )
    if isinstance(error, _MISSING) and _is_question(context):
        return None
    _decide_on_connection(context, error, code)
    return error


def taken_by_driver(
    raised: BaseException, dialect: sa.Dialect
) -> BaseException | None:
    """Return the error of a signal handler, if a driver took it for its own.

    PyMySQL takes every OSError for one of the network, also the TimeoutError
    of a signal handler.

    :param raised: the error of the driver
    :param dialect: SQLAlchemy's dialect, which has the driver
    """
    inner = raised.__context__
    if not isinstance(inner, OSError) or inner.__traceback__ is None:
        return None
    if not _is_of_driver(_module(inner.__traceback__), dialect):
        return None
    module = _module(_innermost(inner))
    is_network = module.partition('.')[0] in _NETWORK
    return None if is_network or _is_of_driver(module, dialect) else inner


def is_typed(error: BaseException) -> bool:
    """Return whether an error has a type of ours or of oslo.db."""
    return isinstance(error, _TYPED)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, and the last command with it.

    A server that refuses a command has surely not executed it.
    """
    return (
        isinstance(error, db_exception.DBConnectionError)
        and _code(error) not in error_codes.REFUSED
    )


def has_ended_transaction(error: BaseException) -> bool:
    """Return whether an error has rolled back the whole transaction.

    A deadlock or a conflict does so; a wait for a lock that took too long does
    not.
    """
    return (
        isinstance(error, db_exception.DBDeadlock)
        and _code(error) in error_codes.ENDED
    )


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

    :param failure: the error of the statement
    """
    return exception.TransactionDoomed(reason=first_line(failure))


def _code(error: BaseException) -> Code:
    wrapped = getattr(error, 'inner_exception', None)
    if not isinstance(wrapped, exc.DBAPIError) or wrapped.orig is None:
        return None
    return error_codes.number(wrapped.orig)


def _only_reads(connection: sa.Connection | None) -> bool:
    if connection is None:
        return False
    options = connection.get_execution_options()
    return bool(options.get(purpose.KEY) == 'snapshot')


def _is_question(context: ExceptionContext) -> bool:
    # SQLAlchemy marks in this way that it asks whether a table exists.
    asked = context.execution_context
    return asked is not None and bool(
        asked.execution_options.get('skip_user_error_events')
    )


def _is_lost_without_number(
    context: ExceptionContext, backend: dialects.Backend
) -> bool:
    raised = context.original_exception
    if context.connection is not None:
        return bool(context.is_disconnect)
    return (
        not dialects.ABILITIES[backend].numbers_refusals
        and isinstance(raised, context.dialect.loaded_dbapi.OperationalError)
        and not refused_connection.needs_password(raised)
    )


def _decide_on_connection(
    context: ExceptionContext, error: Exception, code: Code
) -> None:
    if isinstance(
        error, db_exception.DBConnectionError | exception.ServerReadOnly
    ):
        # If a server became read-only, the writer is elsewhere now; new
        # connections will find it.
        context.is_disconnect = True
    elif isinstance(code, int):
        # SQLAlchemy also looks for words, which may be the caller's.
        context.is_disconnect = False
    if has_ended_transaction(error) and _in_savepoint(context.connection):
        # On an invalidated connection SQLAlchemy sends no ROLLBACK TO
        # SAVEPOINT, which would fail or, worse, find nothing to undo.
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _in_savepoint(connection: sa.Connection | None) -> bool:
    return connection is not None and connection.in_nested_transaction()


def _is_built_in_of_driver(context: ExceptionContext) -> bool:
    raised = context.original_exception
    # Without an execution context the driver has not been called yet.
    if not isinstance(raised, _BUILT_IN) or context.execution_context is None:
        return False
    module = _module(_innermost(raised))
    return _is_of_driver(module, context.dialect)


def _meaning_of_built_in(raised: BaseException) -> Exception:
    if isinstance(raised, UnicodeEncodeError):
        return made(db_exception.DBInvalidUnicodeParameter)
    return made(db_exception.DBDataError, raised)


def _innermost(raised: BaseException) -> Traceback | None:
    traceback = raised.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _module(traceback: Traceback | None) -> str:
    if traceback is None:
        return ''
    return str(traceback.tb_frame.f_globals.get('__name__', ''))


def _is_of_driver(module: str, dialect: sa.Dialect) -> bool:
    return module.startswith((dialect.loaded_dbapi.__name__, *_CALLS_DRIVERS))

"""The effect of interrupts on a connection, and the limits of cleaning up.

An interrupt is an exception in the middle of a statement that does not come
from the driver: from the handler of a signal (Ctrl-C, a time limit), or raised
into a thread. It is not changed. A connection that waits for an answer is
closed, and the interrupt notes that something may have been committed.

A ROLLBACK that fails does not replace the error that it is sent for. The
connection is closed instead, which rolls back as well. Only when it is sent
without an error is its own failure raised.
"""

import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice.db import operation
from myservice.db.engine import marks
from myservice.db.engine import purpose
from myservice.db.engine import wire
from myservice.db.sql import write_detection
from myservice.db.sql.dialects import is_server

LOG = logging.getLogger(__name__)

# Modules in which drivers raise an error of one of these types, or are called,
# if they are written in C.
_DRIVERS = (
    'myservice.db.engine.sqlite_',
    'myservice.db.engine.wire',
    'psycopg',
    'pymysql',
    'sqlalchemy',
)
_UNSENDABLE = (ValueError, TypeError, ArithmeticError, LookupError)

# A key in the ``info`` of a connection: the Connection that rolls back.
_ROLLING_BACK = 'myservice.rolling_back'


def drop_if_busy(context: Any) -> None:
    """Drop a connection that waits for an answer, when an error is handled.

    SQLite has no answer to wait for, and a connection may be the database.

    :param context: SQLAlchemy's ExceptionContext, with a connection that is
        in use
    """
    error = context.original_exception
    busy = wire.is_busy(context.connection.connection.driver_connection)
    if busy:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
    elif isinstance(error, context.dialect.loaded_dbapi.Error):
        return
    elif not is_server(context.dialect):
        context.is_disconnect = False
    if busy or operation.is_foreign(error):
        if _may_have_taken_effect(context, busy):
            operation.current().leave_in_doubt(error)


def _may_have_taken_effect(context: Any, busy: bool) -> bool:
    connection, execution = context.connection, context.execution_context
    if execution is None:
        # Without a statement it is the end of a transaction; with one, the SQL
        # to send was not made yet.
        ends = context.statement is None
        return ends and marks.COMMITTER in connection.info
    options = connection.get_execution_options()
    level = options.get('isolation_level', options[purpose.KEY])
    statement = execution.invoked_statement
    if level.upper() != 'AUTOCOMMIT' or (
        statement is not None and not write_detection.writes(statement)
    ):
        return False
    executed = execution.cursor.rowcount != -1
    return busy or _was_sent(context.original_exception, executed)


def _was_sent(error: BaseException, executed: bool) -> bool:
    """Return whether the driver may have sent the statement.

    It has not sent a value for which it raised an error itself.
    """
    within, own = executed, False
    step = error.__traceback__
    while step is not None:
        code, module = step.tb_frame.f_code, step.tb_frame.f_globals
        within = within or code.co_name.startswith('do_execute')
        own = str(module.get('__name__', '')).startswith(_DRIVERS)
        step = step.tb_next
    return within and not (own and isinstance(error, _UNSENDABLE))


def cancel(dbapi_connection: DBAPIConnection, *_: object) -> None:
    """Let the server stop the statement, when a connection is invalidated."""
    wire.cancel(dbapi_connection)


def let_the_first_error_win(engine: sa.Engine) -> None:
    """Guard each ROLLBACK, and each ROLLBACK TO SAVEPOINT, of an engine.

    :param engine: an engine on a server
    """
    dialect = engine.dialect
    event.listen(engine, 'rollback', _remember)
    for name in ('do_rollback', 'do_rollback_to_savepoint'):
        setattr(dialect, name, _guarded(dialect, getattr(dialect, name)))


def _remember(connection: sa.Connection) -> None:
    # The dialect gets the driver's connection. If only that was closed, and
    # not the Connection invalidated, the Connection could not be used again.
    if not connection.invalidated:
        connection.info[_ROLLING_BACK] = weakref.ref(connection)


def _guarded(
    dialect: sa.Dialect, roll_back: Callable[..., None]
) -> Callable[..., None]:
    def call(
        connection: sa.Connection | sa.pool.PoolProxiedConnection, *args: str
    ) -> None:
        first = sys.exception()
        try:
            roll_back(connection, *args)
        except Exception as error:
            of_driver = isinstance(error, dialect.loaded_dbapi.Error)
            foreign = operation.is_foreign(error) and not of_driver
            if first is None or foreign:
                raise
            LOG.warning(
                'ROLLBACK failed, after %r; the connection is closed instead, '
                'which rolls back as well: %s',
                first,
                error,
            )
            _close(connection, error)

    return call


def _close(
    connection: sa.Connection | sa.pool.PoolProxiedConnection,
    error: Exception,
) -> None:
    # Looking at the info of a Connection that is invalidated would reconnect.
    if not isinstance(connection, sa.Connection):
        remembered = connection.info.pop(_ROLLING_BACK, None)
        owner = remembered and remembered()
        # Not an earlier Connection that gave it back and is still referenced:
        # the engine of Core sessions fires no events.
        if owner and not owner.closed and owner.connection is connection:
            connection = owner
    connection.invalidate(error)

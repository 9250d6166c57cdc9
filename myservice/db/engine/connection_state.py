"""The state of a connection's transaction, and the failures in it.

SQLAlchemy rolls back at every return to the pool, after a COMMIT too. Here a
connection that comes back with its transaction ended sends nothing. The
server's own status flags would not do: PyMySQL does not refresh them after a
SELECT, nor after an error.
"""

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.pool import PoolResetState

from myservice.db import operation
from myservice.db.engine import errors
from myservice.db.engine import interrupts
from myservice.db.engine import marks
from myservice.db.engine import purpose
from myservice.db.engine import wire

LOG = logging.getLogger(__name__)

# The list of failures that must be empty when COMMIT is sent.
_STANDING_AGAINST = 'myservice.standing_against'


def watch(engine: sa.Engine) -> None:
    """Record the state of each connection of an engine.

    :param engine: an engine whose connections have transactions
    """
    event.listen(engine, 'engine_connect', mark_ended)
    event.listen(engine, 'begin', mark_open)
    event.listen(engine, 'commit', mark_committing)
    event.listen(engine, 'rollback', mark_rolled_back)
    event.listen(engine, 'reset', _roll_back_if_open)
    _mark_committed(engine.dialect)


def mark_open(connection: sa.Connection) -> None:
    """Note that a transaction begins."""
    info = connection.info
    info[marks.STATE] = marks.OPEN
    # The lists of earlier sessions, which would collect errors for ever.
    info.pop(marks.FAILURES, None)


def collect_failures(
    connection: sa.Connection, failures: list[BaseException], commits: bool
) -> None:
    """Collect the errors of a connection in a list, until the next begin.

    :param connection: the connection
    :param failures: the list
    :param commits: whether the owner of the list commits, and only while it is
        empty
    """
    connection.info.setdefault(marks.FAILURES, []).append(failures)
    if commits:
        connection.info[_STANDING_AGAINST] = failures


def mark_committing(connection: sa.Connection) -> None:
    """Note that a COMMIT is sent.

    :raises TransactionDoomed: when a statement has failed
    """
    info = connection.info
    standing: Any = info.get(_STANDING_AGAINST)
    for failures in info.get(marks.FAILURES, ()):
        if failures is standing:
            for failure in failures:
                raise errors.doomed(failure) from failure
    info[marks.STATE] = marks.COMMITTING
    if connection.get_execution_options()[purpose.KEY] != 'snapshot':
        info[marks.COMMITTER] = call = operation.current()
        call.sent = True


def _mark_committed(dialect: Any) -> None:
    """Note that a COMMIT was answered; there is no event for that."""
    commit = dialect.do_commit

    def do_commit(connection: PoolProxiedConnection) -> None:
        commit(connection)
        info = connection.info
        info[marks.STATE] = marks.ENDED
        info.pop(marks.COMMITTER, None)

    dialect.do_commit = do_commit


def mark_rolled_back(connection: sa.Connection) -> None:
    """Note that a ROLLBACK is sent, so that nothing has taken effect."""
    mark_ended(connection)
    if not connection.invalidated and marks.COMMITTER in connection.info:
        connection.info.pop(marks.COMMITTER).sent = False


def mark_ended(connection: sa.Connection) -> None:
    """Note that no transaction is open."""
    # Looking at the info of an invalidated connection would reconnect.
    if not connection.invalidated:
        connection.info[marks.STATE] = marks.ENDED


def _roll_back_if_open(
    dbapi_connection: DBAPIConnection,
    record: ConnectionPoolEntry,
    state: PoolResetState,
) -> None:
    if state.terminate_only:
        return
    if wire.is_busy(dbapi_connection):
        # A ROLLBACK would wait for the answer, or take it for its own.
        LOG.warning('A connection came back busy, and is closed.')
        record.invalidate()
        return
    if record.info.get(marks.STATE) not in (
        marks.OPEN,
        marks.COMMITTING,
        marks.UNKNOWN,
    ):
        return
    # SQLAlchemy reports a reset also when a COMMIT was not sent because a
    # listener has raised.
    dbapi_connection.rollback()
    record.info[marks.STATE] = marks.ENDED


# For all engines, and at the front: listeners for all engines are called
# before listeners for one engine, and in this order. So the listeners of
# others, too, get the translated error.
@event.listens_for(sa.Engine, 'handle_error', insert=True)
def _handle_error(context: ExceptionContext) -> BaseException | None:
    engine = context.engine
    if engine is None or purpose.KEY not in engine.get_execution_options():
        return None
    return _translate_error(context)


def _translate_error(context: ExceptionContext) -> BaseException | None:
    error = errors.translate(context)
    connection = context.connection
    if not connection or connection.closed or connection.invalidated:
        return error
    if purpose.KEY not in connection.get_execution_options():
        # By this Connection, on the first connection of an engine, SQLAlchemy
        # asks the server what it is. It has no info, and is dropped in any
        # case.
        return error
    interrupts.drop_if_busy(context)
    # To SQLAlchemy, COMMIT and ROLLBACK are not statements.
    committing = (
        context.statement is None
        and connection.info.get(marks.STATE) == marks.COMMITTING
    )
    if marks.STATE in connection.info:
        connection.info[marks.STATE] = marks.OPEN
    is_ours = error is not None and errors.is_typed(error)
    for failures in connection.info.get(marks.FAILURES, []):
        failures.append(error if is_ours else context.original_exception)
    if committing and error is not None and errors.is_lost(error):
        return errors.commit_unknown(error)
    return error

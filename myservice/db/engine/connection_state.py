"""What state the transaction of a connection is in, and what has failed in it.

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
    """Keep the state of each connection of an engine.

    :param engine: one whose connections have transactions
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
    # Those of sessions before, which would collect errors for ever.
    info.pop(marks.FAILURES, None)


def collect_failures(
    connection: sa.Connection, failures: list[BaseException], commits: bool
) -> None:
    """Let a list have the errors of a connection until the next begin.

    :param connection: the connection
    :param failures: the list
    :param commits: whether whoever has the list commits, and only while it is
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
    # To look at the info of an invalidated connection would reconnect.
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
        # It would wait for the answer, or take it for its own.
        LOG.warning('A connection came back busy, and is closed.')
        record.invalidate()
        return
    if record.info.get(marks.STATE) not in (
        marks.OPEN,
        marks.COMMITTING,
        marks.UNKNOWN,
    ):
        return
    # SQLAlchemy says that it was reset also where a COMMIT was not sent,
    # because of what a listener has raised.
    dbapi_connection.rollback()
    record.info[marks.STATE] = marks.ENDED


# Of all engines, and at the front: listeners are called in this order, and
# those that others have for all engines come before those of one engine. So
# they, too, see what an error means.
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
        # By this one SQLAlchemy asks the server what it is, on the first one
        # of an engine. It has no info, and is dropped, whatever it meets.
        return error
    interrupts.drop_if_busy(context)
    # COMMIT and ROLLBACK are no statements to SQLAlchemy.
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

"""The wire: whether a connection waits for an answer, and how to cancel it.

A signal handler can raise in the middle of a statement, and an exception can
be raised into a thread. Then the answer is still to come, and the next user of
the connection would take it for theirs. So it matters whether a connection
waits for an answer. psycopg can tell; for PyMySQL this module adds it; SQLite
has no wire.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.interfaces import DBAPIModule

from myservice.db.engine import errors

T = TypeVar('T')

LOG = logging.getLogger(__name__)

# The methods of PyMySQL's connection that send a command and read the answer.
_COMMANDS = (
    'autocommit',
    'begin',
    'commit',
    'connect',
    'next_result',
    'ping',
    'rollback',
    'select_db',
    'show_warnings',
)

# A healthy server takes milliseconds; another one must not delay the caller
# that was interrupted.
_CANCEL_TIMEOUT = 2.0

# Every server takes this many bytes: a MiB was the default of old ones.
_SHORT = 2**20 - 1

# The server's number for a statement that is longer than it takes.
_TOO_LONG = 1153

# libpq's PQTRANS_ACTIVE.
_ACTIVE = 1


def pymysql_connection(dialect: sa.Dialect) -> type[Any]:
    """Return PyMySQL's connection class, extended to tell whether it waits.

    :param dialect: SQLAlchemy's dialect for PyMySQL
    """
    dbapi = dialect.loaded_dbapi

    def waiting(command: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(command)
        def call(self: DBAPIConnection, *args: object, **kwargs: object) -> T:
            self.waits = True
            try:
                answer = command(self, *args, **kwargs)
            except dbapi.Error as error:
                taken = errors.taken_by_driver(error, dialect)
                if taken is None:
                    self.waits = False
                    raise
            else:
                self.waits = False
                return answer
            raise taken

        return call

    query = _query(waiting(dbapi.Connection.query), dbapi)

    def close(self: DBAPIConnection) -> None:
        # Its cursors would go on to read the rows that are left.
        if self._result is not None:
            self._result.unbuffered_active = False
        dbapi.Connection.close(self)

    commands: dict[str, object] = {
        name: waiting(getattr(dbapi.Connection, name)) for name in _COMMANDS
    }
    commands |= {'query': query, 'close': close}
    commands |= {'waits': False, 'longest': 0}
    return type('Connection', (dbapi.Connection,), commands)


def _query(send: Callable[..., T], dbapi: DBAPIModule) -> Callable[..., T]:
    def query(
        self: DBAPIConnection, sql: str | bytes, unbuffered: bool = False
    ) -> T:
        # A statement that cannot be encoded is not sent.
        if isinstance(sql, str):
            sql = sql.encode(self.encoding)
        if len(sql) > _SHORT:
            refuse_longer(self, len(sql))
        return send(self, sql, unbuffered)

    def refuse_longer(self: DBAPIConnection, length: int) -> None:
        # The server would close the connection in the middle of it, which
        # looks like a lost connection.
        if not self.longest:
            send(self, b'SELECT @@max_allowed_packet')
            ((self.longest,),) = self._result.rows
        # The command is a byte by itself.
        if length >= self.longest:
            raise dbapi.OperationalError(
                _TOO_LONG,
                f'the statement has {length} bytes, and max_allowed_packet '
                f'of the server is {self.longest}: it was not sent. Pass '
                f'shorter lists, or raise max_allowed_packet',
            )

    return query


def is_busy(connection: DBAPIConnection) -> bool:
    """Return whether a connection waits for an answer, or for rows of it.

    :param connection: the driver's
    """
    driver = type(connection)
    if hasattr(driver, 'cancel_safe'):
        active = connection.pgconn.transaction_status == _ACTIVE
        return active or bool(connection.lock.locked())
    if not hasattr(driver, 'waits'):
        return False
    result = connection._result
    return bool(connection.waits or (result and result.unbuffered_active))


def cancel(connection: DBAPIConnection) -> None:
    """Let the server stop a connection's statement, if it can be told.

    Otherwise the server would finish the statement, and hold its locks, before
    it notices that the client is gone. MariaDB could only be told by another
    connection and by a number, which behind a balancer may belong to another
    client.

    :param connection: the driver's, about to be closed
    """
    if not hasattr(type(connection), 'cancel_safe') or not is_busy(connection):
        return
    try:
        connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
    except Exception as error:
        LOG.warning('A statement could not be cancelled: %s', error)

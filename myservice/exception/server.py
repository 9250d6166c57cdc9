"""Errors of servers, schemas, migrations and connection pools."""

from myservice.exception.base import MyServiceError
from myservice.exception.base import NotFound


class UnknownRevision(NotFound):
    """There is no migration of this name."""

    message = 'There is no revision {revision} of the database schema.'
    revision: str


class ServerError(MyServiceError):
    """The server could not execute a statement; nothing was done."""

    message = 'The database server failed: {reason}'
    reason: str


class ServerBusy(ServerError):
    """The server accepts no more connections at the moment."""

    message = 'The database server accepts no more connections: {reason}'


class ServerReadOnly(ServerError):
    """The server is read-only at the moment, for example after a failover."""

    message = 'The database server is read-only: {reason}'


class DatabaseReadOnly(ServerError):
    """A SQLite file is read-only; a retry does not help."""

    message = 'The database is read-only: {reason}'


class StatementInterrupted(ServerError):
    """A statement was killed, or ran into the server's time limit."""

    message = 'The database server interrupted a statement: {reason}'


class NoSpace(ServerError):
    """The server has run out of disk space or memory."""

    message = 'The database server has no space left: {reason}'


class SchemaOutdated(ServerError):
    """The tables are missing, or are not those of this release."""

    message = (
        'The tables are at revision {revision}, but this release needs '
        '{head}: run myservice-manage db sync.'
    )
    revision: str
    head: str


class NoTables(SchemaOutdated):
    """There are no tables yet."""

    message = 'There are no tables: run myservice-manage db sync.'


class EncodingRefused(ServerError):
    """A PostgreSQL database cannot store all of Unicode."""

    message = (
        'The encoding of database {database} is {encoding}, which cannot '
        "store all text. Create the database with ENCODING 'UTF8'."
    )
    database: str
    encoding: str


class MigrationLocked(ServerError):
    """Another migration of this database did not end in time."""

    message = (
        'Another migration of database {database} is running: its lock {lock} '
        'was not free within {seconds} seconds. Connection {holder} of the '
        'server holds the lock.'
    )
    database: str
    lock: str
    seconds: int
    holder: int | None


class MigrationFailed(ServerError):
    """A migration stopped. The next one continues from there."""

    message = 'The migration failed: {reason}'


class ThreadFailed(MyServiceError):
    """A thread of an agent failed, so the process ends."""

    message = 'The thread "{thread}" failed, so the process ends: {reason}'
    thread: str
    reason: str


class PoolTimeout(MyServiceError):
    """No connection of the pool became free in time."""

    message = (
        'No database connection became free within {timeout} seconds: all '
        '{held} are in use. Look for transactions that stay open, or raise '
        '[database] max_pool_size or max_overflow.'
    )
    timeout: float
    held: int

"""Migrations: alembic's commands on the engine of the configuration."""

import argparse
import contextlib
import hashlib
import io
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import command
from alembic import config as alembic_config
from alembic import script
from alembic import util
from alembic.runtime import migration

from myservice import exception
from myservice.db.engine import engines
from myservice.db.engine import errors
from myservice.db.engine import sqlite_url
from myservice.db.migrations import comparison
from myservice.db.sql.dialects import ABILITIES
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.sql.dialects import is_server

# Any number will do, as long as nobody else uses it in the database.
_POSTGRESQL_LOCK = 7305808867208692841
# Locks of MariaDB and MySQL are of the whole server: the name of the database
# is added.
_MYSQL_LOCK = 'myservice.'
_MYSQL_LOCK_LENGTH = 64
_MYSQL_LOCK_TIMEOUT = 3600


def sync(revision: str = 'head') -> None:
    """Bring the schema up to a revision; many callers may do so at once.

    A schema that is beyond the revision stays as it is. If an earlier
    migration was cut off, this one continues it.

    :param revision: the id of a revision, or 'head' for the newest
    :raises UnknownRevision: when there is no such revision, or the schema is
        at one that this release does not have
    :raises EncodingRefused: when the database cannot hold all of Unicode
    :raises MigrationLocked: when another migration did not end in time
    :raises MigrationFailed: when alembic refuses to go on
    """
    _check_revision(revision)
    _make_directory()
    with _typed_errors(), _locked_connection() as connection:
        _check_encoding(connection)
        # A newer release may have been here.
        _check_revision(_current(connection) or 'base')
        command.upgrade(_config(connection), revision)


def current() -> str | None:
    """Return the revision of the schema; None before the first."""
    with _reading_connection() as connection:
        return None if connection is None else _current(connection)


def head() -> str | None:
    """Return the newest revision of this release."""
    with _typed_errors():
        return _scripts().get_current_head()


def check() -> str | None:
    """Say how the schema differs from the models; nothing is written.

    :returns: the differences, or None where there is none
    """
    with _reading_connection() as connection:
        try:
            checked = _check_up_to_date(connection)
        except (
            exception.SchemaOutdated,
            exception.EncodingRefused,
            exception.UnknownRevision,
        ) as error:
            return str(error)
        return '; '.join(comparison.differences(checked)) or None


def revision(message: str) -> str:
    """Write a new migration script, from the changes of the models.

    :param message: what the migration does, in a few words
    :returns: the path of the script
    :raises SchemaOutdated: when the schema is not at the newest revision
    """
    with _typed_errors(), _reading_connection() as connection:
        written = command.revision(
            _config(_check_up_to_date(connection)),
            message=message,
            autogenerate=True,
        )
    if not isinstance(written, script.Script):
        raise TypeError(f'one script expected, not {written!r}')
    return written.path


def _config(connection: sa.Connection | None = None) -> alembic_config.Config:
    # Alembic writes to standard output, which belongs to the program.
    config = alembic_config.Config(
        stdout=io.StringIO(), cmd_opts=argparse.Namespace(quiet=True)
    )
    config.set_main_option('script_location', 'myservice.db:migrations')
    config.set_main_option('path_separator', 'os')
    config.attributes['connection'] = connection
    return config


def _scripts() -> script.ScriptDirectory:
    return script.ScriptDirectory.from_config(_config())


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except util.CommandError as error:
        raise exception.MigrationFailed(
            reason=errors.first_line(error)
        ) from error


def _check_revision(revision: str) -> None:
    if revision in ('base', 'head'):
        head()
        return
    try:
        known = revision and _scripts().get_revision(revision)
    except util.CommandError as error:
        raise exception.UnknownRevision(revision=revision) from error
    if not known:
        raise exception.UnknownRevision(revision=revision)


def _check_up_to_date(connection: sa.Connection | None) -> sa.Connection:
    if connection is not None:
        _check_encoding(connection)
    if connection is None or not comparison.has_tables(connection):
        raise exception.NoTables(revision='base', head=head())
    found = _current(connection) or 'base'
    if found != head():
        _check_revision(found)
        raise exception.SchemaOutdated(revision=found, head=head())
    return connection


def _check_encoding(connection: sa.Connection) -> None:
    if not ABILITIES[backend_of(connection.dialect)].encodes_by_database:
        return
    encoding = connection.scalar(
        sa.select(sa.func.current_setting('server_encoding'))
    )
    if encoding != 'UTF8':
        raise exception.EncodingRefused(
            database=connection.engine.url.database, encoding=encoding
        )


def _current(connection: sa.Connection) -> str | None:
    return migration.MigrationContext.configure(
        connection
    ).get_current_revision()


def _sqlite_file() -> pathlib.Path | None:
    """Return the path of the database's file, if it has one."""
    url = engines.get_engines().url
    if is_server(url):
        return None
    file = sqlite_url.file_of(url)
    return None if file is None else pathlib.Path(file)


def _make_directory() -> None:
    file = _sqlite_file()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _reading_connection() -> Iterator[sa.Connection | None]:
    """Give a connection that cannot write; None without a SQLite file.

    SQLite creates the file when it connects.
    """
    file = _sqlite_file()
    if file is not None and not file.exists():
        # An option that is wrong is reported all the same.
        dict(engines.get_engines().conf.database)
        yield None
        return
    with engines.get_engines().get_engine('snapshot').begin() as connection:
        yield connection


@contextlib.contextmanager
def _locked_connection() -> Iterator[sa.Connection]:
    """Give a connection on which only one migration runs at a time."""
    with _patient_engine() as patient, patient.begin() as connection:
        _LOCKS[backend_of(connection.dialect)](connection)
        yield connection


@contextlib.contextmanager
def _patient_engine() -> Iterator[sa.Engine]:
    """Give an engine that waits for an answer without a limit.

    At the end its connections are closed, which releases their locks. In
    SQLite, which sends no answers over a network, it is the shared engine.
    """
    shared = engines.get_engines()
    if not is_server(shared.url):
        yield shared.get_engine('transaction')
        return
    own = engines.Engines(shared.conf)
    try:
        yield own.get_engine('migration')
    finally:
        own.dispose()


def _lock_sqlite(connection: sa.Connection) -> None:
    """Do nothing: the transaction, which is IMMEDIATE, is the lock itself."""


def _lock_postgresql(connection: sa.Connection) -> None:
    """Take a lock until the end of the transaction, which the DDL is in."""
    lock = sa.func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)
    connection.execute(sa.select(lock))


def _lock_mysql(connection: sa.Connection) -> None:
    """Take a lock of the connection, as DDL commits by itself here."""
    database = connection.scalar(sa.select(sa.func.database()))
    name = f'{_MYSQL_LOCK}{database}'
    if len(name) > _MYSQL_LOCK_LENGTH:
        name = hashlib.sha256(name.encode()).hexdigest()
    taken = sa.func.get_lock(name, _MYSQL_LOCK_TIMEOUT)
    # 0 when it was not free in time, None when the wait was killed.
    if connection.scalar(sa.select(taken)) != 1:
        raise exception.MigrationLocked(
            database=database,
            lock=name,
            seconds=_MYSQL_LOCK_TIMEOUT,
            holder=connection.scalar(sa.select(sa.func.is_used_lock(name))),
        )


_LOCKS: dict[Backend, Callable[[sa.Connection], None]] = {
    'sqlite': _lock_sqlite,
    'mysql': _lock_mysql,
    'postgresql': _lock_postgresql,
}

"""Migrations: alembic's commands on the engine of the configuration."""

import argparse
import contextlib
import io
import os
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import command
from alembic import config as alembic_config
from alembic import script
from alembic import util
from alembic.runtime import migration

from myservice import exception
from myservice.db import dialects
from myservice.db import engine

# Any number will do, as long as it is ours alone in the database.
_POSTGRESQL_LOCK = 7305808867208692841
_MYSQL_LOCK = 'myservice.db.migration'
_MYSQL_LOCK_TIMEOUT = 3600


def sync(revision: str = 'head') -> None:
    """Bring the schema up to a revision; any number of callers may at once.

    A schema that is beyond the revision stays as it is.

    :param revision: the id of a revision, or 'head' for the newest
    :raises UnknownRevision: when there is no such revision, or the schema is
        at one that this release does not know
    """
    _make_directory()
    _check_revision(revision)
    with _locked_connection() as connection:
        # A newer release may have been here.
        _check_revision(_current(connection) or 'base')
        command.upgrade(_config(connection), revision)


def current() -> str | None:
    """Return the revision that the schema is at; None before the first."""
    with engine.get_engines().get_engine('transaction').begin() as connection:
        return _current(connection)


def head() -> str | None:
    """Return the newest revision of this release."""
    return _scripts().get_current_head()


def check() -> str | None:
    """Say in what the schema differs from the models.

    :returns: the differences, or None where there is none
    """
    with engine.get_engines().get_engine('transaction').begin() as connection:
        try:
            command.check(_config(connection))
        except util.CommandError as error:
            return str(error)
    return None


def revision(message: str) -> str:
    """Write a new migration script, from what the models are ahead by.

    :param message: what it does, in a few words
    :returns: the path of the script
    """
    with engine.get_engines().get_engine('transaction').begin() as connection:
        written = command.revision(
            _config(connection), message=message, autogenerate=True
        )
    if not isinstance(written, script.Script):
        raise TypeError(f'one script expected, not {written!r}')
    return written.path


def _config(connection: sa.Connection | None = None) -> alembic_config.Config:
    # Alembic talks to standard output, which belongs to the program.
    config = alembic_config.Config(
        stdout=io.StringIO(), cmd_opts=argparse.Namespace(quiet=True)
    )
    config.set_main_option('script_location', 'myservice.db:migrations')
    config.set_main_option('path_separator', 'os')
    config.attributes['connection'] = connection
    return config


def _scripts() -> script.ScriptDirectory:
    return script.ScriptDirectory.from_config(_config())


def _check_revision(revision: str) -> None:
    if revision == 'base':
        return
    try:
        known = revision and _scripts().get_revision(revision)
    except util.CommandError as error:
        raise exception.UnknownRevision(revision=revision) from error
    if not known:
        raise exception.UnknownRevision(revision=revision)


def _current(connection: sa.Connection) -> str | None:
    return migration.MigrationContext.configure(
        connection
    ).get_current_revision()


def _make_directory() -> None:
    database = engine.get_engines().url
    if dialects.backend_of(database) == 'sqlite' and database.database:
        directory = os.path.dirname(os.path.abspath(database.database))
        os.makedirs(directory, exist_ok=True)


@contextlib.contextmanager
def _locked_connection() -> Iterator[sa.Connection]:
    """Give a connection on which only one migration runs at a time.

    In SQLite the transaction, which is IMMEDIATE, is the lock itself.
    """
    with engine.get_engines().get_engine('transaction').begin() as connection:
        backend = dialects.backend_of(connection.dialect)
        if backend == 'postgresql':
            # Released by the end of the transaction, which the DDL is in.
            connection.execute(
                sa.select(sa.func.pg_advisory_xact_lock(_POSTGRESQL_LOCK))
            )
            yield connection
        elif backend == 'mysql':
            # DDL commits by itself here; this lock is the connection's.
            lock = sa.func.get_lock(_MYSQL_LOCK, _MYSQL_LOCK_TIMEOUT)
            connection.execute(sa.select(lock)).close()
            try:
                yield connection
            finally:
                connection.execute(
                    sa.select(sa.func.release_lock(_MYSQL_LOCK))
                )
        else:
            yield connection

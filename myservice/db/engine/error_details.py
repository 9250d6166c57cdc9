"""The details of a driver's error: its table, columns, constraint.

PostgreSQL sends most of these as separate fields. The other databases have
them only in the text. A server writes it in its configured language, so names
are found by quotes and positions, never by words. Only SQLite has a single
language.
"""

import dataclasses
import re
from collections.abc import Callable

from oslo_db import exception as db_exception
from sqlalchemy.engine.interfaces import DBAPIModule

Code = int | str | None

_MYSQL_QUOTED = re.compile(r"(?<![A-Za-z])'(.+?)'(?![A-Za-z])|`(.+?)`")
# Languages have different quotes: "x", »x«, « x », „x“.
_POSTGRESQL_QUOTED = re.compile('["»„«“](.+?)["«»“”]')
# "Duplicate entry 'value' for key 'key'": the value comes first in all of
# them, and may have quotes in it.
_MYSQL_DUPLICATE = re.compile(r"'(.*)'[^']*'([^']*)'[^']*$", re.DOTALL)
_MYSQL_REFERENCE = re.compile(
    r'`.+`\.`(?P<table>.+)`, CONSTRAINT `(?P<constraint>.+)` FOREIGN KEY '
    r'\(`(?P<key>.+)`\) REFERENCES `(?P<key_table>.+)` \('
)
_POSTGRESQL_KEY = re.compile(r'\((.*?)\)=\((.*)\)', re.DOTALL)
_OF_CONSTRAINT = re.compile(
    r'\bTABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>\S+)\s.*?'
    r'\b(?:DROP|ALTER|VALIDATE|RENAME)\s+'
    r'(?:CONSTRAINT|FOREIGN\s+KEY|KEY|INDEX|CHECK)\s+'
    r'(?:IF\s+EXISTS\s+)?(?P<constraint>[^\s,;]+)',
    re.IGNORECASE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class DriverError:
    """An error that a driver has raised.

    :param raised: the error that it has raised
    :param wrapped: SQLAlchemy's error for it
    :param code: the number of the error in its backend
    :param statement: the SQL that was sent; empty for COMMIT and a connection
    :param only_reads: whether it was sent in a read-only transaction
    """

    raised: DBAPIModule.Error
    wrapped: Exception
    code: Code
    statement: str
    only_reads: bool = False

    @property
    def text(self) -> str:
        """The text of the server, or of the driver."""
        return str(self.raised.args[-1]) if self.raised.args else ''


def made(kind: Callable[..., Exception], *arguments: object) -> Exception:
    """Return an error of oslo.db, whose classes have no types.

    :param kind: its class
    :param arguments: the arguments of the class
    """
    return kind(*arguments)


def mysql_duplicate(error: DriverError) -> Exception:
    """Return the error for a key that is there already."""
    found = _MYSQL_DUPLICATE.search(error.text)
    value, key = found.groups() if found else (None, None)
    columns = _columns_in_name(key) if key else []
    return made(db_exception.DBDuplicateEntry, columns, error.wrapped, value)


def nameless_duplicate(error: DriverError) -> Exception:
    """Return the error for a key that the server does not name."""
    return made(db_exception.DBDuplicateEntry, None, error.wrapped)


def postgresql_duplicate(error: DriverError) -> Exception:
    """Return the error for a key that is there already."""
    fields = error.raised.diag
    found = _POSTGRESQL_KEY.search(fields.message_detail or '')
    value = None
    columns = _columns_in_name(fields.constraint_name or '')
    if found:
        value = found[2]
        columns = [column.strip('"') for column in found[1].split(', ')]
    return made(db_exception.DBDuplicateEntry, columns, error.wrapped, value)


def sqlite_duplicate(error: DriverError) -> Exception:
    """Return the error for a key that is there already."""
    columns = [
        column.rpartition('.')[2]
        for column in _after_colon(error).split(', ')
        if column
    ]
    return made(db_exception.DBDuplicateEntry, columns, error.wrapped)


def mysql_reference(error: DriverError) -> Exception:
    """Return the error for a foreign key."""
    found = _MYSQL_REFERENCE.search(error.text)
    names = found.groups() if found else [None] * 4
    return made(db_exception.DBReferenceError, *names, error.wrapped)


def postgresql_reference(error: DriverError) -> Exception:
    """Return the error for a foreign key."""
    fields = error.raised.diag
    referring, constraint = fields.table_name, fields.constraint_name
    detail = fields.message_detail or ''
    found = _POSTGRESQL_KEY.search(detail)
    key = found[1] if found else None
    others = _postgresql_names(_POSTGRESQL_KEY.sub('', detail))
    # The table of the statement: the referring one, or, when a referred row is
    # deleted, the one that is referred to.
    named = _postgresql_names(fields.message_primary or '')
    tables = [name for name in named if name not in (referring, constraint)]
    table = tables[0] if tables else referring
    key_table = others[-1] if others else None
    return made(
        db_exception.DBReferenceError,
        table,
        constraint,
        key,
        key_table,
        error.wrapped,
    )


def sqlite_reference(error: DriverError) -> Exception:
    """Return the error for a foreign key; SQLite does not say which."""
    return made(db_exception.DBReferenceError, *[None] * 4, error.wrapped)


def mysql_check(error: DriverError) -> Exception:
    """Return the error for a CHECK; MariaDB also names the table."""
    names = _mysql_names(error.text)
    table = names[-1] if len(names) > 1 else None
    name = names[0] if names else None
    return made(db_exception.DBConstraintError, table, name, error.wrapped)


def postgresql_check(error: DriverError) -> Exception:
    """Return the error for a constraint that the server names."""
    fields = error.raised.diag
    return made(
        db_exception.DBConstraintError,
        fields.table_name,
        fields.constraint_name,
        error.wrapped,
    )


def sqlite_check(error: DriverError) -> Exception:
    """Return the error for a CHECK."""
    return made(
        db_exception.DBConstraintError,
        None,
        _after_colon(error),
        error.wrapped,
    )


def nameless_constraint(error: DriverError) -> Exception:
    """Return the error for a constraint that the server does not name."""
    return made(db_exception.DBConstraintError, None, None, error.wrapped)


def sqlite_null(error: DriverError) -> Exception:
    """Return the error for a NULL that is not allowed."""
    table = _after_colon(error).rpartition('.')[0]
    return made(db_exception.DBConstraintError, table, None, error.wrapped)


def mysql_table(error: DriverError) -> Exception:
    """Return the error for a table that is not there."""
    return _no_table(_mysql_names(error.text), error)


def postgresql_table(error: DriverError) -> Exception:
    """Return the error for a table that is not there."""
    text = error.raised.diag.message_primary or ''
    return _no_table(_postgresql_names(text), error)


def sqlite_table(error: DriverError) -> Exception:
    """Return the error for a table that is not there."""
    return _no_table([_after_colon(error)], error)


def mysql_database(error: DriverError) -> Exception:
    """Return the error for a database that is not there."""
    return _no_database(_mysql_names(error.text), error)


def postgresql_database(error: DriverError) -> Exception:
    """Return the error for a database that is not there."""
    # Only a connection that was refused has a pgconn.
    if error.raised.pgconn is not None:
        return _no_database([error.raised.pgconn.db.decode()], error)
    text = error.raised.diag.message_primary or ''
    return _no_database(_postgresql_names(text), error)


def sqlite_database(error: DriverError) -> Exception:
    """Return the error for a file that cannot be opened."""
    return _no_database([], error)


def constraint(error: DriverError) -> Exception | None:
    """Return the error for a constraint that is not there.

    :returns: None when something else does not exist; servers have one number
        for many things
    """
    found = _OF_CONSTRAINT.search(error.statement)
    if found is None:
        return None
    table, name = (name.strip('"`') for name in found.groups())
    return made(
        db_exception.DBNonExistentConstraint, table, name, error.wrapped
    )


def _no_table(names: list[str], error: DriverError) -> Exception:
    table = names[0].rpartition('.')[2] if names else None
    return made(db_exception.DBNonExistentTable, table, error.wrapped)


def _no_database(names: list[str], error: DriverError) -> Exception:
    database = names[-1] if names else None
    return made(db_exception.DBNonExistentDatabase, database, error.wrapped)


def _mysql_names(text: str) -> list[str]:
    return [quoted or back for quoted, back in _MYSQL_QUOTED.findall(text)]


def _postgresql_names(text: str) -> list[str]:
    return [name.strip() for name in _POSTGRESQL_QUOTED.findall(text)]


def _after_colon(error: DriverError) -> str:
    return error.text.partition(': ')[2]


def _columns_in_name(name: str) -> list[str]:
    # The convention of oslo.db: uniq_<table>0<column>0<column>.
    table, *columns = name.split('0')
    return columns if columns and 'uniq_' in table else [name]

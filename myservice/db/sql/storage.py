"""How MariaDB and MySQL store our tables, whatever the server's defaults are.

The defaults may be MyISAM or Aria, which have no transactions, a row format of
InnoDB in which our indexes do not fit, or a character set without most of
Unicode. So each CREATE TABLE names engine, row format and character set,
whether a migration or ``create_all()`` sends it.
"""

import itertools
from collections.abc import Iterable

import sqlalchemy as sa

from myservice.db.sql import types
from myservice.db.sql.dialects import NAMES
from myservice.db.sql.dialects import is_of

_ENGINE = 'InnoDB'
_ROW_FORMAT = 'DYNAMIC'

_TABLES = sa.text(
    'SELECT table_name, engine, row_format FROM information_schema.tables '
    'WHERE table_schema = DATABASE() AND table_name IN :names'
).bindparams(sa.bindparam('names', expanding=True))


def say(table: sa.Table, dialect: sa.Dialect) -> None:
    """Set in the CREATE TABLE of a table how it is stored.

    :param table: the table; it stays as it is for other databases
    :param dialect: the dialect of the database that the table is created in
    """
    if is_of(dialect, 'mysql'):
        options = {
            'engine': _ENGINE,
            'row_format': _ROW_FORMAT,
            'charset': 'utf8mb4',
            'collate': types.exact_collation(dialect),
        }
        for prefix, (name, value) in itertools.product(
            NAMES['mysql'], options.items()
        ):
            table.kwargs[f'{prefix}_{name}'] = value


def say_all(
    _: sa.MetaData,
    connection: sa.Connection,
    *,
    tables: Iterable[sa.Table],
    **__: object,
) -> None:
    """Do so for all tables of a metadata; listens to before_create."""
    for table in tables:
        say(table, connection.dialect)


def conversions(
    connection: sa.Connection, names: Iterable[str]
) -> dict[str, str]:
    """Return statements that convert tables which are stored in another way.

    :param connection: a connection to their database
    :param names: the names of the tables; those that do not exist are left out
    :returns: name to the ALTER TABLE, which writes the whole table anew
    """
    if not is_of(connection.dialect, 'mysql'):
        return {}
    quote = connection.dialect.identifier_preparer.quote
    return {
        name: f'ALTER TABLE {quote(name)} ENGINE = {_ENGINE} '
        f'ROW_FORMAT = {_ROW_FORMAT}'
        for name, engine, row_format in connection.execute(
            _TABLES, {'names': list(names)}
        )
        if (engine, str(row_format).upper()) != (_ENGINE, _ROW_FORMAT)
    }

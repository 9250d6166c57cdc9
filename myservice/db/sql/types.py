"""Column types that mean the same on every server.

Migrations use them too, so the meaning of a type must not change.
"""

import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from myservice.db.sql.dialects import is_of


def exact_collation(dialect: sa.Dialect) -> str | None:
    """Return the collation that compares code by code.

    :param dialect: the dialect of the database
    :returns: its name; None where it is the default, as in SQLite
    """
    if is_of(dialect, 'mysql'):
        is_mariadb = getattr(dialect, 'is_mariadb', False)
        return 'utf8mb4_nopad_bin' if is_mariadb else 'utf8mb4_0900_bin'
    return 'C' if is_of(dialect, 'postgresql') else None


class ExactString(sa.types.TypeDecorator[str]):
    """Text that identifies something: compared and sorted code by code.

    With the servers' default collations 'h1' equals 'H1' (MySQL, MariaDB) or
    'h1 ' (utf8mb4_bin pads with blanks), or text is sorted by language
    (PostgreSQL), differently on each server.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    @property
    def python_type(self) -> type[str]:
        return str

    def load_dialect_impl(
        self, dialect: sa.Dialect
    ) -> sa.types.TypeEngine[str]:
        collation = exact_collation(dialect)
        if is_of(dialect, 'mysql'):
            return mysql.VARCHAR(
                self.length, charset='utf8mb4', collation=collation
            )
        return sa.String(self.length, collation=collation)


class Time(sa.types.TypeDecorator[datetime.datetime]):
    """Naive UTC with microseconds; MariaDB's own default is whole seconds."""

    impl = sa.DateTime
    cache_ok = True

    @property
    def python_type(self) -> type[datetime.datetime]:
        return datetime.datetime

    def load_dialect_impl(
        self, dialect: sa.Dialect
    ) -> sa.types.TypeEngine[datetime.datetime]:
        if is_of(dialect, 'mysql'):
            return mysql.DATETIME(fsp=6)
        return sa.DateTime()

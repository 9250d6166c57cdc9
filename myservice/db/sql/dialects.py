"""Which database it is, what it can do, and the SQL that differs.

There are several ways to write the URL of one database. ``parse_url`` turns
them into one, so the listeners to our engines, oslo.db's included, see one
name. An engine of the caller's own may still have the dialect ``mariadb``: all
other code asks ``backend_of``, and never compares names.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import NamedTuple
from typing import Protocol
from typing import Self
from typing import TypeVar
from typing import TypeVarTuple
from typing import get_args

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from myservice import exception

Ts = TypeVarTuple('Ts')

# MariaDB and MySQL are one: they differ less than their versions do.
Backend = Literal['sqlite', 'mysql', 'postgresql']

#: backend to the names of its dialects, for @compiles, hints and prefixes
NAMES: dict[Backend, tuple[str, ...]] = {
    'sqlite': ('sqlite',),
    'mysql': ('mysql', 'mariadb'),
    'postgresql': ('postgresql',),
}
_BACKENDS = {name: each for each, names in NAMES.items() for name in names}

# How a URL may begin, and how we write it. If it names no driver, SQLAlchemy
# would take one that we do not support.
_DRIVERS = {
    'sqlite': 'sqlite',
    'sqlite+pysqlite': 'sqlite',
    'mysql': 'mysql+pymysql',
    'mysql+pymysql': 'mysql+pymysql',
    'mariadb': 'mysql+pymysql',
    'mariadb+pymysql': 'mysql+pymysql',
    'postgresql': 'postgresql+psycopg',
    'postgresql+psycopg': 'postgresql+psycopg',
}

_UNREADABLE = (
    'where its user, password and host end cannot be told; in a user or a '
    'password, write %40 for @, %2F for /, %3F for ?, %3A for : and %25 for %'
)

_SHAPE = (
    'sqlite:///FILE, mysql+pymysql://USER:PASSWORD@HOST/DATABASE (or '
    'mariadb+pymysql) and postgresql+psycopg://USER:PASSWORD@HOST/DATABASE'
)


def backend_of(what: sa.Dialect | type[sa.Dialect] | sa.URL) -> Backend:
    """Return which database it is.

    :param what: the dialect of an engine or connection, or a URL
    :raises InvalidInput: when the database is not supported
    """
    name = what.get_backend_name() if isinstance(what, sa.URL) else what.name
    try:
        return _BACKENDS[name]
    except KeyError:
        raise exception.InvalidInput(
            field='dialect',
            reason=f'{name} is none of {", ".join(get_args(Backend))}',
        ) from None


class Abilities(NamedTuple):
    """How the databases differ, for code that must not compare their names.

    :param is_server: answers come over a wire, where they can be mixed up
    :param returns_updates: there is UPDATE … RETURNING
    :param commits_ddl: a statement that changes the schema commits
    :param encodes_by_database: the database decides which characters there are
    :param numbers_refusals: a connection that is refused has an error number
    :param nulls_are_largest: NULL comes last in an index
    :param ranges_by_row_values: ``(a, b) > (x, y)`` is a range of an index
    :param sorts_by_nulls: ORDER BY a column that is NULL in all rows sorts
        them, although an index has them in their order
    :param finds_index_by_order: the planner finds an index by the columns of
        ORDER BY alone
    :param sees_values: the planner estimates how many rows have a value
    """

    is_server: bool
    returns_updates: bool
    commits_ddl: bool
    encodes_by_database: bool
    numbers_refusals: bool
    nulls_are_largest: bool
    ranges_by_row_values: bool
    sorts_by_nulls: bool
    finds_index_by_order: bool
    sees_values: bool


ABILITIES: dict[Backend, Abilities] = {
    'sqlite': Abilities(
        is_server=False,
        returns_updates=True,
        commits_ddl=False,
        encodes_by_database=False,
        numbers_refusals=True,
        nulls_are_largest=False,
        ranges_by_row_values=True,
        sorts_by_nulls=False,
        finds_index_by_order=False,
        sees_values=False,
    ),
    'mysql': Abilities(
        is_server=True,
        returns_updates=False,
        commits_ddl=True,
        encodes_by_database=False,
        numbers_refusals=True,
        nulls_are_largest=False,
        ranges_by_row_values=False,
        sorts_by_nulls=True,
        finds_index_by_order=False,
        sees_values=True,
    ),
    'postgresql': Abilities(
        is_server=True,
        returns_updates=True,
        commits_ddl=False,
        encodes_by_database=True,
        numbers_refusals=False,
        nulls_are_largest=True,
        ranges_by_row_values=True,
        sorts_by_nulls=False,
        finds_index_by_order=True,
        sees_values=True,
    ),
}


def is_server(what: sa.Dialect | type[sa.Dialect] | sa.URL) -> bool:
    """Return whether it is a server, not a file or memory.

    :param what: the dialect of an engine or connection, or a URL
    """
    return ABILITIES[backend_of(what)].is_server


def is_of(dialect: sa.Dialect, backend: Backend) -> bool:
    """Return whether it is this database; a dialect only for display is none.

    :param dialect: of an engine, or SQLAlchemy's for statements as texts
    :param backend: the database
    """
    return dialect.name in NAMES[backend]


def parse_url(text: str, field: str) -> sa.URL:
    """Return the URL in a text, in our spelling; nothing is imported.

    No message shows a part of the text that may belong to the password.

    :param text: the URL of a database
    :param field: what to call the text in messages
    :raises InvalidInput: when it is not a URL, or names a database or driver
        that is not supported
    """
    url = _made(text)
    if url is None:
        reason = f'it is not the URL of a database; these are: {_SHAPE}'
        if text.count('@') > 1:
            reason = _UNREADABLE
        raise exception.InvalidInput(field=field, reason=reason)
    name = url.drivername.lower()
    if name not in _DRIVERS:
        raise exception.InvalidInput(field=field, reason=_why_not(name))
    url = url.set(drivername=_DRIVERS[name])
    misread = _misread(text, url)
    if misread is not None:
        raise exception.InvalidInput(field=field, reason=misread)
    return url


def _made(text: str) -> sa.URL | None:
    # The error here would quote a part of the password; it must not be in the
    # context of another error.
    try:
        return sa.make_url(text, keep_blank_values=True)
    except (exc.ArgumentError, ValueError):
        return None


def _misread(text: str, url: sa.URL) -> str | None:
    """Return why SQLAlchemy has misread a URL, if it has.

    It would take a part of such a password for the host, the database or a
    parameter, and show it in an error.
    """
    if backend_of(url) == 'sqlite':
        parts = (url.username, url.password, url.host, url.port)
        has_file_only = parts == (None, None, None, None)
        return None if has_file_only else 'write sqlite:///FILE, with no host'
    if url.username is None:
        text = text.partition('?')[0]
    if text.count('@') > (url.username is not None):
        return _UNREADABLE
    if url.port is not None and not 0 < url.port < 2**16:
        return 'its port is not one from 1 to 65535'
    return None


def _why_not(name: str) -> str:
    backend, _, driver = name.partition('+')
    if backend in _DRIVERS and ('async' in driver or driver.startswith('aio')):
        return (
            f'{name} is a driver for asyncio, and these functions are not '
            f'coroutines; write {_DRIVERS[backend]}, and call them from a '
            f'coroutine by asyncio.to_thread()'
        )
    return f'{name} is not supported; these are: {_SHAPE}'


class _Hinted(Protocol):
    """A statement that takes hints."""

    def with_hint(
        self, *, text: str, selectable: sa.Table, dialect_name: str
    ) -> Self: ...


H = TypeVar('H', bound=_Hinted)
T = TypeVar('T')


def force_index(statement: H, table: sa.Table, index: str) -> H:
    """Return a statement for which MariaDB uses an index, and no other.

    :param statement: a SELECT or UPDATE
    :param table: the Table that has the index
    :param index: its name
    """
    for name in NAMES['mysql']:
        statement = statement.with_hint(
            text=f'FORCE INDEX ({index})',
            selectable=table,
            dialect_name=name,
        )
    return statement


def upsert(
    backend: Backend,
    table: sa.Table,
    key: Sequence[str],
    values: Mapping[str, object],
    update: Mapping[str, object],
) -> sa.Insert:
    """Return the statement that inserts a row, or updates an existing one.

    :param backend: which database it is
    :param table: the Table
    :param key: the columns of the unique key that decides
    :param values: column to value, or parameter, for a new row
    :param update: the same, for an existing row; MariaDB changes them one by
        one, in this order
    """
    if backend == 'postgresql':
        return (
            postgresql.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    if backend == 'sqlite':
        return (
            sqlite.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    in_order = list(update.items())
    return (
        mysql.insert(table).values(**values).on_duplicate_key_update(in_order)
    )


def insert_if_new(
    backend: Backend, table: sa.Table
) -> postgresql.Insert | sqlite.Insert | mysql.Insert:
    """Return the INSERT that changes nothing where the row has a key in use.

    It waits for a transaction that inserts the same key.

    :param backend: which database it is
    :param table: the Table
    """
    if backend == 'postgresql':
        return postgresql.insert(table).on_conflict_do_nothing()
    if backend == 'sqlite':
        return sqlite.insert(table).on_conflict_do_nothing()
    # INSERT IGNORE would also ignore values that do not fit.
    key = next(iter(table.primary_key))
    return mysql.insert(table).on_duplicate_key_update({key.name: key})


def insert_lacking(
    backend: Backend, table: sa.Table, select: sa.Select[*tuple[Any, ...]]
) -> sa.Insert:
    """Return the INSERT of those rows of a SELECT that a table does not have.

    Its rowcount is 0 only if there are none; MariaDB counts those that are
    there, too.

    :param backend: which database it is
    :param table: the Table, all of whose columns are its primary key
    :param select: a SELECT of these columns
    """
    insert = insert_if_new(backend, table).from_select(table.c.keys(), select)
    # psycopg forgets the count of an INSERT as its cursor is closed.
    return insert.execution_options(preserve_rowcount=True)


class not_negative(FunctionElement[int]):
    """A number, or 0 where it is negative."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(not_negative)
def _greatest(
    element: not_negative, compiler: SQLCompiler, **kw: object
) -> str:
    return f'GREATEST({compiler.process(element.clauses, **kw)}, 0)'


@compiles(not_negative, *NAMES['sqlite'])
def _max(element: not_negative, compiler: SQLCompiler, **kw: object) -> str:
    return f'max({compiler.process(element.clauses, **kw)}, 0)'


def evaluated_once(
    backend: Backend, select: sa.Select[*tuple[Any, ...]], name: str
) -> sa.CTE | sa.Subquery:
    """Return a locking SELECT that an UPDATE can join.

    PostgreSQL may evaluate a subquery again for each row that it joins, and
    then leaves out rows that the UPDATE has already changed; it evaluates a
    CTE that locks once. MariaDB has no CTE in an UPDATE, but keeps the rows of
    a subquery.

    :param backend: which database it is
    :param select: the SELECT
    :param name: what to call its rows
    """
    return (
        select.cte(name) if backend == 'postgresql' else select.subquery(name)
    )


class position_of(FunctionElement[int]):
    """Where a text begins in a column, from 1; 0 where it does not.

    LIKE would need escapes, and ignores upper and lower case in SQLite.
    """

    type = sa.Integer()
    inherit_cache = True


@compiles(position_of)
def _instr(element: position_of, compiler: SQLCompiler, **kw: object) -> str:
    return f'instr({compiler.process(element.clauses, **kw)})'


@compiles(position_of, *NAMES['postgresql'])
def _strpos(element: position_of, compiler: SQLCompiler, **kw: object) -> str:
    return f'strpos({compiler.process(element.clauses, **kw)})'


def without_index(column: sa.ColumnElement[T]) -> sa.ColumnElement[T]:
    """Return a column for which SQLite uses no index.

    https://sqlite.org/optoverview.html, "Disqualifying WHERE clause terms".

    :param column: the column
    """
    return sa.UnaryExpression(
        column, operator=operators.custom_op('+'), type_=column.type
    )


def joined_in_order(
    backend: Backend, select: sa.Select[*Ts]
) -> sa.Select[*Ts]:
    """Return a SELECT whose tables are joined in the order of its text.

    :param backend: which database it is; only MariaDB has to be told
    :param select: the SELECT
    """
    return (
        select.prefix_with('STRAIGHT_JOIN') if backend == 'mysql' else select
    )

"""The database's clock: the one clock that decides all liveness.

A service stamps its heartbeat and a reader judges it with the same clock, so
neither the host of the service nor that of the reader can be wrong about it.
Times are naive UTC with fractions of a second, at the moment of the
statement. In SQLite, which is embedded, that clock is the machine's own.
"""

import datetime

from sqlalchemy import ColumnElement
from sqlalchemy import Float
from sqlalchemy import literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from myservice.db.sql import types
from myservice.db.sql.dialects import NAMES


class utcnow(FunctionElement[datetime.datetime]):
    """The time of the statement, as SQL."""

    type = types.Time()
    inherit_cache = True

    def __init__(self) -> None:
        super().__init__()


class seconds_ago(FunctionElement[datetime.datetime]):
    """The time some seconds before the statement, as SQL.

    :param seconds: a number, or an SQL expression that gives one
    """

    type = types.Time()
    inherit_cache = True

    def __init__(self, seconds: float | ColumnElement[float]) -> None:
        if not isinstance(seconds, ColumnElement):
            seconds = literal(seconds, Float())
        super().__init__(seconds)


def _seconds(element: seconds_ago, compiler: SQLCompiler, **kw: object) -> str:
    return compiler.process(element.clauses.clauses[0], **kw)


# For a person to read: a statement in a message has no dialect.
@compiles(utcnow)
def _utcnow(element: utcnow, compiler: SQLCompiler, **kw: object) -> str:
    return 'utcnow()'


@compiles(seconds_ago)
def _seconds_ago(
    element: seconds_ago, compiler: SQLCompiler, **kw: object
) -> str:
    return f'seconds_ago({_seconds(element, compiler, **kw)})'


@compiles(utcnow, *NAMES['mysql'])
def _utcnow_mysql(element: utcnow, compiler: SQLCompiler, **kw: object) -> str:
    return 'UTC_TIMESTAMP(6)'


@compiles(seconds_ago, *NAMES['mysql'])
def _seconds_ago_mysql(
    element: seconds_ago, compiler: SQLCompiler, **kw: object
) -> str:
    return (
        f'(UTC_TIMESTAMP(6) - INTERVAL {_seconds(element, compiler, **kw)} '
        f'SECOND)'
    )


# now() is the start of the transaction in PostgreSQL; a heartbeat at the end
# of a long transaction would be stamped too early.
@compiles(utcnow, *NAMES['postgresql'])
def _utcnow_postgresql(
    element: utcnow, compiler: SQLCompiler, **kw: object
) -> str:
    return "(statement_timestamp() AT TIME ZONE 'UTC')"


@compiles(seconds_ago, *NAMES['postgresql'])
def _seconds_ago_postgresql(
    element: seconds_ago, compiler: SQLCompiler, **kw: object
) -> str:
    return (
        f"((statement_timestamp() AT TIME ZONE 'UTC') - "
        f'make_interval(secs => {_seconds(element, compiler, **kw)}))'
    )


# SQLite keeps times as text: with six digits they compare, and read back, like
# those that SQLAlchemy writes.
@compiles(utcnow, *NAMES['sqlite'])
def _utcnow_sqlite(
    element: utcnow, compiler: SQLCompiler, **kw: object
) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(seconds_ago, *NAMES['sqlite'])
def _seconds_ago_sqlite(
    element: seconds_ago, compiler: SQLCompiler, **kw: object
) -> str:
    return (
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', "
        f"(-1.0 * {_seconds(element, compiler, **kw)}) || ' seconds')"
    )

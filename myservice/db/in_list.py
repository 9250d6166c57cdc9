"""Lists of any length in a statement: one of them, all of them, new rows.

A parameter for each value is what servers and drivers bound: PostgreSQL takes
65,535 in a statement, SQLite 32,766. So a list is *one* parameter, and the
text of its statement is the same for every list:

- PostgreSQL has arrays, ``= ANY(…)``; rows of several columns are JSON, which
  needs no parameter for each column either;
- SQLite reads JSON as a table, by ``json_each``;
- PyMySQL writes values into the text, of which there may be any number up to
  the server's ``max_allowed_packet``. ``JSON_TABLE`` would be bound by the
  same, and MariaDB scans the whole table in an UPDATE with a subquery.

A few values have a parameter each all the same: servers plan best with what
they see, and on MariaDB SQLAlchemy has nothing to expand, which takes a fifth
of the CPU of a call.
"""

import functools
import json
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from myservice.db.dialects import NAMES
from myservice.db.dialects import Backend
from myservice.db.dialects import backend_of
from myservice.db.dialects import is_of
from myservice.db.session import AnySession

_FEW = 8

#: more values than a few: they are one parameter
MANY = -1


def how_many(values: Collection[Any]) -> int:
    """Return how many parameters values have, or MANY.

    :param values: the values
    """
    return len(values) if len(values) <= _FEW else MANY


def is_member(column: Any, name: str, number: int = MANY) -> Any:
    """Return the condition that a column has one of some values.

    :param column: the column
    :param name: what the parameters begin with; that of MANY has this name,
        and is a list
    :param number: as ``how_many`` returns it
    """
    if number == 0:
        return sa.false()
    if number == MANY:
        return _one_of([column], name)
    return column.in_(
        [
            sa.bindparam(f'{name}_{each}', type_=column.type)
            for each in range(number)
        ]
    )


def is_one_of_rows(columns: Sequence[Any], name: str) -> Any:
    """Return the condition that columns have the values of one of some rows.

    :param columns: the columns; all are text or whole numbers
    :param name: that of the parameter, a list of tuples
    """
    return _one_of(columns, name)


def members(name: str, values: Collection[Any]) -> dict[str, Any]:
    """Return the parameters of ``is_member``.

    :param name: what they begin with
    :param values: the values
    """
    if how_many(values) == MANY:
        return {name: list(values)}
    return {f'{name}_{number}': value for number, value in enumerate(values)}


def has_all(
    owner: Any, of_owner: Any, columns: Sequence[Any], name: str, number: int
) -> Any:
    """Return the condition that an owner has all of some rows.

    :param owner: the column that identifies it
    :param of_owner: the column of the rows that names it; with the first of
        the columns it is unique
    :param columns: what is looked for in the rows
    :param name: what the parameters begin with
    :param number: how many rows, as ``how_many`` returns it
    """
    if number == MANY:
        found = (
            sa.select(of_owner)
            .where(_one_of(columns, name))
            .group_by(of_owner)
            .having(sa.func.count() == sa.bindparam(f'{name}_count'))
        )
        return owner.in_(found)
    return sa.and_(
        sa.true(),
        *(
            sa.exists().where(
                of_owner == owner,
                *(
                    column
                    == sa.bindparam(
                        f'{name}_{each}_{column.key}', type_=column.type
                    )
                    for column in columns
                ),
            )
            for each in range(number)
        ),
    )


def all_of(
    columns: Sequence[Any], name: str, rows: Collection[Sequence[Any]]
) -> dict[str, Any]:
    """Return the parameters of ``has_all``.

    :param columns: the columns
    :param name: what the parameters begin with
    :param rows: a tuple of their values for each row; none is there twice
    """
    if how_many(rows) == MANY:
        plain = [row[0] if len(columns) == 1 else row for row in rows]
        return {name: plain, f'{name}_count': len(rows)}
    return {
        f'{name}_{each}_{column.key}': value
        for each, row in enumerate(rows)
        for column, value in zip(columns, row, strict=True)
    }


def insert(
    columns: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    session: AnySession,
) -> None:
    """Insert rows, in one statement, in this order.

    PyMySQL makes several of it where it would be longer than a MiB.

    :param columns: the columns of a table, all of them text
    :param rows: a tuple of their values for each row
    :param session: an open transaction
    """
    if not rows:
        return
    backend = backend_of(session.get_bind().dialect)
    statement = _inserting(backend, tuple(columns))
    if backend == 'mysql':
        names = [column.key for column in columns]
        parameters: Any = [dict(zip(names, row, strict=True)) for row in rows]
    else:
        parameters = {'new_rows': rows}
    session.execute(statement, parameters)


@functools.cache
def _inserting(backend: Backend, columns: tuple[Any, ...]) -> Any:
    statement = sa.insert(columns[0].table)
    if backend == 'mysql':
        return statement
    rows = _rows(backend, columns, sa.bindparam('new_rows', type_=_List()))
    return statement.from_select([column.key for column in columns], rows)


def _rows(backend: Backend, columns: Sequence[Any], parameter: Any) -> Any:
    """Return the SELECT of the rows that a parameter has as JSON.

    :param backend: which database it is, but for MariaDB
    :param columns: those that its values are for
    :param parameter: the parameter
    """
    if backend == 'postgresql':
        array: Any = sa.cast(parameter, postgresql.JSON())
        source = sa.func.json_array_elements(array).table_valued('value')
        texts = [
            source.c.value.op('->>')(sa.literal_column(str(number)))
            for number in range(len(columns))
        ]
        return sa.select(
            *(
                text if _is_text(column.type) else sa.cast(text, column.type)
                for text, column in zip(texts, columns, strict=True)
            )
        )
    source = sa.func.json_each(parameter).table_valued('value')
    if len(columns) == 1:
        return sa.select(source.c.value)
    return sa.select(
        *(
            sa.func.json_extract(
                source.c.value, sa.literal_column(f"'$[{number}]'")
            )
            for number in range(len(columns))
        )
    )


class _List(sa.types.TypeDecorator[Any]):
    """A list of values as one parameter: an array, or else JSON.

    :param item: the type of the values; None is rows of several
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: Any = None) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        if self.item is None or not is_of(dialect, 'postgresql'):
            return sa.Text()
        # With a length, a longer text would be cut.
        return sa.ARRAY(sa.Text() if _is_text(self.item) else self.item)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if self.item is None:
            return _json(value)
        if is_of(dialect, 'postgresql'):
            return value
        item = self.item.dialect_impl(dialect).bind_processor(dialect)
        return _json([*map(item, value)] if item else value)


def _is_text(item: Any) -> bool:
    return issubclass(item.python_type, str)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


class _is_one_of(FunctionElement[Any]):
    """Columns, and the parameter that has values for them."""

    # Not Boolean: SQLAlchemy would write "= 1" behind it, which hides the
    # column from every index.
    type = sa.Integer()
    inherit_cache = True

    def parts(self) -> tuple[list[Any], Any]:
        """Return the columns, and the parameter."""
        *columns, parameter = self.clauses
        return columns, parameter


def _one_of(columns: Sequence[Any], name: str) -> Any:
    item = columns[0].type if len(columns) == 1 else None
    return _is_one_of(*columns, sa.bindparam(name, type_=_List(item)))


@compiles(_is_one_of)
def _in_text(element: Any, compiler: Any, **kw: Any) -> str:
    columns, parameter = element.parts()
    values: Any = sa.bindparam(parameter.key, expanding=True)
    left = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
    return f'({compiler.process(left.in_(values), **kw)})'


@compiles(_is_one_of, *NAMES['sqlite'])
def _in_json(element: Any, compiler: Any, **kw: Any) -> str:
    columns, parameter = element.parts()
    rows = _rows(backend_of(compiler.dialect), columns, parameter)
    left = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
    return f'({compiler.process(left.in_(rows), **kw)})'


@compiles(_is_one_of, *NAMES['postgresql'])
def _in_array(element: Any, compiler: Any, **kw: Any) -> str:
    if len(element.clauses) > 2:
        return str(_in_json(element, compiler, **kw))
    left, right = (compiler.process(e, **kw) for e in element.clauses)
    return f'({left} = ANY ({right}))'

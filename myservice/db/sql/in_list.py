"""Lists of any length in a statement: values, and rows of values.

Servers and drivers limit the number of parameters: PostgreSQL takes 65,535 in
a statement, SQLite 32,766. So a list is *one* parameter, and the text of its
statement is the same for every list.

Values, ``is_member``:

- PostgreSQL has arrays: ``= ANY (…)``;
- SQLite has none, and reads JSON as a table: ``IN (SELECT … json_each(…))``;
- PyMySQL writes the values into the text; only the server's
  ``max_allowed_packet`` limits their number. It would also limit a subquery of
  JSON, which MariaDB would evaluate anew for each row of an UPDATE.

Rows, ``rows``: all of them read JSON as a table, and join it.

But a few values have a parameter each: servers plan best with values that they
see, and on MariaDB it saves SQLAlchemy from expanding a list, which takes a
fifth of the CPU of a call.
"""

import json
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from myservice.db.sql.dialects import NAMES
from myservice.db.sql.dialects import is_of

T = TypeVar('T')

_FEW = 8

#: more than a few values: they are one parameter
MANY = -1


def how_many(values: Collection[object]) -> int:
    """Return how many parameters are needed for values, or MANY.

    :param values: the values
    """
    return len(values) if len(values) <= _FEW else MANY


def is_member(
    column: sa.ColumnElement[T], name: str, number: int = MANY
) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of some values.

    :param column: the column
    :param name: the beginning of the parameters' names; that of MANY has this
        name, and is a list
    :param number: as ``how_many`` returns it
    """
    if number == 0:
        return sa.false()
    if number == MANY:
        values = sa.bindparam(name, type_=_List(column.type))
        return _is_one_of(column, values)
    return column.in_(
        [
            sa.bindparam(f'{name}_{each}', type_=column.type)
            for each in range(number)
        ]
    )


def rows(name: str, *columns: sa.ColumnElement[T]) -> sa.TableValuedAlias:
    """Return rows of values as a table, which a statement can join.

    :param name: the name of the table, and of its parameter, which is a list
        of lists
    :param columns: the columns whose values it has: text, or whole numbers
    """
    given = [sa.column(str(column.key), _longer(column)) for column in columns]
    parameter = sa.bindparam(name, type_=_List())
    return _rows(parameter, *given).table_valued(*given, name=name)


def is_selected(
    column: sa.ColumnElement[T], select: sa.Select[T]
) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of the values of a SELECT.

    The SELECT is evaluated once, before the rows that it is a condition for.

    :param column: the column
    :param select: a SELECT of one column
    """
    return _is_selected(column, select.scalar_subquery())


def members(name: str, values: Collection[object]) -> dict[str, object]:
    """Return the parameters of ``is_member``.

    :param name: the beginning of their names
    :param values: the values
    """
    if how_many(values) == MANY:
        return {name: list(values)}
    return {f'{name}_{number}': value for number, value in enumerate(values)}


def insert(columns: Sequence[sa.Column[T]], name: str = 'given') -> sa.Insert:
    """Return the INSERT of rows, all of them in one statement.

    :param columns: the columns of a table, which have no defaults
    :param name: the name of the parameter, a list of lists
    """
    given = rows(name, *columns)
    return sa.insert(columns[0].table).from_select(
        [column.key for column in columns], sa.select(*given.c)
    )


class _List(sa.types.TypeDecorator[Any]):
    """A list of values as one parameter: an array, or else JSON.

    :param item: the type of the values; None if the values are lists
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: sa.types.TypeEngine[Any] | None = None) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(
        self, dialect: sa.Dialect
    ) -> sa.types.TypeEngine[Any]:
        if self.item is None or not is_of(dialect, 'postgresql'):
            return sa.Text()
        # A type with a length would cut a longer text.
        return sa.ARRAY(sa.Text() if _is_text(self.item) else self.item)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> object:
        if self.item is None:
            return _json(value)
        if is_of(dialect, 'postgresql'):
            return value
        item = self.item.dialect_impl(dialect).bind_processor(dialect)
        return _json([*map(item, value)] if item else value)


def _longer(column: sa.ColumnElement[T]) -> sa.types.TypeEngine[T]:
    """Return the type of a column, with room for one more character.

    MariaDB silently cuts text to the length of the type. Text that is too long
    for the column then stays too long, and equals no value in it.
    """
    kind: Any = column.type
    longer: sa.types.TypeEngine[T] = (
        type(kind)(kind.length + 1) if _is_text(kind) else kind
    )
    return longer


def _is_text(item: sa.types.TypeEngine[T]) -> bool:
    return issubclass(item.python_type, str)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


class _is_one_of(FunctionElement[bool]):
    """A column, and the parameter with values for it."""

    # Not Boolean: SQLAlchemy would append "= 1", and no index on the column
    # could be used.
    type: sa.types.TypeEngine[Any] = sa.Integer()
    inherit_cache = True


@compiles(_is_one_of)
def _in_text(element: _is_one_of, compiler: SQLCompiler, **kw: object) -> str:
    column, parameter = element.clauses
    values: sa.BindParameter[object] = sa.bindparam(
        parameter.key, expanding=True
    )
    return f'({compiler.process(column.in_(values), **kw)})'


@compiles(_is_one_of, *NAMES['sqlite'])
def _in_json(element: _is_one_of, compiler: SQLCompiler, **kw: object) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    rows = f'SELECT value FROM json_each({values})'  # noqa: S608
    return f'({column} IN ({rows}))'


@compiles(_is_one_of, *NAMES['postgresql'])
def _in_array(element: _is_one_of, compiler: SQLCompiler, **kw: object) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    return f'({column} = ANY ({values}))'


class _is_selected(FunctionElement[bool]):
    """A column, and the SELECT with values for it."""

    type: sa.types.TypeEngine[Any] = sa.Integer()
    inherit_cache = True


@compiles(_is_selected)
def _in_select(
    element: _is_selected, compiler: SQLCompiler, **kw: object
) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    return f'({column} IN {values})'


@compiles(_is_selected, *NAMES['postgresql'])
def _in_array_of(
    element: _is_selected, compiler: SQLCompiler, **kw: object
) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    # With IN and without statistics, PostgreSQL reads all found values for
    # each row.
    return f'({column} = ANY (ARRAY{values}))'


class _rows(FunctionElement[object]):
    """A parameter with rows, and the columns of these rows."""

    inherit_cache = True

    def parts(
        self, compiler: SQLCompiler
    ) -> tuple[str, list[tuple[str, str, bool]]]:
        """Return the parameter, and name and type of each column, as SQL.

        The type is followed by whether it is text.
        """
        parameter, *columns = self.clauses
        return compiler.process(parameter), [
            (
                compiler.preparer.quote(column.name),
                compiler.dialect.type_compiler_instance.process(column.type),
                _is_text(column.type),
            )
            for column in columns
        ]


@compiles(_rows)
def _json_table(element: _rows, compiler: SQLCompiler, **kw: object) -> str:
    values, columns = element.parts(compiler)
    paths = ', '.join(
        f"{name} {type_} PATH '$[{number}]'"
        for number, (name, type_, _) in enumerate(columns)
    )
    return f"JSON_TABLE({values}, '$[*]' COLUMNS ({paths}))"


@compiles(_rows, *NAMES['sqlite'])
def _json_each(element: _rows, compiler: SQLCompiler, **kw: object) -> str:
    values, columns = element.parts(compiler)
    paths = ', '.join(
        f"json_extract(value, '$[{number}]') AS {name}"
        for number, (name, _, _) in enumerate(columns)
    )
    # SQLite reads a subquery with a LIMIT once, and makes an index for it if
    # needed; without one it may read all of it for each row that is joined.
    source = f'json_each({values}) LIMIT -1'
    return f'(SELECT {paths} FROM {source})'  # noqa: S608


@compiles(_rows, *NAMES['postgresql'])
def _json_array(element: _rows, compiler: SQLCompiler, **kw: object) -> str:
    values, columns = element.parts(compiler)
    paths = ', '.join(
        # A cast to a length would cut a longer text.
        f'value ->> {number} AS {name}'
        if text
        else f'CAST(value ->> {number} AS {type_}) AS {name}'
        for number, (name, type_, text) in enumerate(columns)
    )
    source = f'json_array_elements(CAST({values} AS JSON))'
    return f'(SELECT {paths} FROM {source})'  # noqa: S608

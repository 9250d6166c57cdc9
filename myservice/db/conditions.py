"""What callers say of a column: one value, several, none of them, a range.

A plain value is equality, a list, tuple or set allows each of its members,
and None is NULL. The classes here say the rest. NULL is a value like any
other: ``Not('x')`` is true of it, and it is in ``('x', None)``.
"""

import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from myservice.db import validation

_SEVERAL = (list, tuple, set, frozenset)


@dataclasses.dataclass(frozen=True)
class Not:
    """Any value but this one, or but these.

    :param value: a value, None, or several in a list, tuple or set
    """

    value: Any


@dataclasses.dataclass(frozen=True)
class Range:
    """The values from one to another, both included; no NULL.

    :param minimum: the lowest; None is no bound
    :param maximum: the highest; None is no bound
    """

    minimum: Any = None
    maximum: Any = None


@dataclasses.dataclass(frozen=True)
class StartsWith:
    """The texts that begin with a text, which has no wildcards.

    :param text: compared exactly, as all text that identifies something
    """

    text: str


@dataclasses.dataclass(frozen=True)
class Contains:
    """The texts that contain a text, which has no wildcards.

    :param text: compared exactly, as all text that identifies something
    """

    text: str


class position_of(FunctionElement[Any]):
    """Where a text begins in a column, from 1; 0 where it does not.

    LIKE would ask for escapes, and does not know upper from lower case in
    SQLite.
    """

    type = sa.Integer()
    inherit_cache = True


@compiles(position_of)
def _instr(element: Any, compiler: Any, **kw: Any) -> str:
    return f'instr({compiler.process(element.clauses, **kw)})'


@compiles(position_of, 'postgresql')
def _strpos(element: Any, compiler: Any, **kw: Any) -> str:
    return f'strpos({compiler.process(element.clauses, **kw)})'


def check(column: Any, wanted: Any, field: str) -> None:
    """Refuse what no value of a column can be compared with.

    :param column: the column, or a labelled expression
    :param wanted: a value, several, or an instance of the classes above
    :param field: what to call it in the error
    :raises InvalidInput: when a type, length or range does not fit
    """
    if isinstance(wanted, StartsWith | Contains):
        validation.check_text(field, wanted.text)
    for value in _values(wanted):
        if value is not None:
            validation.check_value(column, value, field)


def equals_one(wanted: Any) -> bool:
    """Return whether a condition is equality with one value."""
    return not isinstance(
        wanted, (Not, Range, StartsWith, Contains, *_SEVERAL)
    )


def condition(column: Any, wanted: Any) -> Any:
    """Return a condition on a column as SQL.

    :param column: the column, or a labelled expression
    :param wanted: as for ``check``
    """
    if isinstance(wanted, Not):
        equal = condition(column, wanted.value)
        nothing = None in _values(wanted)
        # A comparison with NULL is neither true nor false.
        return (
            sa.not_(equal)
            if nothing
            else sa.or_(column.is_(None), sa.not_(equal))
        )
    if isinstance(wanted, Range):
        return sa.and_(
            column.is_not(None),
            *(
                [column >= wanted.minimum]
                if wanted.minimum is not None
                else []
            ),
            *(
                [column <= wanted.maximum]
                if wanted.maximum is not None
                else []
            ),
        )
    if isinstance(wanted, StartsWith):
        begins = position_of(column, sa.literal(wanted.text, sa.String())) == 1
        return sa.and_(column >= wanted.text, begins)
    if isinstance(wanted, Contains):
        return position_of(column, sa.literal(wanted.text, sa.String())) > 0
    if isinstance(wanted, _SEVERAL):
        values = [value for value in wanted if value is not None]
        found = column.in_(values)
        return (
            found
            if len(values) == len(wanted)
            else sa.or_(column.is_(None), found)
        )
    return column.is_(None) if wanted is None else column == wanted


def _values(wanted: Any) -> list[Any]:
    if isinstance(wanted, Not):
        return _values(wanted.value)
    if isinstance(wanted, Range):
        return [wanted.minimum, wanted.maximum]
    if isinstance(wanted, StartsWith | Contains):
        return [wanted.text]
    return list(wanted) if isinstance(wanted, _SEVERAL) else [wanted]

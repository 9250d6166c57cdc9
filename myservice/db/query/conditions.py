"""What callers say of a column: one value, several, none of them, a range.

A plain value is equality, a list, tuple or set allows each of its members,
and None is NULL. The classes here say the rest. NULL is a value like any
other: ``Not('x')`` is true of it, and it is in ``('x', None)``.
"""

import dataclasses
from collections.abc import Hashable
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from typing import NamedTuple

import sqlalchemy as sa

from myservice import plain
from myservice.db import validation
from myservice.db.sql import dialects
from myservice.db.sql import in_list

_SEVERAL = (list, tuple, set, frozenset)

#: the shape of equality with one value
ONE = ''


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


@plain.convert.register(Not)
@plain.convert.register(Range)
@plain.convert.register(StartsWith)
@plain.convert.register(Contains)
def _plain(wanted: Any) -> Any:
    return type(wanted)(*map(plain.plain, vars(wanted).values()))


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


def shape(wanted: Any) -> Any:
    """Return what a condition is like, whatever its values are.

    Statements are built once for each shape, and executed with the values.

    :param wanted: as for ``check``
    :returns: a hashable, as ``condition`` takes it
    """
    if isinstance(wanted, Not):
        return Not(shape(wanted.value))
    if isinstance(wanted, Range):
        return Range(shape(wanted.minimum), shape(wanted.maximum))
    if isinstance(wanted, StartsWith | Contains):
        return type(wanted)(ONE)
    if isinstance(wanted, _SEVERAL):
        several = [each for each in wanted if each is not None]
        number = in_list.how_many(several)
        return (number,) if len(several) == len(wanted) else (number, None)
    return None if wanted is None else ONE


def values(wanted: Any, name: str) -> dict[str, Any]:
    """Return the parameters of the condition that has a shape.

    :param wanted: as for ``check``
    :param name: of the column, or labelled expression
    """
    if isinstance(wanted, Not):
        return values(wanted.value, name)
    if isinstance(wanted, Range):
        bounds = {'least': wanted.minimum, 'most': wanted.maximum}
        return {
            f'{name}_{which}': bound
            for which, bound in bounds.items()
            if bound is not None
        }
    if isinstance(wanted, StartsWith | Contains):
        return {f'{name}_text': wanted.text}
    if isinstance(wanted, _SEVERAL):
        several = [each for each in wanted if each is not None]
        return in_list.members(f'{name}_any', several)
    return {} if wanted is None else {f'{name}_one': wanted}


class Conditions(NamedTuple):
    """What is wanted of several columns: their shapes, and the parameters."""

    shape: tuple[tuple[str, Hashable], ...] = ()
    parameters: Mapping[str, Any] = MappingProxyType({})


def take_apart(wanted: Mapping[str, Any] | None) -> Conditions:
    """Return what is wanted of columns as shapes and parameters.

    :param wanted: column name to what ``check`` takes
    """
    wanted = wanted or {}
    return Conditions(
        tuple((name, shape(each)) for name, each in wanted.items()),
        {
            parameter: value
            for name, each in wanted.items()
            for parameter, value in values(each, name).items()
        },
    )


def condition(name: str, column: Any, shape: Any) -> Any:
    """Return a condition on a column as SQL, with parameters for its values.

    :param name: what the parameters begin with
    :param column: the column, or a labelled expression
    :param shape: as ``shape`` returns it
    """
    if isinstance(shape, Not):
        equal = condition(name, column, shape.value)
        # A comparison with NULL is neither true nor false.
        return (
            sa.not_(equal)
            if None in _values(shape)
            else sa.or_(column.is_(None), sa.not_(equal))
        )
    if isinstance(shape, Range):
        found = [column.is_not(None)]
        if shape.minimum is not None:
            found.append(column >= sa.bindparam(f'{name}_least'))
        if shape.maximum is not None:
            found.append(column <= sa.bindparam(f'{name}_most'))
        return sa.and_(*found)
    if isinstance(shape, StartsWith | Contains):
        text: Any = sa.bindparam(f'{name}_text', type_=sa.String())
        position = dialects.position_of(column, text)
        if isinstance(shape, Contains):
            return position > 0
        return sa.and_(column >= text, position == 1)
    if isinstance(shape, tuple):
        among = in_list.is_member(column, f'{name}_any', shape[0])
        return sa.or_(column.is_(None), among) if None in shape else among
    if shape is None:
        return column.is_(None)
    return column == sa.bindparam(f'{name}_one')


def _values(wanted: Any) -> list[Any]:
    if isinstance(wanted, Not):
        return _values(wanted.value)
    if isinstance(wanted, Range):
        return [wanted.minimum, wanted.maximum]
    if isinstance(wanted, StartsWith | Contains):
        return [wanted.text]
    return list(wanted) if isinstance(wanted, _SEVERAL) else [wanted]

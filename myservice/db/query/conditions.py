"""What callers say of a column: one value, several, none of them, a range.

A plain value is equality, a list, tuple or set allows each of its members,
and None is NULL. The public classes here say the rest. NULL is a value like
any other: ``Not('x')`` is true of it, and it is in ``('x', None)``.

The words, here and in ``listing``: a *condition* is what a caller says of a
column. Its *shape* is the same condition without its values, which are its
*parameters*. A *clause* is SQL: the shape makes it, once for all values.
"""

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from typing import NamedTuple

import sqlalchemy as sa

from myservice import plain
from myservice.db import validation
from myservice.db.sql import dialects
from myservice.db.sql import in_list

Column = sa.ColumnElement[Any]
Clause = sa.ColumnElement[bool]

#: the name of each column, and the shape of its condition, which is hashable
Shapes = tuple[tuple[str, Any], ...]

# Stands for each value in a shape.
_BLANK = ''


class Condition:
    """What a caller says of a column; each kind of it is a subclass."""

    def values(self) -> Collection[object]:
        """Return the values that it names, among them None for NULL."""
        raise NotImplementedError

    def check(self, column: Column, field: str) -> None:
        """Refuse what no value of a column can be compared with.

        :param column: the column, or a labelled expression
        :param field: what to call it in the error
        :raises InvalidInput: when a type, length or range does not fit
        """
        for value in self.values():
            if value is not None:
                validation.check_value(column, value, field)

    def shape(self) -> 'Condition':
        """Return the condition without its values; it is hashable."""
        raise NotImplementedError

    def parameters(self, name: str) -> dict[str, object]:
        """Return the parameters of its clause.

        :param name: what they begin with
        """
        raise NotImplementedError

    def clause(self, column: Column, name: str) -> Clause:
        """Return it as SQL, with parameters for its values; a shape will do.

        :param column: the column, or a labelled expression
        :param name: what the parameters begin with
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Not(Condition):
    """Any value but this one, or but these.

    :param value: a value, None, or several in a list, tuple or set
    """

    value: Any

    def values(self) -> Collection[object]:
        return of(self.value).values()

    def shape(self) -> Condition:
        return Not(of(self.value).shape())

    def parameters(self, name: str) -> dict[str, object]:
        return of(self.value).parameters(name)

    def clause(self, column: Column, name: str) -> Clause:
        other = sa.not_(of(self.value).clause(column, name))
        # A comparison with NULL is neither true nor false.
        if None in self.values():
            return other
        return sa.or_(column.is_(None), other)


@dataclasses.dataclass(frozen=True)
class Range(Condition):
    """The values from one to another, both included; NULL is none of them.

    :param minimum: the lowest; None is no bound
    :param maximum: the highest; None is no bound
    """

    minimum: Any = None
    maximum: Any = None

    def values(self) -> Collection[object]:
        return self.minimum, self.maximum

    def shape(self) -> Condition:
        return Range(_blank(self.minimum), _blank(self.maximum))

    def parameters(self, name: str) -> dict[str, object]:
        found = {}
        if self.minimum is not None:
            found[f'{name}_least'] = self.minimum
        if self.maximum is not None:
            found[f'{name}_most'] = self.maximum
        return found

    def clause(self, column: Column, name: str) -> Clause:
        found: list[Clause] = [column.is_not(None)]
        if self.minimum is not None:
            found.append(column >= sa.bindparam(f'{name}_least'))
        if self.maximum is not None:
            found.append(column <= sa.bindparam(f'{name}_most'))
        return sa.and_(*found)


@dataclasses.dataclass(frozen=True)
class _Text(Condition):
    text: str

    def values(self) -> Collection[object]:
        return (self.text,)

    def check(self, column: Column, field: str) -> None:
        validation.check_text(field, self.text)
        super().check(column, field)

    def shape(self) -> Condition:
        return type(self)(_BLANK)

    def parameters(self, name: str) -> dict[str, object]:
        return {f'{name}_text': self.text}


@dataclasses.dataclass(frozen=True)
class StartsWith(_Text):
    """The texts that begin with a text, which has no wildcards.

    :param text: compared exactly, as all text that identifies something
    """

    def clause(self, column: Column, name: str) -> Clause:
        text = _text(name)
        # By the first half, an index finds them.
        return sa.and_(column >= text, dialects.position_of(column, text) == 1)


@dataclasses.dataclass(frozen=True)
class Contains(_Text):
    """The texts that contain a text, which has no wildcards.

    :param text: compared exactly, as all text that identifies something
    """

    def clause(self, column: Column, name: str) -> Clause:
        return dialects.position_of(column, _text(name)) > 0


@dataclasses.dataclass(frozen=True)
class _Equal(Condition):
    value: object

    def values(self) -> Collection[object]:
        return (self.value,)

    def shape(self) -> Condition:
        return ONE

    def parameters(self, name: str) -> dict[str, object]:
        return {f'{name}_one': self.value}

    def clause(self, column: Column, name: str) -> Clause:
        return column == sa.bindparam(f'{name}_one')


@dataclasses.dataclass(frozen=True)
class _Several(Condition):
    """Any of some values.

    :param number: of the members, as ``in_list.how_many`` returns it
    :param null: whether NULL is one of the values
    :param members: the other values; a shape has none
    """

    number: int
    null: bool
    members: Collection[object] = ()

    def values(self) -> Collection[object]:
        return (*self.members, None) if self.null else self.members

    def shape(self) -> Condition:
        return _Several(self.number, self.null)

    def parameters(self, name: str) -> dict[str, object]:
        return in_list.members(f'{name}_any', self.members)

    def clause(self, column: Column, name: str) -> Clause:
        found: Clause = in_list.is_member(column, f'{name}_any', self.number)
        return sa.or_(column.is_(None), found) if self.null else found


@dataclasses.dataclass(frozen=True)
class _Null(Condition):
    def values(self) -> Collection[object]:
        return (None,)

    def shape(self) -> Condition:
        return self

    def parameters(self, name: str) -> dict[str, object]:
        return {}

    def clause(self, column: Column, name: str) -> Clause:
        return column.is_(None)


#: the shape of equality with one value
ONE = _Equal(_BLANK)
_NULL = _Null()


@plain.convert.register(Condition)
def _plain(wanted: Any) -> Any:
    return type(wanted)(*map(plain.plain, vars(wanted).values()))


def of(wanted: object) -> Condition:
    """Return what a caller passes as a condition.

    :param wanted: a value, several in a list, tuple or set, None, or a
        condition
    """
    if isinstance(wanted, Condition):
        return wanted
    if isinstance(wanted, list | tuple | set | frozenset):
        members = [each for each in wanted if each is not None]
        null = len(members) < len(wanted)
        return _Several(in_list.how_many(members), null, members)
    return _NULL if wanted is None else _Equal(wanted)


class Criteria(NamedTuple):
    """What is wanted of several columns.

    :param shapes: the name of each column, and the shape of its condition
    :param parameters: those of all the conditions
    """

    shapes: Shapes = ()
    parameters: Mapping[str, object] = MappingProxyType({})


def criteria_of(wanted: Mapping[str, object] | None) -> Criteria:
    """Return what is wanted of columns as shapes and parameters.

    :param wanted: column name to what ``of`` takes
    """
    shapes = []
    parameters: dict[str, object] = {}
    for name, each in (wanted or {}).items():
        condition = of(each)
        shapes.append((name, condition.shape()))
        parameters |= condition.parameters(name)
    return Criteria(tuple(shapes), parameters)


def _blank(value: object) -> str | None:
    return None if value is None else _BLANK


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(f'{name}_text', type_=sa.String())

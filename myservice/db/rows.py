"""The immutable rows that public functions return.

A function of the API returns a *row*: a tuple with the columns of a table as
attributes, which reads as ``row.host`` and as ``row['host']`` and needs no
session. Each class of rows declares its attributes for editors and mypy; a
test compares them with the columns of the model. Instances of the models
themselves are for callers with a Session of their own.
"""

import dataclasses
import operator
import typing
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import ClassVar
from typing import SupportsIndex
from typing import dataclass_transform
from typing import overload

import sqlalchemy as sa


# A type checker lets the attributes of a subclass be read, not assigned.
@dataclass_transform(frozen_default=True, eq_default=False)
class Row(tuple[Any, ...]):
    """An immutable row of a table.

    By its names it reads like a dict: ``row['host']``, ``row.get('host')``,
    ``'host' in row``, ``keys()``, ``values()``, ``items()``. ``dict(row)``,
    ``{**row}``, ``row | {…}`` and ``{…} | row`` are dicts.

    By position it is a tuple of the values: ``len(row)``, iteration,
    unpacking, ``row[0]``, ``index()`` and ``count()``. It equals a row, or any
    other tuple, with the same values, and has the same hash; it does not equal
    a dict. It can be pickled and copied.

    Its fields are those of a dataclass, so ``dataclasses.asdict(row)`` works,
    and FastAPI answers with an object. To the ``json`` module it is a list,
    like every tuple: pass ``dict(row)``.

    ``class TheRow(Row, table=…, init=False)`` makes a class of rows, which
    ``sa.select(*TheRow.columns)`` fills.
    """

    __slots__ = ()
    __table__: ClassVar[sa.Table]
    columns: ClassVar[tuple[Any, ...]] = ()
    positions: ClassVar[Mapping[str, int]] = {}

    def __init_subclass__(
        cls,
        table: sa.Table | None = None,
        computed: Iterable[sa.Label[Any]] = (),
        hidden: Collection[str] = (),
        init: bool = False,
    ) -> None:
        """Make the attributes of a class of rows.

        :param table: the table whose columns the rows have; None for a class
            that others are derived from
        :param computed: labelled SQL expressions, read after the columns
        :param hidden: the names of columns that no reader needs
        :param init: False, for type checkers: a row is made from a sequence
        """
        super().__init_subclass__()
        if table is not None:
            cls._make_attributes(table, computed, hidden)
        # Of the classes that others are derived from too: pydantic asks each.
        _declare_fields(cls)

    @classmethod
    def _make_attributes(
        cls,
        table: sa.Table,
        computed: Iterable[sa.Label[Any]],
        hidden: Collection[str],
    ) -> None:
        cls.__table__ = table
        plain = [c for c in table.columns if c.key not in hidden]
        cls.columns = (*plain, *computed)
        cls.positions = {c.key: i for i, c in enumerate(cls.columns)}
        for name, position in cls.positions.items():
            setattr(cls, name, property(operator.itemgetter(position)))

    @overload
    def __getitem__(self, key: str | SupportsIndex, /) -> Any: ...

    @overload
    def __getitem__(self, key: slice, /) -> tuple[Any, ...]: ...

    def __getitem__(self, key: str | SupportsIndex | slice, /) -> Any:
        if isinstance(key, str):
            key = self.positions[key]
        # Faster than super().
        return tuple.__getitem__(self, key)

    def __contains__(self, name: object, /) -> bool:
        return name in self.positions

    def __or__(self, other: 'Mapping[str, Any] | Row', /) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: 'Mapping[str, Any] | Row', /) -> dict[str, Any]:
        return {**other, **self}

    def __repr__(self) -> str:
        fields = ', '.join(f'{name}={value!r}' for name, value in self.items())
        return f'{type(self).__name__}({fields})'

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or the default if there is none.

        :param name: the name of the column
        :param default: what to return if the row has no such column
        """
        position = self.positions.get(name)
        return default if position is None else self[position]

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names of the columns, in order."""
        return list(cls.positions)

    def values(self) -> list[Any]:
        """Return the values of the columns, in order."""
        return list(self)

    def items(self) -> list[tuple[str, Any]]:
        """Return pairs of a column's name and its value, in order."""
        return list(zip(self.positions, self, strict=True))


def _declare_fields(row_class: type[Row]) -> None:
    """Give a class of rows the fields of a dataclass, which libraries read.

    FastAPI and pydantic look for them before they look for a tuple.
    """
    declared = {
        name: kind
        for name, kind in typing.get_type_hints(row_class).items()
        if typing.get_origin(kind) is not ClassVar
    }
    fields = dataclasses.make_dataclass(
        row_class.__name__,
        [
            (name, declared.get(name, Any))
            for name in row_class.positions or declared
        ],
        init=False,
        repr=False,
        eq=False,
    )
    for name in ('__dataclass_fields__', '__dataclass_params__'):
        setattr(row_class, name, getattr(fields, name))

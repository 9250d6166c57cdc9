"""The immutable rows that public functions return.

A function of the API returns a *row*: a tuple with the columns of a table as
attributes, which reads as ``row.host`` and as ``row['host']`` and needs no
session. Each class of rows declares its attributes for editors and mypy; a
test compares them with the columns of the model. Instances of the models
themselves are for callers with a Session of their own.
"""

import operator
from collections.abc import Collection
from collections.abc import Iterable
from typing import Any
from typing import ClassVar
from typing import SupportsIndex
from typing import dataclass_transform
from typing import overload

import sqlalchemy as sa


# A type checker lets the attributes of a subclass be read, not assigned.
@dataclass_transform(frozen_default=True, eq_default=False)
class Row(tuple[Any, ...]):
    """An immutable row; see the docstring of this module.

    ``class TheRow(Row, table=…, init=False)`` makes a class of rows, which
    ``sa.select(*TheRow.columns)`` fills.
    """

    __slots__ = ()
    __table__: ClassVar[sa.Table]
    columns: ClassVar[tuple[Any, ...]] = ()

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
        if table is None:
            return
        cls.__table__ = table
        plain = [c for c in table.columns if c.key not in hidden]
        cls.columns = (*plain, *computed)
        for position, column in enumerate(cls.columns):
            setattr(cls, column.key, property(operator.itemgetter(position)))

    @overload
    def __getitem__(self, key: str | SupportsIndex, /) -> Any: ...

    @overload
    def __getitem__(self, key: slice, /) -> tuple[Any, ...]: ...

    def __getitem__(self, key: str | SupportsIndex | slice, /) -> Any:
        if isinstance(key, str):
            try:
                return getattr(self, key)
            except AttributeError:
                raise KeyError(key) from None
        return super().__getitem__(key)

    def __repr__(self) -> str:
        fields = ', '.join(f'{key}={self[key]!r}' for key in self.keys())
        return f'{type(self).__name__}({fields})'

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names of the columns, in order; dict(row) works."""
        return [column.key for column in cls.columns if column.key]

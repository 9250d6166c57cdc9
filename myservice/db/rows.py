"""The immutable rows that public functions return.

A function of the API returns a *row*: a tuple with the attributes of its
model, which reads as ``row.host`` and as ``row['host']`` and needs no session.
It is annotated as the model, whose attributes it has, so that editors and
mypy know them. Instances of the models themselves are for those who work with
a Session of their own.
"""

import operator
from collections.abc import Collection
from collections.abc import Iterable
from typing import Any
from typing import ClassVar

import sqlalchemy as sa

# What a row can do as an instance of its model can.
_METHODS = ('delete', 'not_found')


class Row(tuple[Any, ...]):
    """An immutable row; see the docstring of this module."""

    __slots__ = ()
    columns: ClassVar[tuple[Any, ...]] = ()

    def __getitem__(self, key: Any) -> Any:
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


def row_class(
    name: str,
    model: Any,
    computed: Iterable[sa.Label[Any]] = (),
    hidden: Collection[str] = (),
    module: str | None = None,
) -> type[Row]:
    """Return the Row class of a model.

    :param name: the name of the class, and of the variable that holds it
    :param model: the model whose columns the rows have
    :param computed: labelled SQL expressions, read after the columns
    :param hidden: the names of columns that no reader needs
    :param module: where that variable is, for pickle; by default that of the
        model
    :returns: a subclass of Row; ``sa.select(*its.columns)`` fills it
    """
    plain = [c for c in model.__table__.columns if c.key not in hidden]
    columns = (*plain, *computed)
    namespace: dict[str, Any] = {
        str(column.key): property(operator.itemgetter(position))
        for position, column in enumerate(columns)
    }
    namespace |= {
        method: getattr(model, method)
        for method in _METHODS
        if hasattr(model, method)
    }
    namespace |= {
        '__slots__': (),
        '__module__': module or model.__module__,
        '__table__': model.__table__,
        'columns': columns,
    }
    return type(name, (Row,), namespace)

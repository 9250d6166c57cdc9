"""Sort keys, and the ranges of rows behind a marker."""

import dataclasses
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from myservice.db import validation
from myservice.db.query.conditions import Clause
from myservice.db.query.conditions import Column
from myservice.db.sql.dialects import ABILITIES
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import without_index

#: direction, as callers write it, to whether NULL comes first
NULLS_FIRST = {
    'asc': True,
    'asc-nullsfirst': True,
    'asc-nullslast': False,
    'desc': False,
    'desc-nullsfirst': True,
    'desc-nullslast': False,
}


@dataclasses.dataclass(frozen=True)
class SortKey:
    """One column of an order, with its direction and the place of NULL.

    :param column: the column
    :param direction: as callers write it
    :param marker: the name of the parameter that is the marker's value
    """

    column: sa.Column[Any]
    direction: str = 'asc'
    marker: str = ''

    @property
    def nulls_first(self) -> bool:
        """Whether rows without a value come before all others."""
        return NULLS_FIRST[self.direction]

    @property
    def descending(self) -> bool:
        """Whether the greatest value comes first."""
        return self.direction.startswith('desc')

    def order(
        self,
        columns: sa.ColumnCollection[str, Any],
        nulls: bool,
        by_index: bool = True,
    ) -> list[Column]:
        """Return the ORDER BY elements of this key.

        :param columns: the collection to take the column from
        :param nulls: whether its NULLs have to be put in their place
        :param by_index: whether SQLite may use an index for it
        """
        column = columns[self.column.key]
        if not by_index:
            column = without_index(column)
        elements = [column.desc() if self.descending else column.asc()]
        if nulls and self.column.nullable:
            is_null = column.is_(None)
            elements.insert(
                0, is_null.desc() if self.nulls_first else is_null.asc()
            )
        return elements

    def equal(self, null: bool) -> Clause:
        """Return the clause that a row has the marker's value.

        :param null: whether that is NULL
        """
        if null:
            return self.column.is_(None)
        return self.column == sa.bindparam(self.marker)

    def is_plain(self, backend: Backend) -> bool:
        """Return whether an index has NULL in the place that this key wants.

        :param backend: which database it is
        """
        nulls_largest = ABILITIES[backend].nulls_are_largest
        return not self.column.nullable or (
            self.nulls_first == (self.descending == nulls_largest)
        )

    def start(self, backend: Backend) -> list[list[Clause]]:
        """Return the clauses of the ranges of all rows, in order.

        :param backend: which database it is
        """
        if self.is_plain(backend):
            return [[]]
        nulls: list[Clause] = [self.column.is_(None)]
        others: list[Clause] = [self.column.is_not(None)]
        return [nulls, others] if self.nulls_first else [others, nulls]

    def after(self, null: bool) -> list[Clause]:
        """Return the clauses of the ranges after the marker's, in order.

        :param null: whether its value is NULL
        """
        if null:
            return [self.column.is_not(None)] if self.nulls_first else []
        value: sa.BindParameter[Any] = sa.bindparam(self.marker)
        beyond = (
            self.column < value if self.descending else self.column > value
        )
        if self.column.nullable and not self.nulls_first:
            return [beyond, self.column.is_(None)]
        return [beyond]


def check_sort(
    names: Sequence[str],
    directions: Sequence[str],
    allowed: Collection[str],
) -> dict[str, str]:
    """Check an order, and return the direction of each of its keys.

    :param names: of the keys; the id is added as the last one
    :param directions: of the keys; the first also fills those left out
    :param allowed: the names that a key may have
    :raises InvalidInput: when an argument is not as described
    """
    for field, value in (('sort_keys', names), ('sort_dirs', directions)):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise validation.invalid(
                field, f'{validation.shown(value)} is not a list'
            )
    if len(directions) > len(names):
        raise validation.invalid(
            'sort_dirs', 'there are more of them than keys'
        )
    for name in names:
        if not isinstance(name, str) or name not in allowed:
            raise validation.none_of('sort_keys', name, allowed)
    for direction in directions:
        if not isinstance(direction, str) or direction not in NULLS_FIRST:
            raise validation.none_of('sort_dirs', direction, NULLS_FIRST)
    default = directions[0] if directions else 'asc'
    filled = [*directions, *[default] * (len(names) - len(directions))]
    keys = dict(zip(names, filled, strict=True))
    if len(keys) < len(names):
        raise validation.invalid('sort_keys', 'a key is named twice')
    keys.setdefault('id', default)
    return keys


def ranges(
    backend: Backend,
    marker: tuple[bool, ...] | None,
    keys: list[SortKey],
) -> list[list[Clause]]:
    """Return the clauses of the ranges that a page is read from, in order.

    An index that has all the rows in their order has those behind the marker
    side by side: they are one range, where a clause can express it.

    :param backend: which database it is
    :param marker: which of the marker's values are NULL; None is no marker
    :param keys: of the order
    """
    if marker is None:
        return keys[0].start(backend)
    behind = _behind_marker(marker, keys)
    if len(behind) == 1 or not _is_in_order(backend, keys):
        return behind
    if not ABILITIES[backend].ranges_by_row_values:
        # MariaDB reads the rows before the marker if it compares row values.
        return [[sa.or_(*(sa.and_(*each) for each in behind))]]
    nulls_behind = [
        key for key in keys if key.column.nullable and not key.nulls_first
    ]
    if nulls_behind or any(marker):
        # Row values with a NULL are neither less nor greater.
        return behind
    values = [sa.bindparam(key.marker, type_=key.column.type) for key in keys]
    row = sa.tuple_(*(key.column for key in keys))
    place = sa.tuple_(*values)
    return [[row < place if keys[0].descending else row > place]]


def _is_in_order(backend: Backend, keys: list[SortKey]) -> bool:
    """Return whether an index of the keys would have the rows in order."""
    directions = {key.descending for key in keys}
    return len(directions) == 1 and all(key.is_plain(backend) for key in keys)


def _behind_marker(
    marker: tuple[bool, ...], keys: list[SortKey]
) -> list[list[Clause]]:
    # Behind (a, b): first the rows with this a and a later b, then those
    # with a later a. So the ranges are disjoint, and come in order.
    ranges = []
    for depth in reversed(range(len(keys))):
        equal = [
            key.equal(null)
            for key, null in zip(keys[:depth], marker[:depth], strict=True)
        ]
        ranges += [
            [*equal, beyond] for beyond in keys[depth].after(marker[depth])
        ]
    return ranges

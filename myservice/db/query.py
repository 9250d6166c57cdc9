"""Lists: filters, sorting, marker pages; and the upsert of each server.

A page is read as one *range* of an index after the marker, or as a few of
them joined by UNION ALL, each with the LIMIT of the page. One condition over
all of them, as oslo.db's ``paginate_query`` writes it, would make a server
read every row before the marker, and drops rows whose sort key is NULL.

NULL is smallest here, on every server, unless a direction says otherwise.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import operators

from myservice import exception
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.db import conditions
from myservice.db import validation
from myservice.db.rows import Row
from myservice.db.session import AnySession

_NULLS_FIRST = {
    'asc': True,
    'asc-nullsfirst': True,
    'asc-nullslast': False,
    'desc': False,
    'desc-nullsfirst': True,
    'desc-nullslast': False,
}


@dataclasses.dataclass(frozen=True)
class SortKey:
    """One column of an order, with its direction and the place of NULL."""

    column: Any
    direction: str = 'asc'

    @property
    def nulls_first(self) -> bool:
        """Whether rows without a value come before all others."""
        return _NULLS_FIRST[self.direction]

    def order(self, columns: Any, nulls: bool) -> list[Any]:
        """Return the ORDER BY elements of this key.

        :param columns: the collection to take the column from
        :param nulls: whether its NULLs have to be put in their place
        """
        column = columns[self.column.key]
        descending = self.direction.startswith('desc')
        elements = [column.desc() if descending else column.asc()]
        if nulls and self.column.nullable:
            is_null = column.is_(None)
            elements.insert(
                0, is_null.desc() if self.nulls_first else is_null.asc()
            )
        return elements

    def equal(self, value: Any) -> Any:
        """Return the condition that a row has this value of the key."""
        return self.column.is_(None) if value is None else self.column == value

    def start(self) -> list[list[Any]]:
        """Return the conditions of the ranges of all rows, in order."""
        if not self.column.nullable:
            return [[]]
        ranges = [[self.column.is_(None)], [self.column.is_not(None)]]
        return ranges if self.nulls_first else ranges[::-1]

    def after(self, value: Any) -> list[Any]:
        """Return the conditions of the ranges after a value, in order."""
        if value is None:
            return [self.column.is_not(None)] if self.nulls_first else []
        descending = self.direction.startswith('desc')
        beyond = self.column < value if descending else self.column > value
        if self.column.nullable and not self.nulls_first:
            return [beyond, self.column.is_(None)]
        return [beyond]


class Listing:
    """How a resource is listed: its rows, filters and sort keys.

    :param row_class: the Row class of the resource, soft-deleted or not
    :param filters: names of the columns, and labelled expressions, that
        callers may filter by
    :param sort_keys: column name to the index that has the rows in this
        order after ``deleted``; None where there is none
    :param scoped_by: a column that lists are often filtered by alone
    :param scoped_sort_keys: column name to the index that has the rows in
        this order after that column and ``deleted``
    :param special: name of a filter to a function that returns its condition,
        where it is on no column of the row
    """

    def __init__(
        self,
        row_class: type[Row],
        filters: Sequence[str],
        sort_keys: Mapping[str, str | None],
        scoped_by: str = '',
        scoped_sort_keys: Mapping[str, str] | None = None,
        special: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self.row_class = row_class
        self.table: Any = row_class.columns[0].table
        by_name = {column.key: column for column in row_class.columns}
        self.filters = {name: by_name[name] for name in filters}
        self.sort_keys = sort_keys
        self.scoped_by = scoped_by
        self.scoped_sort_keys = scoped_sort_keys or {}
        self.special = special or {}

    def page(
        self,
        context: RequestContext,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        sort_keys: Sequence[str] | None = None,
        sort_dirs: Sequence[str] | None = None,
    ) -> 'Page':
        """Check what a caller asked for, and return the page to read.

        :param context: the caller, whose read_deleted counts
        :param filters: name to a value, or to a list of allowed ones; a
            filter that is None is left out
        :param limit: rows at most; None is all
        :param marker: the id of the last row of the page before
        :param sort_keys: names of columns; the id is always the last one
        :param sort_dirs: a direction for each key: asc or desc, with
            -nullsfirst or -nullslast; the first also fills those left out
        :raises InvalidInput: when any of it is not as described
        """
        if marker is not None:
            validation.check_text('marker', marker)
        check_limit(limit)
        filtered = self.check_filters(filters)
        keys = self._check_sort(sort_keys or ['id'], sort_dirs or [])
        index = self._index(_given(filters), keys)
        if context.read_deleted != 'no':
            index = None
        return Page(
            listing=self,
            conditions=[
                *visible(self.table, context.read_deleted),
                *filtered,
            ],
            limit=limit,
            marker=marker,
            keys=keys,
            index=index,
            scope=self._scope(context),
        )

    def check_filters(self, filters: Mapping[str, Any] | None) -> list[Any]:
        """Return the conditions that filters say, as SQL.

        :param filters: as for page()
        :raises InvalidInput: when one is unknown, or its value does not fit
        """
        found = []
        for name, wanted in _given(filters).items():
            if name in self.special:
                found.append(self.special[name](wanted))
                continue
            if name not in self.filters:
                allowed = ', '.join(sorted([*self.filters, *self.special]))
                raise _invalid('filters', f'{name!r} is none of {allowed}')
            conditions.check(self.filters[name], wanted, name)
            found.append(conditions.condition(self.filters[name], wanted))
        return found

    def _scope(self, context: RequestContext) -> list[Any]:
        """Return the conditions of the rows that may be a caller's marker."""
        if context.is_admin or not self.scoped_by:
            return []
        return [self.table.c[self.scoped_by] == context.project_id]

    def _index(
        self, filters: Mapping[str, Any], keys: list[SortKey]
    ) -> str | None:
        """Return the index that has the rows of a list in their order.

        Only where nothing else is asked of them: else another index may find
        them faster than this one passes by the others.
        """
        name = keys[0].column.key
        if len(keys) > 2:
            return None
        if not filters:
            return self.sort_keys[name]
        scoped = filters.keys() == {self.scoped_by}
        if scoped and conditions.equals_one(filters[self.scoped_by]):
            return self.scoped_sort_keys.get(name)
        return None

    def _check_sort(
        self, names: Sequence[str], directions: Sequence[str]
    ) -> list[SortKey]:
        for field, value in (('sort_keys', names), ('sort_dirs', directions)):
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise _invalid(field, f'{value!r} is not a list')
        if len(directions) > len(names):
            raise _invalid('sort_dirs', 'there are more of them than keys')
        for name in names:
            if not isinstance(name, str) or name not in self.sort_keys:
                allowed = ', '.join(sorted(self.sort_keys))
                raise _invalid('sort_keys', f'{name!r} is none of {allowed}')
        for direction in directions:
            if not isinstance(direction, str) or direction not in _NULLS_FIRST:
                allowed = ', '.join(_NULLS_FIRST)
                raise _invalid(
                    'sort_dirs', f'{direction!r} is none of {allowed}'
                )
        default = directions[0] if directions else 'asc'
        filled = [*directions, *[default] * (len(names) - len(directions))]
        keys = dict(zip(names, filled, strict=True))
        if len(keys) < len(names):
            raise _invalid('sort_keys', 'a key is named twice')
        keys.setdefault('id', default)
        return [SortKey(self.table.c[key], keys[key]) for key in keys]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that has been checked and not yet read."""

    listing: Listing
    conditions: list[Any]
    limit: int | None
    marker: str | None
    keys: list[SortKey]
    index: str | None
    scope: list[Any]
    leaves_out_nulls: bool = False

    def read(self, *, session: AnySession) -> list[Any]:
        """Return the rows of the page, in order.

        :param session: an open session
        :raises MarkerNotFound: when the marker is no row; one that was
            soft-deleted meanwhile still marks its place
        """
        if self.limit == 0:
            return []
        mysql = session.get_bind().dialect.name in ('mysql', 'mariadb')
        page = dataclasses.replace(self, leaves_out_nulls=mysql)
        return page._read(session)

    def _read(self, session: AnySession) -> list[Any]:
        statement = self._statement(self._ranges(session))
        rows = session.execute(statement)
        return [self.listing.row_class(row) for row in rows]

    def _ranges(self, session: AnySession) -> list[list[Any]]:
        if self.marker is None:
            return self.keys[0].start()
        table = self.listing.table
        values = session.execute(
            sa.select(*(key.column for key in self.keys)).where(
                table.c.id == self.marker, *self.scope
            )
        ).one_or_none()
        if values is None:
            raise exception.MarkerNotFound(marker=self.marker)
        # Behind (a, b): first the rows with this a and a later b, then those
        # with a later a. So the ranges are disjoint, and come in order.
        ranges = []
        for depth in reversed(range(len(self.keys))):
            equal = [
                key.equal(value)
                for key, value in zip(
                    self.keys[:depth], values[:depth], strict=True
                )
            ]
            ranges += [
                [*equal, beyond]
                for beyond in self.keys[depth].after(values[depth])
            ]
        return ranges

    def _statement(self, ranges: list[list[Any]]) -> Any:
        if len(ranges) == 1:
            return self._range(ranges[0])
        parts = [
            sa.select(self._range(conditions).subquery())
            for conditions in ranges
        ]
        union = sa.union_all(*parts).subquery()
        order = [
            element
            for key in self.keys
            for element in key.order(union.c, True)
        ]
        return sa.select(*union.c).order_by(*order).limit(self.limit)

    def _range(self, conditions: list[Any]) -> Any:
        table = self.listing.table
        # A range has one value, or NULL, of each key but the last that it
        # names: the index has it in order as it is. But MariaDB sorts all the
        # rows that are NULL if it is asked to, and PostgreSQL finds the index
        # only if it is.
        same = {
            condition.left.key
            for condition in conditions
            if condition.operator is operators.is_ and self.leaves_out_nulls
        }
        order = [
            element
            for number, key in enumerate(self.keys)
            if key.column.key not in same
            for element in key.order(table.c, nulls=number > 0)
        ]
        statement = (
            sa.select(*self.listing.row_class.columns)
            .where(*self.conditions, *conditions)
            .order_by(*order)
            .limit(self.limit)
        )
        if self.index is not None:
            # MariaDB prefers the rows with deleted = '', all of them, to the
            # range of the same index that the page is.
            for dialect in ('mysql', 'mariadb'):
                statement = statement.with_hint(
                    table, f'FORCE INDEX ({self.index})', dialect
                )
        return statement


def with_filter(
    filters: Mapping[str, Any] | None, name: str, value: Any
) -> Mapping[str, Any]:
    """Return filters with one more, which wins over one of the same name.

    :param filters: as ``Listing.page`` takes them
    :param name: of the filter that is added
    :param value: its value; with None the filters stay as they are
    :raises InvalidInput: when filters is no dict
    """
    filters = {} if filters is None else filters
    if not isinstance(filters, Mapping):
        raise _invalid('filters', f'{filters!r:.100} is not a dict')
    return filters if value is None else {**filters, name: value}


def upsert(
    dialect: sa.Dialect,
    table: Any,
    key: Sequence[str],
    values: Mapping[str, Any],
    update: Mapping[str, Any],
) -> Any:
    """Return the statement that inserts a row, or updates the one there is.

    :param dialect: of the engine that will execute it
    :param table: the Table
    :param key: the columns of the unique key that decides
    :param values: column to value, for a new row
    :param update: column to value, for a row that is there
    """
    if dialect.name == 'postgresql':
        return (
            postgresql.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    if dialect.name == 'sqlite':
        return (
            sqlite.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    return mysql.insert(table).values(**values).on_duplicate_key_update(update)


def get(
    read_deleted: ReadDeleted,
    row_class: type[Row],
    key: Mapping[str, Any],
    *,
    session: AnySession,
) -> Any:
    """Read the row that has a key, and lock it inside a transaction.

    The lock is what makes read, decide, write safe at READ COMMITTED.

    :param read_deleted: as in a RequestContext
    :param row_class: the Row class of the resource
    :param key: column to value, a primary or unique key
    :param session: an open session
    :returns: the row, the latest of several deleted ones, or None
    """
    statement = _select(row_class, tuple(key), read_deleted, session.locks())
    row = session.execute(statement, key).first()
    return None if row is None else row_class(row)


@functools.cache
def _select(
    row_class: type[Row],
    key: tuple[str, ...],
    read_deleted: ReadDeleted,
    lock: bool,
) -> Any:
    # Building a statement costs as much as executing it; these are few.
    table: Any = row_class.columns[0].table
    statement = sa.select(*row_class.columns).where(
        *(table.c[name] == sa.bindparam(name) for name in key),
        *visible(table, read_deleted),
    )
    if read_deleted != 'no':
        # The living one first, then the one that was deleted last.
        statement = statement.order_by(
            table.c.deleted != '', table.c.deleted.desc()
        )
    return statement.with_for_update() if lock else statement


def visible(table: Any, read_deleted: ReadDeleted) -> list[Any]:
    """Return the conditions of the rows that are not hidden.

    :param table: a Table with soft-deleted rows
    :param read_deleted: as in a RequestContext
    """
    if read_deleted == 'no':
        return [table.c.deleted == '']
    if read_deleted == 'only':
        return [table.c.deleted != '']
    return []


def _given(filters: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: wanted
        for name, wanted in with_filter(filters, '', None).items()
        if wanted is not None
    }


def check_limit(limit: Any) -> None:
    """Refuse what is no number of rows to return.

    :param limit: a number from 0 on; None is all
    :raises InvalidInput: when it is something else
    """
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise _invalid('limit', f'{limit!r} is not a number from 0 on')
    if limit >= 2**63:
        raise _invalid('limit', f'{limit} is out of range')


def _invalid(field: str, reason: str) -> exception.InvalidInput:
    return exception.InvalidInput(field=field, reason=reason)

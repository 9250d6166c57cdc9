"""Lists: filters, sorting, marker pages.

A page is read as one *range* of an index after the marker, or as a few of
them joined by UNION ALL, each with the LIMIT of the page. One clause for all
of them, as oslo.db's ``paginate_query`` writes it, would make a server read
every row before the marker, and drops rows whose sort key is NULL.

NULL is smallest here, on every server, unless a direction says otherwise.

To build a statement costs more than to execute it. So what a caller asks for
is taken apart into its *shape*, which decides the text of the statement, and
its *parameters*. Statements are kept by their shapes.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import operators

from myservice import exception
from myservice import plain
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.query import conditions
from myservice.db.query import lookup
from myservice.db.query.conditions import Clause
from myservice.db.query.conditions import Column
from myservice.db.query.conditions import Criteria
from myservice.db.query.conditions import Shapes
from myservice.db.query.keyset import SortKey
from myservice.db.query.keyset import check_sort
from myservice.db.query.keyset import ranges
from myservice.db.rows import Row
from myservice.db.sql import dialects
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

R = TypeVar('R', bound=Row)

_LIMIT = sa.bindparam('page_limit', type_=sa.Integer())


class Special(NamedTuple):
    """A filter that is not on a column of the row.

    :param check: refuses a value that does not fit; returns the shape of the
        condition, a hashable, and its parameters
    :param clause: returns the SQL of a shape
    """

    check: Callable[[object], tuple[Hashable, Mapping[str, object]]]
    clause: Callable[[Any], Clause]


class Listing(Generic[R]):
    """How a resource is listed: its rows, filters and sort keys.

    :param row_class: the Row class of the resource, soft-deleted or not
    :param filters: names of the columns, and labelled expressions, that
        callers may filter by
    :param sort_keys: column name to the index that has the rows in this
        order after ``deleted``; None where there is none
    :param scoped_by: a column that lists are often filtered by alone
    :param scoped_sort_keys: column name to the index that has the rows in
        this order after that column and ``deleted``
    :param special: name to a filter that is not on a column of the row
    :param selective: names of those filters on columns in whose index each
        value has few rows
    """

    def __init__(
        self,
        row_class: type[R],
        filters: Sequence[str],
        sort_keys: Mapping[str, str | None],
        scoped_by: str = '',
        scoped_sort_keys: Mapping[str, str] | None = None,
        special: Mapping[str, Special] | None = None,
        selective: Collection[str] = (),
    ) -> None:
        self.row_class = row_class
        self.table: sa.Table = row_class.columns[0].table
        by_name = {column.key: column for column in row_class.columns}
        self.filters: dict[str, Column] = {
            name: by_name[name] for name in filters
        }
        self.sort_keys = sort_keys
        self.scoped_by = scoped_by
        self.scoped_sort_keys = scoped_sort_keys or {}
        self.special = special or {}
        self.selective = selective

    def page(
        self,
        context: RequestContext,
        filters: Mapping[str, object] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        sort_keys: Sequence[str] | None = None,
        sort_dirs: Sequence[str] | None = None,
    ) -> 'Page[R]':
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
        criteria = self.check_filters(filters)
        keys = check_sort(sort_keys or ['id'], sort_dirs or [], self.sort_keys)
        whole = context.is_admin or not self.scoped_by
        return Page(
            self,
            _Shape(
                read_deleted=context.read_deleted,
                filters=criteria.shapes,
                keys=tuple(keys.items()),
                limited=limit is not None,
            ),
            {**criteria.parameters, 'page_limit': limit},
            marker,
            None if whole else plain.plain(context.project_id),
        )

    def check_filters(self, filters: Mapping[str, object] | None) -> Criteria:
        """Return the shapes and parameters of filters.

        :param filters: as for page()
        :raises InvalidInput: when one is unknown, or its value does not fit
        """
        shapes: list[tuple[str, Hashable]] = []
        parameters: dict[str, object] = {}
        for name, wanted in with_filter(filters, '', None).items():
            if wanted is not None:
                shape, values = self._check_filter(name, wanted)
                shapes.append((name, shape))
                parameters |= values
        return Criteria(tuple(shapes), parameters)

    def _check_filter(
        self, name: str, wanted: object
    ) -> tuple[Hashable, Mapping[str, object]]:
        if name in self.special:
            return self.special[name].check(wanted)
        if name not in self.filters:
            allowed = {**self.filters, **self.special}
            raise validation.none_of('filters', name, allowed)
        condition = conditions.of(wanted)
        condition.check(self.filters[name], name)
        return condition.shape(), condition.parameters(name)

    def clauses(self, shapes: Shapes, few: bool = False) -> list[Clause]:
        """Return the SQL of filters.

        :param shapes: those that check_filters returns
        :param few: whether SQLite is to find the rows by those filters that
            are selective
        """
        found = []
        for name, shape in shapes:
            if name in self.special:
                found.append(self.special[name].clause(shape))
                continue
            column = self.filters[name]
            if few and name not in self.selective:
                column = dialects.without_index(column)
            found.append(shape.clause(column, name))
        return found

    def index(self, shape: '_Shape') -> str | None:
        """Return the index that has the rows of a page in their order.

        Only where the page has no other filter: else another index may find
        its rows faster than this one skips the others.

        :param shape: of the page
        """
        name = shape.keys[0][0]
        if len(shape.keys) > 2 or shape.read_deleted != 'no':
            return None
        if not shape.filters:
            return self.sort_keys[name]
        if shape.filters == ((self.scoped_by, conditions.ONE),):
            return self.scoped_sort_keys.get(name)
        return None

    def is_selective(self, shape: '_Shape') -> bool:
        """Return whether the filters of a page let few rows pass.

        :param shape: of the page
        """
        return any(
            name in self.selective and each == conditions.ONE
            for name, each in shape.filters
        )


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What a caller decides of the text of a page's statement.

    :param read_deleted: as in a RequestContext
    :param filters: the shapes that check_filters returns
    :param keys: column name and direction of each
    :param limited: whether there is a limit
    """

    read_deleted: ReadDeleted
    filters: Shapes
    keys: tuple[tuple[str, str], ...]
    limited: bool


class Page(NamedTuple, Generic[R]):
    """A page that has been checked and not yet read.

    :param listing: whose page it is
    :param shape: what decides its statement
    :param parameters: those of the statement
    :param marker: the id of the last row of the page before
    :param project_id: the project whose rows may be the marker; None is any
    """

    listing: Listing[R]
    shape: _Shape
    parameters: dict[str, object]
    marker: str | None
    project_id: str | None

    def read(self, *, session: AnySession) -> list[R]:
        """Return the rows of the page, in order.

        :param session: an open session
        :raises MarkerNotFound: when there is no row with the marker's id; one
            that was soft-deleted meanwhile still marks its place
        """
        if self.parameters['page_limit'] == 0:
            return []
        place = self._place(session)
        statement = _page_statement(
            self.listing,
            self.shape,
            backend_of(session.get_bind().dialect),
            None
            if place is None
            else tuple(value is None for value in place.values()),
        )
        rows = session.execute(statement, {**self.parameters, **(place or {})})
        return [self.listing.row_class(row) for row in rows]

    def _place(self, session: AnySession) -> dict[str, object] | None:
        """Return the parameters of the marker; None where there is none."""
        if self.marker is None:
            return None
        scoped = self.project_id is not None
        names = tuple(name for name, _ in self.shape.keys)
        found = session.execute(
            _marker_statement(self.listing, names, scoped),
            {'marker': self.marker, 'of_project': self.project_id},
        ).one_or_none()
        if found is None:
            raise exception.MarkerNotFound(marker=self.marker)
        return {
            f'marker_{number}': value for number, value in enumerate(found)
        }


# Bounded: callers may ask for ever new shapes.
_cached = functools.lru_cache(maxsize=1000)


@_cached
def _marker_statement(
    listing: Listing[Any], names: tuple[str, ...], scoped: bool
) -> sa.Select[Any]:
    table = listing.table
    statement = sa.select(*(table.c[name] for name in names)).where(
        table.c.id == sa.bindparam('marker')
    )
    if scoped:
        column = table.c[listing.scoped_by]
        statement = statement.where(column == sa.bindparam('of_project'))
    return statement


@_cached
def _page_statement(
    listing: Listing[Any],
    shape: _Shape,
    backend: Backend,
    marker: tuple[bool, ...] | None,
) -> sa.Select[Any]:
    """Return the SELECT of a page.

    :param listing: whose page it is
    :param shape: of the page
    :param backend: which database it is
    :param marker: which of the marker's values are NULL; None is no marker
    """
    keys = [
        SortKey(listing.table.c[name], direction, f'marker_{number}')
        for number, (name, direction) in enumerate(shape.keys)
    ]
    # To sort a few rows is faster than to look for them twice.
    whole = marker is None and listing.is_selective(shape)
    parts = [
        _range_statement(listing, shape, backend, keys, clauses)
        for clauses in ([[]] if whole else ranges(backend, marker, keys))
    ]
    if len(parts) == 1:
        return parts[0]
    union = sa.union_all(
        *(sa.select(part.subquery()) for part in parts)
    ).subquery()
    order = [
        element for key in keys for element in key.order(union.c, nulls=True)
    ]
    return _limited(shape, sa.select(*union.c).order_by(*order))


def _limited(shape: _Shape, statement: sa.Select[Any]) -> sa.Select[Any]:
    return statement.limit(_LIMIT) if shape.limited else statement


def _range_statement(
    listing: Listing[Any],
    shape: _Shape,
    backend: Backend,
    keys: list[SortKey],
    clauses: list[Clause],
) -> sa.Select[Any]:
    table = listing.table
    able = dialects.ABILITIES[backend]
    # A range has one value, or NULL, of each key but the last that it names,
    # so ORDER BY needs none of these. With one that is NULL, MariaDB sorts all
    # the rows; without it, PostgreSQL does not find the index.
    same = {
        clause.left.key
        for clause in clauses
        if isinstance(clause, sa.BinaryExpression)
        and clause.operator is operators.is_
        and able.sorts_by_nulls
    }
    # SQLite prefers the index of the order to that of the filter: it does not
    # see the values, nor, even after ANALYZE, that most rows have NULL.
    few = not able.sees_values and listing.is_selective(shape)
    order = [
        element
        for number, key in enumerate(keys)
        if key.column.key not in same
        for element in key.order(
            table.c,
            nulls=(number > 0 or not clauses) and not key.is_plain(backend),
            by_index=not few,
        )
    ]
    statement = (
        sa.select(*listing.row_class.columns)
        .where(
            *lookup.visible(table, shape.read_deleted),
            *listing.clauses(shape.filters, few),
            *clauses,
        )
        .order_by(*order)
    )
    index = listing.index(shape)
    if index is not None:
        # MariaDB would read all the rows with deleted = '' rather than the
        # range of the same index that has the page.
        statement = dialects.force_index(statement, table, index)
    return _limited(shape, statement)


def with_filter(
    filters: Mapping[str, object] | None, name: str, value: object
) -> Mapping[str, object]:
    """Return filters with one more, which replaces one of the same name.

    :param filters: as ``Listing.page`` takes them
    :param name: of the filter that is added
    :param value: its value; with None the filters stay as they are
    :raises InvalidInput: when filters is not a dict
    """
    filters = {} if filters is None else filters
    validation.check_dict('filters', filters)
    return filters if value is None else {**filters, name: value}


def check_limit(limit: object) -> None:
    """Refuse what is not a number of rows to return.

    :param limit: a number from 0 on; None is all
    :raises InvalidInput: when it is something else
    """
    if limit is not None:
        validation.check_whole('limit', limit, 0)

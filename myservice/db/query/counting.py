"""Counts: how many rows a list has, of all or for each value of a column."""

import functools
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import sqlalchemy as sa

from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.query import lookup
from myservice.db.query.conditions import Criteria
from myservice.db.query.conditions import Shapes
from myservice.db.query.listing import Listing
from myservice.db.transaction.session import AnySession


class Count(NamedTuple):
    """A count that has been checked and not yet read.

    :param listing: whose rows are counted
    :param read_deleted: as in a RequestContext
    :param criteria: as Listing.check_filters returns them
    :param group_by: the column for each value of which rows are counted; None
        is all rows together
    """

    listing: Listing[Any]
    read_deleted: ReadDeleted
    criteria: Criteria
    group_by: str | None

    def read(self, *, session: AnySession) -> int | dict[Any, int]:
        """Return how many rows there are: a number, or value to number.

        :param session: an open session
        """
        statement = _count_statement(
            self.listing,
            self.read_deleted,
            self.criteria.shapes,
            self.group_by,
        )
        result = session.execute(statement, self.criteria.parameters)
        if self.group_by is None:
            return int(result.scalar_one())
        return {row.value: row.number for row in result}


def check_count(
    context: RequestContext,
    listing: Listing[Any],
    filters: Mapping[str, object] | None,
    group_by: Any,
    columns: Collection[str],
) -> Count:
    """Check what a caller wants to be counted, and return the count to read.

    :param context: the caller, whose read_deleted counts
    :param listing: whose rows are counted
    :param filters: as for Listing.page
    :param group_by: one of the columns, or None
    :param columns: those that a caller may group by
    :raises InvalidInput: when a filter, or the column, is not as described
    """
    criteria = listing.check_filters(filters)
    if group_by is not None:
        validation.check_text('group_by', group_by)
        if group_by not in columns:
            raise validation.none_of('group_by', group_by, columns)
    return Count(listing, context.read_deleted, criteria, group_by)


# Bounded: callers may ask for ever new shapes.
@functools.lru_cache(maxsize=1000)
def _count_statement(
    listing: Listing[Any],
    read_deleted: ReadDeleted,
    shapes: Shapes,
    group_by: str | None,
) -> sa.Select[Any]:
    number = sa.func.count().label('number')
    clauses = (
        *lookup.visible(listing.table, read_deleted),
        *listing.clauses(shapes),
    )
    if group_by is None:
        return sa.select(number).select_from(listing.table).where(*clauses)
    by_name = {each.key: each for each in listing.row_class.columns}
    # By its name: is_up has parameters, and servers do not see that they are
    # the same in SELECT and GROUP BY.
    value = by_name[group_by].label('value')
    return sa.select(value, number).where(*clauses).group_by('value')

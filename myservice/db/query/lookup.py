"""One row by its key, and which soft-deleted rows are hidden."""

import functools
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import sqlalchemy as sa

from myservice.context import ReadDeleted
from myservice.db.rows import Row
from myservice.db.transaction.session import AnySession

R = TypeVar('R', bound=Row)


def get(
    read_deleted: ReadDeleted,
    row_class: type[R],
    key: Mapping[str, object],
    *,
    session: AnySession,
) -> R | None:
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


def get_one(
    read_deleted: ReadDeleted,
    row_class: type[R],
    key: Mapping[str, object],
    *,
    session: AnySession,
) -> R:
    """Read and lock, as get, the row that a key has for certain.

    :param read_deleted: as in a RequestContext
    :param row_class: the Row class of the resource
    :param key: column to value, a primary or unique key
    :param session: an open session
    :returns: the row
    """
    statement = _select(row_class, tuple(key), read_deleted, session.locks())
    return row_class(session.execute(statement, key).one())


def get_many(
    statement: sa.Select[Any],
    row_class: type[R],
    ids: Iterable[str],
    parameters: Mapping[str, object],
    *,
    session: AnySession,
) -> tuple[list[R], list[str]]:
    """Read the rows that have some ids; nothing is locked.

    :param statement: selects the columns of the class, by the list ``ids``
    :param row_class: the Row class of the resource
    :param ids: the ids
    :param parameters: the other parameters of the statement
    :param session: an open session
    :returns: the rows in the order of the ids, and the ids that have none
    """
    asked = list(ids)
    once = list(dict.fromkeys(asked))
    result = session.execute(statement, {'ids': once, **parameters})
    found = {row.id: row_class(row) for row in result}
    missing = [each for each in once if each not in found]
    return [found[each] for each in asked if each in found], missing


@functools.cache
def _select(
    row_class: type[Row],
    key: tuple[str, ...],
    read_deleted: ReadDeleted,
    lock: bool,
) -> sa.Executable:
    # Building a statement costs as much as executing it; these are few.
    table = row_class.__table__
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


def visible(
    table: sa.Table, read_deleted: ReadDeleted
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the rows that are not hidden.

    :param table: a Table with soft-deleted rows
    :param read_deleted: as in a RequestContext
    """
    if read_deleted == 'no':
        return [table.c.deleted == '']
    if read_deleted == 'only':
        return [table.c.deleted != '']
    return []

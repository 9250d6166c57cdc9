"""Rows by a key, those that are hidden, and the upsert of each server."""

import functools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite

from myservice.context import ReadDeleted
from myservice.db.rows import Row
from myservice.db.sql import dialects
from myservice.db.sql.dialects import Backend
from myservice.db.transaction.session import AnySession


def force_index(statement: Any, table: Any, index: str) -> Any:
    """Return a statement for which MariaDB uses an index, and no other.

    :param statement: a SELECT or UPDATE
    :param table: the Table that has the index
    :param index: its name
    """
    for name in dialects.NAMES['mysql']:
        statement = statement.with_hint(
            text=f'FORCE INDEX ({index})',
            selectable=table,
            dialect_name=name,
        )
    return statement


def upsert(
    backend: Backend,
    table: Any,
    key: Sequence[str],
    values: Mapping[str, Any],
    update: Mapping[str, Any],
) -> Any:
    """Return the statement that inserts a row, or updates the one there is.

    :param backend: which database it is
    :param table: the Table
    :param key: the columns of the unique key that decides
    :param values: column to value, or parameter, for a new row
    :param update: the same, for a row that is there; MariaDB changes them one
        by one, in this order
    """
    if backend == 'postgresql':
        return (
            postgresql.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    if backend == 'sqlite':
        return (
            sqlite.insert(table)
            .values(**values)
            .on_conflict_do_update(index_elements=key, set_=update)
        )
    in_order: Any = list(update.items())
    return (
        mysql.insert(table).values(**values).on_duplicate_key_update(in_order)
    )


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

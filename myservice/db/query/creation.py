"""Rows whose id the caller has chosen, so that a create can be repeated."""

import functools
from collections.abc import Collection
from collections.abc import Mapping
from typing import TypeVar

import sqlalchemy as sa

from myservice.db.query import lookup
from myservice.db.rows import Row
from myservice.db.sql import dialects
from myservice.db.sql.dialects import Backend
from myservice.db.transaction.session import AnySession

R = TypeVar('R', bound=Row)


def insert(
    row_class: type[R], columns: Mapping[str, object], *, session: AnySession
) -> R | None:
    """Insert a row, unless one of its keys is in use.

    No statement fails, so a transaction that it joins can go on.

    :param row_class: the Row class of the resource
    :param columns: column to value; among them the id
    :param session: an open session
    :returns: the row that has the id now, also a deleted one; None if no row
        has it, as another key is in use
    """
    backend = dialects.backend_of(session.get_bind().dialect)
    statement = _insert_statement(backend, row_class.__table__)
    session.execute(statement, dict(columns))
    return lookup.get('yes', row_class, {'id': columns['id']}, session=session)


@functools.cache
def _insert_statement(backend: Backend, table: sa.Table) -> sa.Insert:
    return dialects.insert_if_new(backend, table)


def is_made_of(
    row: Row, values: Mapping[str, object], defaults: Collection[str] = ()
) -> bool:
    """Return whether a row has the values that a create was called with.

    :param row: the row
    :param values: the values
    :param defaults: the columns that have their defaults if values have none
    """
    columns = row.__table__.c
    wanted = {
        **{
            name: getattr(columns[name].default, 'arg', None)
            for name in defaults
        },
        **values,
    }
    return all(row[name] == value for name, value in wanted.items())

"""A table of limits: of projects, or of classes."""

from typing import Generic
from typing import NoReturn
from typing import TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice.context import RequestContext
from myservice.db.query import lookup
from myservice.db.rows import Row
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.transaction.session import AnySession

R = TypeVar('R', bound=Row)


class Limits(Generic[R]):
    """A table of limits: of projects, or of classes.

    :param row_class: the class of its rows
    :param owner: the column that says whose limit it is
    :param exists: the error for a limit that exists already
    :param not_found: the error for a limit that does not exist
    """

    def __init__(
        self,
        row_class: type[R],
        owner: str,
        *,
        exists: type[exception.Conflict],
        not_found: type[exception.NotFound],
    ) -> None:
        self._row_class = row_class
        self._owner = owner
        self._exists = exists
        self._not_found = not_found
        self._table = row_class.__table__
        living = (
            self._table.c[owner] == sa.bindparam('of_owner'),
            self._table.c.resource == sa.bindparam('of_resource'),
            self._table.c.deleted == '',
        )
        self._update = (
            self._by_owner(sa.update(self._table))
            .where(*living)
            .values(limit=sa.bindparam('new_limit'), updated_at=clock.utcnow())
        )
        self._destroy = (
            self._by_owner(sa.update(self._table))
            .where(*living)
            .values(
                deleted=sa.bindparam('operation'), deleted_at=clock.utcnow()
            )
        )

        self._set = {
            backend: self._set_statement(backend) for backend in dialects.NAMES
        }

    def _by_owner(self, update: sa.Update) -> sa.Update:
        # By this index MariaDB locks the limits that a reserve reads. In a
        # small table an UPDATE would lock the row first and its index entry
        # last, which is a deadlock.
        name = f'uq_{self._table.name}_{self._owner}_resource_deleted'
        return dialects.force_index(update, self._table, name)

    def create(
        self, owner: str, resource: str, limit: int, *, session: AnySession
    ) -> R:
        """Insert a limit and return its row."""
        key = {self._owner: owner, 'resource': resource}
        row_id = session.operation.id
        try:
            session.execute(
                sa.insert(self._table), {'id': row_id, **key, 'limit': limit}
            )
        except db_exception.DBDuplicateEntry as error:
            raise self._exists(**key) from error
        # It may have been destroyed since.
        return lookup.get_one(
            'yes', self._row_class, {'id': row_id}, session=session
        )

    def get(
        self,
        context: RequestContext,
        owner: str,
        resource: str,
        *,
        session: AnySession,
    ) -> R:
        """Return the row of a limit."""
        key = {self._owner: owner, 'resource': resource}
        row = lookup.get(
            context.read_deleted, self._row_class, key, session=session
        )
        return row or self._missing(owner, resource)

    def update(
        self, owner: str, resource: str, limit: int, *, session: AnySession
    ) -> None:
        """Change a limit."""
        self._execute(
            self._update, owner, resource, session=session, new_limit=limit
        )

    def set(
        self, owner: str, resource: str, limit: int, *, session: AnySession
    ) -> None:
        """Insert a limit, or change an existing one."""
        backend = dialects.backend_of(session.get_bind().dialect)
        session.execute(
            self._set[backend],
            {
                'of_owner': owner,
                'of_resource': resource,
                'new_limit': limit,
                'new_id': session.operation.id,
            },
        )

    def _set_statement(self, backend: dialects.Backend) -> sa.Insert:
        limit: sa.BindParameter[int] = sa.bindparam('new_limit')
        return dialects.upsert(
            backend,
            self._table,
            (self._owner, 'resource', 'deleted'),
            {
                'id': sa.bindparam('new_id'),
                self._owner: sa.bindparam('of_owner'),
                'resource': sa.bindparam('of_resource'),
                'limit': limit,
            },
            {'limit': limit, 'updated_at': clock.utcnow()},
        )

    def destroy(
        self, owner: str, resource: str, *, session: AnySession
    ) -> None:
        """Mark a limit deleted."""
        self._execute(
            self._destroy,
            owner,
            resource,
            session=session,
            operation=session.operation.id,
        )

    def _execute(
        self,
        statement: sa.Update,
        owner: str,
        resource: str,
        *,
        session: AnySession,
        **values: object,
    ) -> None:
        key = {'of_owner': owner, 'of_resource': resource}
        if session.execute(statement, key | values).rowcount != 1:
            self._missing(owner, resource)

    def _missing(self, owner: str, resource: str) -> NoReturn:
        raise self._not_found(**{self._owner: owner, 'resource': resource})

"""The holder of a resource: parts of the statements that assign it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.db import service_rows
from myservice.db.models import ResourceRow
from myservice.db.query.conditions import Clause
from myservice.db.resources import access
from myservice.db.resources import fencing
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.sql.dialects import Backend
from myservice.db.transaction.session import AnySession

_TABLE = access.TABLE

_RESOURCE_ID = sa.bindparam('claimed_id', type_=_TABLE.c.id.type)
_OPERATION = sa.bindparam('claimed_by', type_=_TABLE.c.operation.type)


def shared(service: sa.Select[Any]) -> sa.Select[Any]:
    """Return a SELECT of a service that locks it against being destroyed.

    :param service: the SELECT
    """
    # On PostgreSQL the service can beat meanwhile.
    return service.with_for_update(read=True, key_share=True)


LOCK_SHARED = shared(service_rows.ONE)


def if_registered(service: sa.Select[Any], numbered: bool) -> sa.Select[Any]:
    """Return a SELECT of a service, on the condition of its registration.

    :param service: the SELECT
    :param numbered: whether a registration has to hold
    """
    return service.where(service_rows.HOLDS) if numbered else service


def names_both(service: sa.FromClause) -> Clause:
    """Return a clause that is always true, and names resource and service.

    SQLAlchemy warns of a join where no clause names both tables.

    :param service: the service, whose id is never NULL
    """
    return sa.func.coalesce(service.c.id, _TABLE.c.service_id) == service.c.id


def values(
    service_id: sa.ColumnElement[Any], new: sa.ColumnElement[int]
) -> list[tuple[Any, Any]]:
    """Return what an UPDATE sets to assign a holder, in this order.

    :param service_id: the holder
    :param new: the new generation
    """
    # MariaDB evaluates SET from left to right: claim_generation, which reads
    # the generation, comes before its change.
    return [
        (_TABLE.c.service_id, service_id),
        (_TABLE.c.claim_generation, fencing.NEXT_GENERATION),
        (_TABLE.c.generation, new),
        (_TABLE.c.operation, _OPERATION),
        (_TABLE.c.updated_at, clock.utcnow()),
    ]


def statement(
    backend: Backend, service_id: sa.ColumnElement[Any], *conditions: Clause
) -> sa.UpdateBase:
    """Return the UPDATE that assigns the holder of one living resource.

    :param backend: which database it is
    :param service_id: the holder
    :param conditions: those of the resource, besides
    """
    returns = dialects.ABILITIES[backend].returns_updates
    # MariaDB has no UPDATE … RETURNING.
    new = (
        fencing.NEXT_GENERATION
        if returns
        else sa.func.last_insert_id(fencing.NEXT_GENERATION)
    )
    update = (
        sa.update(_TABLE)
        .where(_TABLE.c.id == _RESOURCE_ID, _TABLE.c.deleted == '')
        .where(*conditions)
        .ordered_values(*values(service_id, new))
    )
    return update.returning(_TABLE.c.generation) if returns else update


def statement_of_service(
    backend: Backend, numbered: bool, *conditions: Clause
) -> sa.UpdateBase:
    """Return the UPDATE that makes a living service the holder.

    :param backend: which database it is
    :param numbered: whether a registration has to hold
    :param conditions: those of the resource, besides
    """
    # A join locks the service, where a subquery would read it without.
    living = dialects.evaluated_once(
        backend, if_registered(LOCK_SHARED, numbered), 'living'
    )
    return statement(backend, living.c.id, *conditions, names_both(living))


def assign(
    backend: Backend,
    update: sa.UpdateBase,
    resource_id: str,
    parameters: Mapping[str, object],
    *,
    session: AnySession,
) -> int | None:
    """Assign the holder of a resource.

    :param backend: which database it is
    :param update: as ``statement`` returns it
    :param resource_id: the resource
    :param parameters: those of its conditions
    :param session: an open session
    :returns: the new generation; None when no resource meets the conditions
    """
    result = session.execute(
        update,
        {
            **parameters,
            'claimed_id': resource_id,
            'claimed_by': session.operation.id,
        },
    )
    if dialects.ABILITIES[backend].returns_updates:
        generation: int | None = result.scalar()
        return generation
    return int(result.lastrowid) if result.rowcount else None


def claimed(
    row: ResourceRow, *, session: AnySession
) -> exception.ResourceClaimed:
    """Return the error that a service holds a resource, with its host.

    :param row: the resource
    :param session: an open session
    """
    service = session.execute(
        service_rows.ONE, {'living_service': row.service_id}
    ).first()
    return exception.ResourceClaimed(
        resource_id=row.id,
        service_id=row.service_id,
        host=None if service is None else service.host,
    )

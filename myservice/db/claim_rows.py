"""The statements of claims: how resources get a holder, and lose him."""

import functools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.db import clock
from myservice.db import conditions
from myservice.db import models
from myservice.db import reservation_rows
from myservice.db import resource_rows
from myservice.db.models import Service
from myservice.db.resource_rows import Claim
from myservice.db.session import AnySession

_TABLE = resource_rows.TABLE
_SERVICES: Any = Service.__table__

_RESOURCE_ID = sa.bindparam('claimed_id', type_=_TABLE.c.id.type)
_SERVICE_ID = sa.bindparam('claiming_service', type_=_SERVICES.c.id.type)
_OPERATION = sa.bindparam('claimed_by', type_=_TABLE.c.operation.type)

# Frees what the caller's conditions say.
FREE: Any = (
    sa.update(_TABLE)
    .where(_TABLE.c.deleted == '')
    .values(
        service_id=None,
        claim_generation=None,
        generation=_TABLE.c.generation + 1,
        operation=sa.bindparam('freed_by', type_=_TABLE.c.operation.type),
        updated_at=clock.utcnow(),
    )
)

_NEXT: Any = _TABLE.c.generation + 1


def _held(service_id: Any, operation: Any, new: Any) -> list[Any]:
    # SET goes from left to right in MariaDB: claim_generation, which reads
    # the generation, comes before its change.
    return [
        (_TABLE.c.service_id, service_id),
        (_TABLE.c.claim_generation, _NEXT),
        (_TABLE.c.generation, new),
        (_TABLE.c.operation, operation),
        (_TABLE.c.updated_at, clock.utcnow()),
    ]


def claim(
    resource_id: str, service_id: str, *, session: AnySession
) -> int | None:
    """Claim a free resource for a living service, in one statement.

    :param resource_id: the resource
    :param service_id: the service
    :param session: an open session
    :returns: the new generation; None when one of the two is not so
    """
    dialect = session.get_bind().dialect.name
    result = session.execute(
        _claiming(dialect),
        {
            'claimed_id': resource_id,
            'claiming_service': service_id,
            'claimed_by': session.operation.id,
        },
    )
    if dialect not in ('mysql', 'mariadb'):
        generation: int | None = result.scalar()
        return generation
    return int(result.lastrowid) if result.rowcount else None


@functools.cache
def _claiming(dialect: str) -> Any:
    mysql = dialect in ('mysql', 'mariadb')
    # It has no UPDATE … RETURNING.
    new = sa.func.last_insert_id(_NEXT) if mysql else _NEXT
    # A join locks the service, where a subquery would read it without.
    living = reservation_rows.evaluated_once(
        dialect,
        sa.select(_SERVICES.c.id)
        .where(_SERVICES.c.id == _SERVICE_ID, _SERVICES.c.deleted == '')
        .with_for_update(read=True, key_share=True),
        'living',
    )
    statement = (
        sa.update(_TABLE)
        .where(
            _TABLE.c.id == _RESOURCE_ID,
            _TABLE.c.service_id.is_(None),
            _TABLE.c.deleted == '',
            # Which it is, since it is NULL; SQLAlchemy warns of a join where
            # no condition names both.
            sa.func.coalesce(_TABLE.c.service_id, living.c.id) == living.c.id,
        )
        .ordered_values(*_held(living.c.id, _OPERATION, new))
    )
    return statement if mysql else statement.returning(_TABLE.c.generation)


def refusal(
    context: RequestContext,
    resource_id: str,
    service_id: str,
    *,
    session: AnySession,
) -> exception.MyServiceError:
    """Return why a resource could not be claimed.

    :param context: the caller
    :param resource_id: the resource
    :param service_id: the service
    :param session: an open session
    :raises ResourceNotFound: when no living resource has this id
    """
    row = resource_rows.get_for_writing(
        context, resource_id, None, session=session
    )
    if not lives(service_id, session=session):
        return exception.ServiceNotFound(service_id=service_id)
    # It may have been released since.
    return exception.ResourceClaimed(
        resource_id=resource_id, service_id=row.service_id
    )


def lives(service_id: str, *, session: AnySession) -> bool:
    """Return whether a service lives.

    :param service_id: its id
    :param session: an open session
    """
    row = session.execute(
        sa.select(_SERVICES.c.id).where(
            _SERVICES.c.id == service_id, _SERVICES.c.deleted == ''
        )
    ).first()
    return row is not None


def lock_service(service_id: str, *, session: AnySession) -> Any:
    """Lock a living service against being destroyed.

    A repeated attempt waits until the one before it, which has locked the
    service, is over.

    :param service_id: its id
    :param session: an open transaction
    :returns: a row with disabled and forced_down
    :raises ServiceNotFound: when no living service has this id
    """
    shared = session.operation.attempt == 1
    row = session.execute(
        sa.select(_SERVICES.c.disabled, _SERVICES.c.forced_down)
        .where(_SERVICES.c.id == service_id, _SERVICES.c.deleted == '')
        .with_for_update(read=shared, key_share=shared)
    ).first()
    if row is None:
        raise exception.ServiceNotFound(service_id=service_id)
    return row


def of_earlier_attempt(service_id: str, *, session: AnySession) -> list[Claim]:
    """Return what an earlier attempt of this call has claimed.

    :param service_id: the service, which the caller has locked
    :param session: an open transaction
    """
    if session.operation.attempt == 1:
        return []
    rows = session.execute(
        sa.select(_TABLE.c.id, _TABLE.c.claim_generation)
        .where(
            _TABLE.c.service_id == service_id,
            _TABLE.c.operation == session.operation.id,
        )
        .order_by(_TABLE.c.created_at, _TABLE.c.id)
    )
    return [Claim(row.id, service_id, row.claim_generation) for row in rows]


def lock_free(
    filters: Mapping[str, Any] | None, limit: int, *, session: AnySession
) -> list[Any]:
    """Lock resources that nobody holds or has locked, oldest first.

    :param filters: as resource_get_all takes them
    :param limit: how many at most
    :param session: an open transaction
    :returns: rows with id and generation
    """
    dialect = session.get_bind().dialect.name
    # What is NULL in all of them changes no order, and tells PostgreSQL's
    # planner by which index they are in it; MariaDB is told by name.
    order = [_TABLE.c.created_at, _TABLE.c.id]
    if dialect == 'postgresql':
        order.insert(0, _TABLE.c.service_id)
    status = (filters or {}).get('status')
    by_status = status is not None and conditions.equals_one(status)
    index = 'ix_resources_free_by_status' if by_status else 'ix_resources_free'
    statement = (
        sa.select(_TABLE.c.id, _TABLE.c.generation)
        .where(
            _TABLE.c.service_id.is_(None),
            _TABLE.c.deleted == '',
            *resource_rows.check_filters(filters),
        )
        .order_by(*order)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    for name in ('mysql', 'mariadb'):
        statement = statement.with_hint(_TABLE, f'FORCE INDEX ({index})', name)
    return list(session.execute(statement))


def claim_all(
    free: Sequence[Any], service_id: str, *, session: AnySession
) -> None:
    """Claim resources for a service, all of which the caller has locked.

    :param free: what lock_free returned
    :param service_id: the service
    :param session: an open transaction
    """
    session.execute(
        sa.update(_TABLE)
        .where(_TABLE.c.id.in_([row.id for row in free]))
        .ordered_values(*_held(service_id, session.operation.id, _NEXT))
    )


def free_all_of(service_id: str, *, session: AnySession) -> int:
    """Free what a service holds, which the caller has locked.

    :param service_id: the service
    :param session: an open transaction
    :returns: how many claims there were
    """
    result = session.execute(
        FREE.where(_TABLE.c.service_id == service_id),
        {'freed_by': session.operation.id},
    )
    return int(result.rowcount)


def count_of(service_id: str, *, session: AnySession) -> int:
    """Return how many claims a service holds.

    :param service_id: the service
    :param session: an open session
    """
    statement = sa.select(sa.func.count()).where(
        _TABLE.c.service_id == service_id, _TABLE.c.deleted == ''
    )
    return int(session.scalar(statement))


def free_those_of_the_dead(*, session: AnySession) -> int:
    """Free what services hold that are down, in one statement.

    :param session: an open session
    :returns: how many claims there were
    """
    dialect = session.get_bind().dialect.name
    down = reservation_rows.evaluated_once(
        dialect,
        sa.select(_SERVICES.c.id)
        .where(sa.not_(models.is_up(_SERVICES.c)))
        .with_for_update(read=True),
        'down',
    )
    result = session.execute(
        FREE.where(_TABLE.c.service_id == down.c.id),
        {'freed_by': session.operation.id},
    )
    return int(result.rowcount)

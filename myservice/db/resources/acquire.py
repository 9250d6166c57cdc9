"""SQL that assigns the holder of resources."""

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.db import service_rows
from myservice.db.query import conditions
from myservice.db.query.conditions import Criteria
from myservice.db.query.conditions import Shapes
from myservice.db.resources import access
from myservice.db.resources import fencing
from myservice.db.resources import holder
from myservice.db.resources.fencing import Claim
from myservice.db.resources.listing import LISTING
from myservice.db.sql import dialects
from myservice.db.sql import in_list
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

_TABLE = access.TABLE
_SERVICES = service_rows.TABLE

_LOCK_ALONE = service_rows.ONE.with_for_update()


def claim(
    resource_id: str,
    service_id: str,
    registration: int | None,
    *,
    session: AnySession,
) -> int | None:
    """Claim an unclaimed resource for a living service, in one statement.

    :param resource_id: the resource
    :param service_id: the service
    :param registration: the one that has to hold; None is any
    :param session: an open session
    :returns: the new generation; None when it cannot be claimed, which
        ``refusal`` explains
    """
    backend = backend_of(session.get_bind().dialect)
    return holder.assign(
        backend,
        _claim_statement(backend, registration is not None),
        resource_id,
        {'living_service': service_id, **service_rows.held(registration)},
        session=session,
    )


@functools.cache
def _claim_statement(backend: Backend, numbered: bool) -> sa.UpdateBase:
    return holder.statement_of_service(
        backend, numbered, _TABLE.c.service_id.is_(None)
    )


def refusal(
    context: RequestContext,
    resource_id: str,
    service_id: str,
    registration: int | None,
    *,
    session: AnySession,
) -> exception.MyServiceError:
    """Return why a resource could not be claimed.

    :param context: the caller
    :param resource_id: the resource
    :param service_id: the service
    :param registration: the one that has to hold; None is any
    :param session: an open session
    :raises ResourceNotFound: when no living resource has this id
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    # Before the resource: this error says that the caller has to stop.
    service = session.execute(
        service_rows.ONE, {'living_service': service_id}
    ).first()
    service_rows.check(service, service_id, registration)
    row = access.get_for_writing(context, resource_id, None, session=session)
    # It may have been released since.
    return holder.claimed(row, session=session)


def lock_service(
    service_id: str, registration: int | None, *, session: AnySession
) -> None:
    """Lock a living service against being destroyed, or registered anew.

    A repeated attempt waits for the end of the one before it, which may still
    hold its lock of the service.

    :param service_id: its id
    :param registration: the one that has to hold; None is any
    :param session: an open transaction
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    first = session.operation.attempt == 1
    row = session.execute(
        holder.LOCK_SHARED if first else _LOCK_ALONE,
        {'living_service': service_id},
    ).first()
    service_rows.check(row, service_id, registration)


def of_earlier_attempt(
    service_id: str, registration: int | None, *, session: AnySession
) -> list[Claim]:
    """Return what an earlier attempt of this call has claimed.

    :param service_id: the service, which the caller has locked
    :param registration: the one that the call has given
    :param session: an open transaction
    """
    rows = session.execute(
        sa.select(_TABLE.c.id, _TABLE.c.claim_generation)
        .where(
            _TABLE.c.service_id == service_id,
            _TABLE.c.operation == session.operation.id,
        )
        .order_by(_TABLE.c.created_at, _TABLE.c.id)
    )
    return [
        Claim(row.id, service_id, row.claim_generation, registration)
        for row in rows
    ]


def claim_unclaimed(
    service_id: str,
    registration: int | None,
    criteria: Criteria,
    limit: int,
    *,
    session: AnySession,
) -> list[Claim]:
    """Claim resources that nobody holds or has locked, oldest first.

    :param service_id: the service
    :param registration: the one that has to hold; None is any
    :param criteria: as LISTING.check_filters returns them
    :param limit: how many at most
    :param session: an open transaction
    :returns: the claims; none for a service that may not get work
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    backend = backend_of(session.get_bind().dialect)
    wanted = {**criteria.parameters, 'how_many': limit}
    for_whom = {
        'living_service': service_id,
        'claimed_by': session.operation.id,
        **service_rows.held(registration),
    }
    numbered = registration is not None
    if dialects.ABILITIES[backend].returns_updates:
        update = _claim_unclaimed_statement(backend, criteria.shapes, numbered)
        rows = session.execute(update, wanted | for_whom).all()
    else:
        select = _lock_unclaimed_statement(backend, criteria.shapes)
        locked = session.execute(select, wanted).all()
        rows = _claim_locked(backend, numbered, locked, for_whom, session)
    if not rows:
        # It refuses a service that does not live.
        lock_service(service_id, registration, session=session)
    return [
        Claim(row.id, service_id, row.next, registration)
        for row in sorted(rows, key=lambda row: (row.created_at, row.id))
    ]


def _claim_locked(
    backend: Backend,
    numbered: bool,
    locked: Sequence[sa.Row[*tuple[Any, ...]]],
    for_whom: dict[str, object],
    session: AnySession,
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    if not locked:
        return []
    ids = [row.id for row in locked]
    result = session.execute(
        _claim_locked_statement(backend, in_list.how_many(ids), numbered),
        {**for_whom, **in_list.members('locked', ids)},
    )
    # It reaches none if the service may not get work.
    return locked if result.rowcount else []


@functools.lru_cache(maxsize=1000)
def _lock_unclaimed_statement(
    backend: Backend, shapes: Shapes
) -> sa.Select[Any]:
    """Return the SELECT that locks unclaimed resources.

    :param backend: which database it is
    :param shapes: those of the filters
    """
    # service_id is NULL in all of them, so it does not change the order. With
    # it, PostgreSQL's planner finds the index that has them in this order;
    # MariaDB is told its name.
    order = [_TABLE.c.created_at, _TABLE.c.id]
    if dialects.ABILITIES[backend].finds_index_by_order:
        order.insert(0, _TABLE.c.service_id)
    statement: sa.Select[Any] = (
        sa.select(
            _TABLE.c.id,
            _TABLE.c.created_at,
            fencing.NEXT_GENERATION.label('next'),
        )
        .where(
            _TABLE.c.service_id.is_(None),
            _TABLE.c.deleted == '',
            *LISTING.clauses(shapes),
        )
        .order_by(*order)
        .limit(sa.bindparam('how_many', type_=sa.Integer()))
        .with_for_update(skip_locked=True)
    )
    by_status = ('status', conditions.ONE) in shapes
    index = f'ix_resources_free{"_by_status" if by_status else ""}'
    statement = dialects.force_index(statement, _TABLE, index)
    return statement


# The service, if it may get work, locked against being destroyed.
_WORKING = holder.shared(
    service_rows.ONE.where(
        _SERVICES.c.disabled == sa.false(),
        _SERVICES.c.forced_down == sa.false(),
    )
)


@functools.cache
def _claim_locked_statement(
    backend: Backend, number: int, numbered: bool
) -> sa.UpdateBase:
    """Return the UPDATE that claims resources, which the caller has locked.

    :param backend: which database it is
    :param number: of the resources, as in_list.how_many returns it
    :param numbered: whether a registration has to hold
    """
    working = dialects.evaluated_once(
        backend, holder.if_registered(_WORKING, numbered), 'working'
    )
    return (
        sa.update(_TABLE)
        .where(
            in_list.is_member(_TABLE.c.id, 'locked', number),
            holder.names_both(working),
        )
        .ordered_values(*holder.values(working.c.id, fencing.NEXT_GENERATION))
    )


@functools.lru_cache(maxsize=1000)
def _claim_unclaimed_statement(
    backend: Backend, shapes: Shapes, numbered: bool
) -> sa.UpdateBase:
    """Return the UPDATE that finds, locks and claims resources."""
    working = holder.if_registered(_WORKING, numbered).cte('working')
    # A scalar subquery is evaluated before the rows that it decides on, so
    # the service is locked first.
    works = sa.select(working.c.id).scalar_subquery().is_not(None)
    unclaimed = (
        _lock_unclaimed_statement(backend, shapes)
        .where(works)
        .cte('unclaimed')
    )
    return (
        sa.update(_TABLE)
        .where(_TABLE.c.id == unclaimed.c.id)
        .ordered_values(
            *holder.values(service_rows.SERVICE_ID, fencing.NEXT_GENERATION)
        )
        .returning(
            _TABLE.c.id, _TABLE.c.created_at, _TABLE.c.generation.label('next')
        )
    )

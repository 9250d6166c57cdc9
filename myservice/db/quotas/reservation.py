"""Reservations: parts of a quota that a project has not used yet.

``quota_reserve`` takes from the quota before there is anything to count, and
``reservation_commit`` turns that into use once there is::

    with db.api.transaction(ctx):
        reservations = db.api.quota_reserve(ctx, {'snapshots': 1})
        ...
        db.api.reservation_commit(ctx, reservations)

If the two are in different transactions, a reservation that is never committed
expires. The rows of a resource with a counter are created or deleted in the
transaction of the commit. Do not commit ``resources`` and ``gigabytes``:
``resource_create`` takes them by itself; roll back a reservation that held
room for one in the same transaction.
"""

import datetime
from collections.abc import Collection
from collections.abc import Mapping

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.context import require_project
from myservice.db import validation
from myservice.db.engine import engines
from myservice.db.models import Reservation
from myservice.db.quotas import enforcement
from myservice.db.quotas import ledger
from myservice.db.quotas import limits
from myservice.db.sql import clock
from myservice.db.sql import in_list
from myservice.db.transaction.retry import in_batches
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session
from myservice.db.transaction.session import undo_on_refusal

_TABLE = Reservation.__table__

# The columns that explain an error, or that a retry needs.
_FOUND = sa.select(_TABLE.c.id, _TABLE.c.state, _TABLE.c.operation).where(
    in_list.is_member(_TABLE.c.id, 'ids')
)
_DELETE = sa.delete(_TABLE).where(in_list.is_member(_TABLE.c.id, 'ids'))


def _reserved(
    context: RequestContext,
    deltas: Mapping[str, int],
    project_id: str | None = None,
    expire: float | datetime.timedelta | datetime.datetime | None = None,
    *,
    session: AnySession,
) -> list[str]:
    ids = [session.operation.id_for(resource) for resource in deltas]
    if len(session.execute(_FOUND, {'ids': ids}).all()) != len(ids):
        raise exception.NotFound()
    return ids


@retry_on_failure(settle=_reserved)
def quota_reserve(
    context: RequestContext,
    deltas: Mapping[str, int],
    project_id: str | None = None,
    expire: float | datetime.timedelta | datetime.datetime | None = None,
) -> list[str]:
    """Reserve parts of a project's quota, all of them or nothing.

    Overdue reservations do not count. A negative delta always fits, and gives
    quota back only when it is committed. A delta of 0 does not fit if the
    limit is already exceeded.

    A resource has a quota if it is counted or [quota] default_limits names it;
    ``quota_get_defaults`` returns those that have one.

    :param context: a caller of the project, or an administrator
    :param deltas: resource to how much more of it
    :param project_id: the project; by default that of the context
    :param expire: when it expires unless it is committed: in how many seconds,
        as a number or a timedelta, or at which time; by default in [quota]
        reservation_expire seconds
    :returns: the ids of the reservations, in the order of deltas
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when deltas or expire is something else, or
        no project is named
    :raises QuotaResourceUnknown: an InvalidInput, when a resource has no
        quota
    :raises OverQuota: when it does not fit into the limits
    :raises QuotaUsageOverflow: when a counter could not hold it
    """
    project_id = require_project(context, project_id, 'quota_reserve')
    validation.check_name('project_id', project_id)
    limits.check_deltas(deltas)
    validation.check_expiry('expire', expire)
    session = get_session(context, core=True)
    with session.begin():
        with undo_on_refusal(context):
            ids = ledger.insert(project_id, deltas, expire, session=session)
            enforcement.take(
                project_id, deltas, 'reserved', ids, session=session
            )
        return ids


def _ended(
    context: RequestContext,
    reservations: Collection[str],
    project_id: str | None = None,
    *,
    session: AnySession,
) -> None:
    ids = set(reservations)
    found = session.execute(_FOUND, {'ids': sorted(ids)})
    ended = [row for row in found if row.operation == session.operation.id]
    if len(ended) != len(ids):
        raise exception.NotFound()


@retry_on_failure(settle=_ended)
def reservation_commit(
    context: RequestContext,
    reservations: Collection[str],
    project_id: str | None = None,
) -> None:
    """Turn reservations into use, all of them or nothing.

    Create or delete the rows that are counted in the same transaction;
    otherwise ``quota_usage_sync`` finds that they are missing.

    :param context: a caller of the project, or an administrator
    :param reservations: the ids that ``quota_reserve`` has returned
    :param project_id: the project; by default that of the context
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when reservations is not a list of ids, or no project
        is named
    :raises ReservationNotFound: when one was ended, or is not of the project
    :raises ReservationExpired: when one was not committed in time
    """
    project_id = require_project(context, project_id, 'reservation_commit')
    validation.check_name('project_id', project_id)
    validation.check_texts('reservations', reservations)
    session = get_session(context, core=True)
    with session.begin():
        with undo_on_refusal(context):
            _end(
                context,
                project_id,
                reservations,
                Reservation.COMMITTED,
                session=session,
            )


@retry_on_failure(settle=_ended)
def reservation_rollback(
    context: RequestContext,
    reservations: Collection[str],
    project_id: str | None = None,
) -> None:
    """Give reservations back, all of them or nothing.

    :param context: a caller of the project, or an administrator
    :param reservations: the ids that ``quota_reserve`` has returned
    :param project_id: the project; by default that of the context
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when reservations is not a list of ids, or no project
        is named
    :raises ReservationNotFound: when one was ended, or is not of the project
    :raises ReservationExpired: when one has expired, which gives it back too
    """
    project_id = require_project(context, project_id, 'reservation_rollback')
    validation.check_name('project_id', project_id)
    validation.check_texts('reservations', reservations)
    session = get_session(context, core=True)
    with session.begin():
        with undo_on_refusal(context):
            _end(
                context,
                project_id,
                reservations,
                Reservation.ROLLED_BACK,
                session=session,
            )


@in_batches
@retry_on_failure
def reservation_expire(context: RequestContext, batch_size: int = 200) -> int:
    """Give back overdue reservations that were never committed.

    Nothing waits for it: an overdue reservation can no longer be committed,
    and does not count. Any number of callers may do it at once.

    :param context: an administrator's context
    :param batch_size: how many in one transaction
    :returns: how many reservations were given back
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when batch_size is not a positive integer
    """
    require_admin(context, 'reservation_expire')
    validation.check_batch_size(batch_size)
    session = get_session(context, core=True)
    with session.begin():
        overdue = session.execute(
            sa.select(_TABLE.c.id, _TABLE.c.project_id)
            .where(*ledger.OVERDUE)
            .order_by(_TABLE.c.expire_at)
            .limit(batch_size)
        ).all()
        if not overdue:
            return 0
        return ledger.end(
            [row.id for row in overdue],
            {row.project_id for row in overdue},
            Reservation.EXPIRED,
            session=session,
        )


@in_batches
@retry_on_failure
def reservation_purge(context: RequestContext, batch_size: int = 1000) -> int:
    """Delete reservations that ended long ago.

    They are kept for [database] operation_lifetime after they would have
    expired, so that a retry finds what became of them.

    :param context: an administrator's context
    :param batch_size: how many in one transaction
    :returns: how many were deleted
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when batch_size is not a positive integer
    """
    require_admin(context, 'reservation_purge')
    validation.check_batch_size(batch_size)
    session = get_session(context, core=True)
    with session.begin():
        lifetime = engines.get_conf().database.operation_lifetime
        old = session.scalars(
            sa.select(_TABLE.c.id)
            .where(
                _TABLE.c.state.in_(
                    (
                        Reservation.COMMITTED,
                        Reservation.ROLLED_BACK,
                        Reservation.EXPIRED,
                    )
                ),
                _TABLE.c.expire_at < clock.seconds_ago(lifetime),
            )
            .limit(batch_size)
        ).all()
        if old:
            session.execute(_DELETE, {'ids': old})
        return len(old)


def _end(
    context: RequestContext,
    project_id: str,
    reservations: Collection[str],
    state: str,
    *,
    session: AnySession,
) -> None:
    ids = sorted(set(reservations))
    if not ids:
        return
    reached = ledger.end(ids, [project_id], state, session=session)
    if reached == len(ids):
        return
    found = {
        row.id: row
        for row in session.execute(
            _FOUND.where(_TABLE.c.project_id == project_id), {'ids': ids}
        )
    }
    # Reservations that were valid have the wanted state by now.
    ours = {i for i in found if found[i].operation == session.operation.id}
    expired = {
        i
        for i in found.keys() - ours
        if found[i].state in (Reservation.RESERVED, Reservation.EXPIRED)
    }
    missing = set(ids) - ours - expired
    kind = (
        exception.ReservationNotFound
        if missing
        else exception.ReservationExpired
    )
    raise kind(
        project_id=project_id, reservation_ids=sorted(missing or expired)
    )

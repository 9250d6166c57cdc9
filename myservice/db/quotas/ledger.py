"""The rows of reservations: how they are made, and how they end.

See enforcement.py for the order in which rows are locked.
"""

import datetime
import functools
from collections.abc import Collection
from collections.abc import Mapping
from typing import NamedTuple
from typing import TypeVar
from typing import TypeVarTuple

import sqlalchemy as sa

from myservice.db.engine import engines
from myservice.db.models import QuotaUsage
from myservice.db.models import Reservation
from myservice.db.operation import new_id
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.sql import in_list
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

_USAGE = QuotaUsage.__table__
_RESERVATION = Reservation.__table__

_ENDED_BY = sa.bindparam('ended_by', type_=_RESERVATION.c.operation.type)

T = TypeVar('T')
Ts = TypeVarTuple('Ts')

OVERDUE = (
    _RESERVATION.c.state == Reservation.RESERVED,
    _RESERVATION.c.expire_at <= clock.utcnow(),
)


def insert(
    project_id: str,
    deltas: Mapping[str, int],
    expire: float | datetime.timedelta | datetime.datetime | None,
    *,
    session: AnySession,
) -> list[str]:
    """Insert reservations, in one statement.

    :param project_id: the project
    :param deltas: resource to number
    :param expire: as ``quota_reserve`` takes it
    :param session: an open transaction
    :returns: their ids, the same ones in every attempt of a call
    """
    if expire is None:
        expire = engines.get_conf().quota.reservation_expire
    if isinstance(expire, datetime.timedelta):
        expire = expire.total_seconds()
    by_clock = not isinstance(expire, datetime.datetime)
    parameters: dict[str, object] = {'of_project': project_id}
    if not isinstance(expire, datetime.datetime):
        # The clock's SQL takes seconds ago.
        parameters['expire'] = -expire
    elif expire.tzinfo is None:
        parameters['expire'] = expire
    else:
        utc = expire.astimezone(datetime.UTC)
        parameters['expire'] = utc.replace(tzinfo=None)
    ids = []
    for number, (resource, delta) in enumerate(deltas.items()):
        ids.append(session.operation.id_for(resource))
        parameters[f'new_id_{number}'] = ids[-1]
        parameters[f'new_resource_{number}'] = resource
        parameters[f'new_delta_{number}'] = delta
    session.execute(_insert_statement(len(deltas), by_clock), parameters)
    return ids


@functools.cache
def _insert_statement(count: int, by_clock: bool) -> sa.Insert:
    """Return one INSERT for a number of reservations.

    :param count: how many
    :param by_clock: whether they expire some seconds from now, by the
        database's clock, or at a certain time
    """
    columns = _RESERVATION.c

    def given(name: str, column: sa.Column[T]) -> sa.BindParameter[T]:
        return sa.bindparam(name, type_=column.type)

    expire_at: sa.ColumnElement[datetime.datetime] = given(
        'expire', columns.expire_at
    )
    if by_clock:
        expire_at = clock.seconds_ago(sa.bindparam('expire', type_=sa.Float()))
    rows = [
        sa.select(
            given(f'new_id_{number}', columns.id),
            given('of_project', columns.project_id),
            given(f'new_resource_{number}', columns.resource),
            given(f'new_delta_{number}', columns.delta),
            expire_at,
            sa.literal(Reservation.RESERVED, columns.state.type),
            sa.literal('', columns.operation.type),
            clock.utcnow(),
        )
        for number in range(count)
    ]
    return sa.insert(_RESERVATION).from_select(
        [
            'id',
            'project_id',
            'resource',
            'delta',
            'expire_at',
            'state',
            'operation',
            'created_at',
        ],
        sa.union_all(*rows),
        include_defaults=False,
    )


def end(
    reservation_ids: Collection[str],
    project_ids: Collection[str],
    state: str,
    *,
    session: AnySession,
) -> int:
    """End reservations: two statements, however many there are.

    The first one decides who ends a reservation; the second one updates the
    usages of those that the first has reached.

    :param reservation_ids: their ids
    :param project_ids: the projects that they belong to
    :param state: what they become; for COMMITTED or ROLLED_BACK they must not
        be overdue, and if it does not reach all of them, the caller has to
        undo it
    :param session: an open transaction
    :returns: how many it reached
    """
    expiring = state == Reservation.EXPIRED
    number = _Number(
        in_list.how_many(project_ids), in_list.how_many(reservation_ids)
    )
    which = {
        **in_list.members('of_project', sorted(project_ids)),
        **in_list.members('reservation', sorted(reservation_ids)),
        # Reservations that an earlier attempt expired must not be settled
        # again; those that it committed or rolled back are not reached again.
        'ended_by': new_id() if expiring else session.operation.id,
    }
    reached = session.execute(
        _end_statement(number, in_time=not expiring),
        {**which, 'new_state': state},
    ).rowcount
    if expiring or reached == len(reservation_ids):
        backend = backend_of(session.get_bind().dialect)
        committing = state == Reservation.COMMITTED
        session.execute(_usage_statement(backend, number, committing), which)
    return int(reached)


class _Number(NamedTuple):
    """How many parameters a statement has, as in_list.how_many returns it."""

    projects: int
    reservations: int

    def of_projects(
        self, column: sa.ColumnElement[str]
    ) -> sa.ColumnElement[bool]:
        return in_list.is_member(column, 'of_project', self.projects)

    def ids(self) -> sa.ColumnElement[bool]:
        return in_list.is_member(
            _RESERVATION.c.id, 'reservation', self.reservations
        )


@functools.cache
def _end_statement(number: _Number, in_time: bool) -> sa.Update:
    """Return the UPDATE that decides who ends reservations.

    :param number: how many
    :param in_time: whether only those that are not overdue
    """
    statement = (
        sa.update(_RESERVATION)
        .where(
            number.ids(),
            number.of_projects(_RESERVATION.c.project_id),
            _RESERVATION.c.state == Reservation.RESERVED,
        )
        .values(
            state=sa.bindparam('new_state'),
            operation=_ENDED_BY,
            updated_at=clock.utcnow(),
        )
    )
    if in_time:
        return statement.where(_RESERVATION.c.expire_at > clock.utcnow())
    return statement


@functools.cache
def _usage_statement(
    backend: Backend, number: _Number, committing: bool
) -> sa.Update:
    """Return the UPDATE that takes ended reservations from ``reserved``.

    :param backend: which database it is
    :param number: how many
    :param committing: whether they are in use from now on
    """
    keys = (_RESERVATION.c.project_id, _RESERVATION.c.resource)
    changes = (
        by_primary_key(
            sa.select(
                *keys,
                sa.func.sum(dialects.not_negative(_RESERVATION.c.delta)).label(
                    'held'
                ),
                sa.func.sum(_RESERVATION.c.delta).label('change'),
            )
        )
        .where(number.ids(), _RESERVATION.c.operation == _ENDED_BY)
        .group_by(*keys)
        .subquery('changes')
    )
    # Locks in one order. An UPDATE alone has no order, and MariaDB would not
    # keep it if it could begin with the changes.
    rows = (
        sa.select(_USAGE, changes.c.held, changes.c.change)
        .where(
            _same(_USAGE, changes),
            number.of_projects(_USAGE.c.project_id),
        )
        .order_by(_USAGE.c.project_id, _USAGE.c.resource)
        .with_for_update(of=_USAGE)
    )
    rows = dialects.joined_in_order(backend, rows)
    locked = dialects.evaluated_once(backend, rows, 'locked')
    values = {
        'reserved': dialects.not_negative(locked.c.reserved - locked.c.held),
        'updated_at': clock.utcnow(),
    }
    if committing:
        values['in_use'] = dialects.not_negative(
            locked.c.in_use + locked.c.change
        )
    return (
        sa.update(_USAGE)
        .where(_same(_USAGE, locked), number.of_projects(_USAGE.c.project_id))
        .values(values)
    )


def _same(
    usage: sa.FromClause, other: sa.FromClause
) -> sa.ColumnElement[bool]:
    return sa.and_(
        usage.c.project_id == other.c.project_id,
        usage.c.resource == other.c.resource,
    )


def by_primary_key(select: sa.Select[*Ts]) -> sa.Select[*Ts]:
    """Return a SELECT of reservations that reads no others.

    MariaDB would rather read all of a small table, and locks, or waits for,
    each row that it reads.

    :param select: the SELECT, which names the ids
    """
    select = dialects.force_index(select, _RESERVATION, 'PRIMARY')
    return select

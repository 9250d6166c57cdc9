"""The rows of quota_usages: all reads and all changes.

The lock order is the same everywhere, so that no two calls can deadlock:
reservations by id, then usages by project and resource. Nobody else can see
new reservations yet. If usages are already locked, an overdue reservation that
cannot be locked at once is skipped.
"""

import functools
from collections.abc import Collection
from collections.abc import Mapping
from typing import Literal

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice.db.models import Quota
from myservice.db.models import QuotaClass
from myservice.db.models import QuotaUsage
from myservice.db.models import Reservation
from myservice.db.quotas import counters
from myservice.db.quotas import ledger
from myservice.db.quotas import limits
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.sql import in_list
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

Column = Literal['in_use', 'reserved']

_USAGE = QuotaUsage.__table__
_RESERVATION = Reservation.__table__

_PROJECT = sa.bindparam('of_project', type_=_USAGE.c.project_id.type)
_CLASS_NAME = sa.bindparam('of_class', type_=_USAGE.c.project_id.type)


def take(
    project_id: str,
    deltas: Mapping[str, int],
    column: Column,
    new: Collection[str] = (),
    *,
    session: AnySession,
) -> None:
    """Add to usages, to all or none of them, if the limits allow it.

    If a limit forbids it, overdue reservations of the project are given back
    first.

    :param project_id: the project
    :param deltas: resource to number. A negative one always fits, and takes
        nothing from ``reserved``; 0 does not fit if the limit is exceeded
    :param column: the column to add to
    :param new: the ids of the reservations that this is for; they are not
        given back, even if they are overdue by now
    :param session: an open transaction
    :raises OverQuota: when it does not fit
    :raises QuotaUsageOverflow: when a counter could not hold it
    """
    names = sorted(deltas)
    backend = backend_of(session.get_bind().dialect)
    statement = _take_statement(backend, len(names), column)
    parameters: dict[str, object] = {
        'of_project': project_id,
        'of_class': limits.default_class(),
    }
    defaults = limits.defaults()
    for number, name in enumerate(names):
        parameters[f'asked_resource_{number}'] = name
        parameters[f'asked_delta_{number}'] = deltas[name]
        parameters[f'asked_default_{number}'] = defaults[name]

    def fits() -> bool:
        reached = session.execute(statement, parameters).rowcount
        if 0 < reached < len(names):
            # MariaDB has missed a usage that somebody added after that.
            raise db_exception.DBDeadlock(
                'usages were added while they were looked for'
            )
        return bool(reached)

    if fits():
        return
    # What this transaction uses is in the tables already, and would be
    # counted.
    counted = deltas if column == 'in_use' else {}
    _add_missing(project_id, names, counted, session=session)
    _give_back_overdue(project_id, names, new, session=session)
    if not fits():
        raise _refusal(project_id, deltas, session=session)


def give_back(
    project_id: str, amounts: Mapping[str, int], *, session: AnySession
) -> None:
    """Take from what a project has in use, which always fits.

    :param project_id: the project
    :param amounts: resource to number
    :param session: an open transaction
    """
    deltas = {name: -amount for name, amount in amounts.items()}
    take(project_id, deltas, 'in_use', session=session)


@functools.cache
def _take_statement(backend: Backend, count: int, column: Column) -> sa.Update:
    """Return the guarded UPDATE of a number of resources.

    The innermost SELECT locks all the rows in order, also those that do not
    fit: otherwise a statement after a refusal would lock them in another
    order.
    """
    names = [
        sa.bindparam(f'asked_resource_{number}', type_=_USAGE.c.resource.type)
        for number in range(count)
    ]

    def given(what: str) -> sa.ColumnElement[int]:
        return sa.case(
            *(
                (
                    _USAGE.c.resource == name,
                    sa.bindparam(
                        f'asked_{what}_{number}', type_=sa.BigInteger()
                    ),
                )
                for number, name in enumerate(names)
            )
        )

    limit = limits.limit_of(
        _PROJECT, _CLASS_NAME, _USAGE.c.resource, given('default')
    )
    rows = [
        _USAGE.c.project_id == _PROJECT,
        in_list.is_member(_USAGE.c.resource, 'asked_resource', count),
    ]
    rows_asked_for = (
        sa.select(
            _USAGE.c.resource,
            _USAGE.c[column].label('number'),
            (_USAGE.c.in_use + _USAGE.c.reserved).label('used'),
            given('delta').label('delta'),
            sa.func.coalesce(
                sa.func.nullif(limit, limits.UNLIMITED),
                limits.MAXIMUM,
            ).label('most'),
        )
        .where(*rows)
        .order_by(_USAGE.c.resource)
        .with_for_update()
    )
    asked = dialects.evaluated_once(backend, rows_asked_for, 'asked')
    # The sum of used and delta could be more than a number holds.
    fits = sa.or_(
        asked.c.delta < 0, asked.c.used <= asked.c.most - asked.c.delta
    )
    fitting = sa.func.sum(sa.case((fits, 1), else_=0)).over()
    verdict = sa.select(asked, fitting.label('fitting')).subquery('verdict')
    new = {
        'in_use': dialects.not_negative(verdict.c.number + verdict.c.delta),
        'reserved': verdict.c.number + dialects.not_negative(verdict.c.delta),
    }
    return (
        sa.update(_USAGE)
        .where(
            *rows,
            _USAGE.c.resource == verdict.c.resource,
            verdict.c.fitting == count,
        )
        .values({column: new[column], 'updated_at': clock.utcnow()})
    )


def _add_missing(
    project_id: str,
    names: list[str],
    counted: Mapping[str, int],
    *,
    session: AnySession,
) -> None:
    present = session.scalars(
        sa.select(_USAGE.c.resource).where(
            _USAGE.c.project_id == project_id,
            in_list.is_member(_USAGE.c.resource, 'names'),
        ),
        {'names': names},
    ).all()
    missing = [name for name in names if name not in present]
    numbers = counters.count(project_id, missing, session=session)
    for name in missing:
        key = {'project_id': project_id, 'resource': name}
        in_use = numbers[name] - counted.get(name, 0) if name in numbers else 0
        session.execute(
            dialects.upsert(
                backend_of(session.get_bind().dialect),
                _USAGE,
                tuple(key),
                {**key, 'in_use': in_use},
                {'project_id': project_id},
            )
        )


def _give_back_overdue(
    project_id: str,
    names: list[str],
    new: Collection[str],
    *,
    session: AnySession,
) -> None:
    overdue = session.scalars(
        sa.select(_RESERVATION.c.id).where(
            sa.not_(in_list.is_member(_RESERVATION.c.id, 'new')),
            _RESERVATION.c.project_id == project_id,
            in_list.is_member(_RESERVATION.c.resource, 'names'),
            *ledger.OVERDUE,
        ),
        {'new': list(new), 'names': names},
    ).all()
    if not overdue:
        return
    # MariaDB reads a row that is looked up by one key while it plans, and
    # would wait there; '' belongs to nobody.
    free = session.scalars(
        ledger.by_primary_key(sa.select(_RESERVATION.c.id))
        .where(
            in_list.is_member(_RESERVATION.c.id, 'overdue'),
            *ledger.OVERDUE,
        )
        .with_for_update(skip_locked=True),
        {'overdue': ['', *overdue]},
    ).all()
    if len(free) < len(overdue):
        # The transaction that ends the others waits for our usages: with what
        # it gives back it may fit, but it cannot go on before we end.
        raise db_exception.DBDeadlock(
            'a transaction that waits for these usages is ending overdue '
            'reservations'
        )
    ledger.end(free, [project_id], Reservation.EXPIRED, session=session)


def _refusal(
    project_id: str, deltas: Mapping[str, int], *, session: AnySession
) -> exception.Conflict:
    usages = read(project_id, deltas, session=session)
    wanted = {
        name: usages[name]['in_use'] + usages[name]['reserved'] + delta
        for name, delta in sorted(deltas.items())
        if delta >= 0
    }
    overs = [
        name
        for name, number in wanted.items()
        if number > usages[name]['limit'] != limits.UNLIMITED
    ]
    for name, number in wanted.items():
        if not overs and number > limits.MAXIMUM:
            return exception.QuotaUsageOverflow(
                project_id=project_id,
                resource=name,
                maximum=limits.MAXIMUM,
            )
    # No resource is over if a limit was raised in this very moment.
    overs = overs or list(wanted)
    return exception.OverQuota(
        project_id=project_id,
        explanation=exception.listed(
            [
                '{0}: {in_use} in use, {reserved} reserved, {1} asked for, '
                'limit {limit}'.format(name, deltas[name], **usages[name])
                for name in overs
            ],
            '; ',
        ),
        overs=overs,
        quotas={name: usages[name].pop('limit') for name in overs},
        usages={name: usages[name] for name in overs},
    )


def read(
    project_id: str,
    names: Collection[str] | None = None,
    *,
    session: AnySession,
) -> dict[str, dict[str, int]]:
    """Return limit, in_use and reserved of resources that have a quota.

    :param project_id: the project
    :param names: the resources; None is all
    :param session: an open session; it sends one statement, or more for a
        project that has never reserved
    """
    defaults = limits.defaults()
    wanted = defaults if names is None else names
    found: dict[str, dict[str, tuple[int, int]]] = {
        source: {} for source in ('usage', 'class', 'own')
    }
    for source, name, one, two in session.execute(
        _READ,
        {
            'of_project': project_id,
            'of_class': limits.default_class(),
        },
    ):
        found[source][name] = (one, two)
    in_force = {**found['class'], **found['own']}
    counted = counters.count(
        project_id, set(wanted) - found['usage'].keys(), session=session
    )
    usages = {}
    for name in wanted:
        missing = (counted.get(name, 0), 0)
        in_use, reserved = found['usage'].get(name, missing)
        limit, _ = in_force.get(name, (defaults[name], 0))
        usages[name] = {
            'limit': limit,
            'in_use': in_use,
            'reserved': reserved,
        }
    return usages


def _read_statement() -> sa.Executable:
    def limits_of(
        source: str, table: sa.Table, owner: sa.ColumnElement[bool]
    ) -> sa.Select[str, str, int, int]:
        return sa.select(
            sa.literal_column(f"'{source}'"),
            table.c.resource,
            table.c.limit,
            sa.literal_column('0'),
        ).where(owner, table.c.deleted == '')

    quota = Quota.__table__
    of_class = QuotaClass.__table__
    return sa.union_all(
        sa.select(
            sa.literal_column("'usage'"),
            _USAGE.c.resource,
            _USAGE.c.in_use,
            _USAGE.c.reserved,
        ).where(_USAGE.c.project_id == _PROJECT),
        limits_of('class', of_class, of_class.c.class_name == _CLASS_NAME),
        limits_of('own', quota, quota.c.project_id == _PROJECT),
    )


_READ = _read_statement()

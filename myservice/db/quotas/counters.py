"""How much of each resource projects really have, counted by SQL.

A resource module says at its import how its rows are counted::

    quota_counters.register(
        'resources',
        sa.select(sa.func.count())
        .select_from(_TABLE)
        .where(_TABLE.c.project_id == quota_counters.PROJECT, _LIVING),
    )

A project's first reservation starts from that number, and the usages are
compared with it. Callers register names of their own by
``db.api.quota_counter_register``. If a name has no counter, its use is the sum
of what was committed.
"""

import decimal
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from myservice.db import validation
from myservice.db.models import QuotaUsage
from myservice.db.models import Reservation
from myservice.db.transaction.session import AnySession

_USAGE = QuotaUsage.__table__
_RESERVATION = Reservation.__table__

#: Stands in the statement of a counter for the project whose rows it counts.
PROJECT = sa.bindparam('counted_project_id', type_=sa.String())

_counters: dict[str, sa.SelectBase] = {}

# SQLAlchemy's type for literal SQL is object.
_NUMBERS = (int, float, decimal.Decimal, object)


def register(resource: str, statement: sa.SelectBase) -> None:
    """Say how a resource is counted; the last one to say so counts.

    :param resource: its name
    :param statement: a SELECT of one number, with PROJECT in a condition
    """
    _counters[resource] = statement


def unregister(resource: str) -> None:
    """Remove the counter of a resource."""
    _counters.pop(resource, None)


def registered() -> dict[str, sa.SelectBase]:
    """Return the counters by the names of their resources."""
    return dict(_counters)


def check_statement(statement: object) -> None:
    """Refuse a statement that cannot count a resource.

    :param statement: a SELECT of one number, with PROJECT in a condition
    :raises InvalidInput: when it is something else
    """
    if not isinstance(statement, sa.SelectBase):
        raise validation.invalid(
            'statement', f'{statement!r:.100} is not a SELECT of SQLAlchemy'
        )
    columns = list(statement.selected_columns)
    if len(columns) != 1 or columns[0].type.python_type not in _NUMBERS:
        raise validation.invalid('statement', 'it does not select one number')
    open_parameters = {
        part.key
        for part in visitors.iterate(statement)
        if isinstance(part, sa.BindParameter) and part.required
    }
    if PROJECT.key not in open_parameters:
        raise validation.invalid(
            'statement', 'db.api.PROJECT is in none of its conditions'
        )
    if len(open_parameters) > 1:
        others = sorted(open_parameters - {PROJECT.key})
        raise validation.invalid(
            'statement', f'its parameters {others} have no values'
        )


def counter(resource: str) -> sa.ColumnElement[int] | None:
    """Return the number of a resource as an SQL expression, or None."""
    statement = _counters.get(resource)
    if statement is None:
        return None
    # SUM is a decimal on some servers, and NULL without rows.
    return sa.cast(
        sa.func.coalesce(statement.scalar_subquery(), 0), sa.BigInteger()
    )


def comparison() -> sa.Executable:
    """Return the SELECT of a project's usages, recorded and counted.

    Its columns are resource, in_use and counted, reserved and held; counted
    is NULL where no counter is registered.
    """
    counted = [
        (_USAGE.c.resource == resource, counter(resource))
        for resource in sorted(_counters)
    ]
    held = sa.select(
        sa.func.coalesce(
            sa.func.sum(
                sa.case(
                    (_RESERVATION.c.delta > 0, _RESERVATION.c.delta), else_=0
                )
            ),
            0,
        )
    ).where(
        _RESERVATION.c.project_id == _USAGE.c.project_id,
        _RESERVATION.c.resource == _USAGE.c.resource,
        _RESERVATION.c.state == Reservation.RESERVED,
    )
    return sa.select(
        _USAGE.c.resource,
        _USAGE.c.in_use,
        sa.case(*counted, else_=None).label('counted')
        if counted
        else sa.null().label('counted'),
        _USAGE.c.reserved,
        held.scalar_subquery().label('held'),
    ).where(_USAGE.c.project_id == PROJECT)


def count(
    project_id: str, resources: Iterable[str], *, session: AnySession
) -> dict[str, int]:
    """Return how much of resources a project has, in one statement.

    :param project_id: the project
    :param resources: names; those without a counter are left out
    :param session: an open session
    """
    columns = {
        name: expression
        for name in resources
        if (expression := counter(name)) is not None
    }
    if not columns:
        return {}
    numbers = session.execute(
        sa.select(*columns.values()), {PROJECT.key: project_id}
    ).one()
    return dict(zip(columns, map(int, numbers), strict=True))

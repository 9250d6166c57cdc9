"""Liveness: whether a service is up, as SQL, by the database's clock.

Importing this module gives ``Service`` its column ``is_up``.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import column_property
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from myservice.db.bases import SoftDeleteRow
from myservice.db.engine import engines
from myservice.db.models import Service
from myservice.db.sql import clock

_DOWN_TIME = sa.bindparam(
    'down_time',
    type_=sa.Float(),
    callable_=lambda: engines.get_conf().service.down_time,
)
# The same, as seconds ago.
_MOST_AHEAD = sa.bindparam(
    'most_ahead',
    type_=sa.Float(),
    callable_=lambda: -engines.get_conf().service.down_time,
)


def is_recent(
    last_sign: sa.ColumnElement[datetime.datetime],
    seconds: sa.ColumnElement[float] = _DOWN_TIME,
) -> sa.ColumnElement[bool]:
    """Return whether a sign of life is recent, as SQL.

    After a clock was set back, or on another node of a cluster, a heartbeat
    can be in the future. If it is ahead by [service] down_time at most, it
    counts as now: clocks differ by a little. If it is farther ahead, it does
    not count: the next heartbeat of a living service corrects it, but a
    stopped service would be taken for alive until the clock has caught up.

    :param last_sign: the time of the sign
    :param seconds: how many seconds ago it may be; by default [service]
        down_time
    """
    return sa.and_(
        last_sign >= clock.seconds_ago(seconds),
        last_sign <= clock.seconds_ago(_MOST_AHEAD),
    )


def is_up(
    service: ReadOnlyColumnCollection[str, KeyedColumnElement[Any]],
) -> sa.ColumnElement[bool]:
    """Return whether a service is up, as SQL: by the database's clock.

    :param service: the columns of the table, or of an alias of it
    """
    # A new service, without a heartbeat yet, counts from its creation.
    last_sign = sa.func.coalesce(service.last_seen_at, service.created_at)
    return sa.and_(
        service.forced_down == sa.false(),
        service.unregistered_at.is_(None),
        is_recent(last_sign),
    )


Service.is_up = column_property(is_up(Service.__table__.c))


class ServiceRow(
    SoftDeleteRow,
    table=Service.__table__,
    computed=[is_up(Service.__table__.c).label('is_up')],
    hidden=['operation'],
    init=False,
):
    """A service, with whether it is up."""

    __slots__ = ()

    host: str
    binary: str
    topic: str | None
    availability_zone: str | None
    version: int
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    last_seen_at: datetime.datetime | None
    registration: int
    unregistered_at: datetime.datetime | None
    is_up: bool

    not_found = Service.not_found

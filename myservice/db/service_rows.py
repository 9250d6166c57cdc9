"""The statements of services, and which registration of a service is valid.

A process that registers raises the number on its service's row: its
registration. Only the latest registration is valid, and only until it is
ended, so the number tells a process from another one that has taken its place.
"""

import functools
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa

from myservice import exception
from myservice.db import liveness
from myservice.db.models import Service
from myservice.db.operation import new_id
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.sql import in_list
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

TABLE = Service.__table__

#: the condition of a service that is not destroyed
LIVING = TABLE.c.deleted == ''

#: a parameter of the statements below
SERVICE_ID = sa.bindparam('living_service', type_=TABLE.c.id.type)
_REGISTRATION = sa.bindparam(
    'held_registration', type_=TABLE.c.registration.type
)
_OPERATION = sa.bindparam('registered_by', type_=TABLE.c.operation.type)

#: the columns that tell whether a registration of a service is valid
ONE = sa.select(
    TABLE.c.id,
    TABLE.c.host,
    TABLE.c.binary,
    TABLE.c.registration,
    TABLE.c.unregistered_at,
).where(TABLE.c.id == SERVICE_ID, LIVING)

_LATEST = TABLE.c.registration == _REGISTRATION
#: the condition of a service whose registration is valid
HOLDS = sa.and_(_LATEST, TABLE.c.unregistered_at.is_(None))

_BEAT = (
    sa.update(TABLE)
    .where(TABLE.c.id == SERVICE_ID, LIVING)
    .values(last_seen_at=clock.utcnow())
)
_BEAT_REGISTERED = _BEAT.where(HOLDS)

_BEAT_MANY = (
    sa.update(TABLE)
    .where(in_list.is_member(TABLE.c.id, 'service_ids'), LIVING)
    .values(last_seen_at=clock.utcnow())
)
_BEATS = in_list.rows('beats', TABLE.c.id, TABLE.c.registration)
_BEAT_MANY_REGISTERED = (
    sa.update(TABLE)
    .where(
        TABLE.c.id == _BEATS.c.id,
        LIVING,
        sa.or_(
            _BEATS.c.registration.is_(None),
            sa.and_(
                TABLE.c.registration == _BEATS.c.registration,
                TABLE.c.unregistered_at.is_(None),
            ),
        ),
    )
    .values(last_seen_at=clock.utcnow())
)

# When it is repeated, the first time counts.
_UNREGISTER = (
    sa.update(TABLE)
    .where(TABLE.c.id == SERVICE_ID, LIVING)
    .values(
        unregistered_at=sa.func.coalesce(
            TABLE.c.unregistered_at, clock.utcnow()
        )
    )
)
_UNREGISTER_LATEST = _UNREGISTER.where(_LATEST)


def held(registration: int | None) -> dict[str, object]:
    """Return the parameters of HOLDS.

    :param registration: the registration; None is any, and needs none
    """
    return {} if registration is None else {'held_registration': registration}


def beat(
    service_id: str, registration: int | None, *, session: AnySession
) -> bool:
    """Record that a service is alive.

    :param service_id: the service
    :param registration: the one that has to be valid; None is any
    :param session: an open session
    :returns: whether there is such a service
    """
    result = session.execute(
        _BEAT if registration is None else _BEAT_REGISTERED,
        {'living_service': service_id, **held(registration)},
    )
    return bool(result.rowcount == 1)


def beat_many(beats: Mapping[str, int | None], *, session: AnySession) -> int:
    """Record that services are alive.

    :param beats: the id of a service to its registration, or to None
    :param session: an open session
    :returns: how many there are
    """
    # In one order, so that callers side by side do not deadlock.
    ids = sorted(beats)
    if not ids:
        return 0
    if any(each is not None for each in beats.values()):
        pairs = [(each, beats[each]) for each in ids]
        result = session.execute(_BEAT_MANY_REGISTERED, {'beats': pairs})
    else:
        result = session.execute(_BEAT_MANY, {'service_ids': ids})
    return int(result.rowcount)


def unregister(
    service_id: str, registration: int | None, *, session: AnySession
) -> bool:
    """Record that a registration of a service has ended.

    :param service_id: the service
    :param registration: the registration, which has to be the latest; None is
        any
    :param session: an open session
    :returns: whether there is such a service
    """
    result = session.execute(
        _UNREGISTER if registration is None else _UNREGISTER_LATEST,
        {'living_service': service_id, **held(registration)},
    )
    return bool(result.rowcount == 1)


def refusal(
    service_id: str, registration: int | None, *, session: AnySession
) -> exception.MyServiceError:
    """Return why a service could not be changed.

    :param service_id: the service
    :param registration: the one that had to be valid; None is any
    :param session: an open session
    """
    row = session.execute(ONE, {'living_service': service_id}).first()
    if row is None or registration is None:
        return exception.ServiceNotFound(service_id=service_id)
    return _replaced(row, registration)


def check(
    row: sa.Row[*tuple[object, ...]] | None,
    service_id: str,
    registration: int | None,
) -> None:
    """Refuse a service that was destroyed, or registered anew.

    :param row: the row that ONE has found, or None
    :param service_id: the service
    :param registration: the one that has to be valid; None is any
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration is no longer valid
    """
    if row is None:
        raise exception.ServiceNotFound(service_id=service_id)
    holds = (registration, None) == (row.registration, row.unregistered_at)
    if registration is not None and not holds:
        raise _replaced(row, registration)


def _replaced(
    row: sa.Row[*tuple[object, ...]], registration: int
) -> exception.ServiceReplaced:
    return exception.ServiceReplaced(
        service_id=row.id,
        registration=registration,
        host=row.host,
        binary=row.binary,
    )


def register(
    values: Mapping[str, object],
    only_if_silent_for: float | None,
    *,
    session: AnySession,
) -> None:
    """Register: insert a row, or update the living one of this host.

    It leaves the operation's uuid in the row, unless the condition forbids it;
    then the row stays as it is.

    :param values: column to value; among them host and binary
    :param only_if_silent_for: for how many seconds no other process may have
        been seen; None sets no condition
    :param session: an open transaction
    """
    parameters = {
        'new_id': new_id(),
        'registered_by': session.operation.id,
        **{f'new_{name}': values[name] for name in values},
    }
    if only_if_silent_for is not None:
        parameters['silent_for'] = only_if_silent_for
    backend = backend_of(session.get_bind().dialect)
    statement = _register_statement(
        backend, tuple(values), only_if_silent_for is not None
    )
    session.execute(statement, parameters)


@functools.cache
def _register_statement(
    backend: Backend, names: Sequence[str], conditional: bool
) -> sa.Insert:
    identity = ('host', 'binary')
    given: dict[str, object] = {
        name: sa.bindparam(f'new_{name}', type_=TABLE.c[name].type)
        for name in names
    }
    fixed = {'operation': _OPERATION, 'last_seen_at': clock.utcnow()}
    changes = {
        **{name: given[name] for name in names if name not in identity},
        'updated_at': clock.utcnow(),
        # An attempt whose reply was lost may have raised it already.
        'registration': TABLE.c.registration
        + sa.case((TABLE.c.operation == _OPERATION, 0), else_=1),
        **fixed,
        'unregistered_at': sa.null(),
    }
    if conditional:
        may = _may_register()
        changes = {
            name: sa.case((may, new), else_=TABLE.c[name])
            for name, new in changes.items()
        }
    return dialects.upsert(
        backend,
        TABLE,
        (*identity, 'deleted'),
        {'id': sa.bindparam('new_id'), 'registration': 1, **given, **fixed},
        changes,
    )


def _may_register() -> sa.ColumnElement[bool]:
    # SET goes from left to right in MariaDB, and this is evaluated anew for
    # each column: operation, which is set first of those below, keeps it true.
    silent_for = sa.bindparam('silent_for', type_=sa.Float())
    return sa.or_(
        TABLE.c.operation == _OPERATION,
        TABLE.c.unregistered_at.is_not(None),
        TABLE.c.last_seen_at.is_(None),
        sa.not_(liveness.is_recent(TABLE.c.last_seen_at, silent_for)),
    )

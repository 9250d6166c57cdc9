"""Services: the processes of the control plane, and which of them are alive.

A process creates the service row that stands for it, and keeps it alive by
heartbeats. Everybody who assigns work reads the rows.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import service_lookup
from myservice.db import service_rows
from myservice.db import validation
from myservice.db.liveness import ServiceRow
from myservice.db.query import creation
from myservice.db.query import lookup
from myservice.db.resources import release
from myservice.db.sql import clock
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.retry import trace_in
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session

_TABLE = service_rows.TABLE
_IDENTITY = ('host', 'binary')
_SETTABLE = (
    'topic',
    'availability_zone',
    'version',
    'disabled',
    'disabled_reason',
    'forced_down',
)
_LISTING = service_lookup.LISTING

_UPDATE = (
    sa.update(_TABLE)
    .where(_TABLE.c.id == sa.bindparam('service_id'), service_rows.LIVING)
    .values(updated_at=clock.utcnow())
)
_MINIMUM_VERSION = sa.select(
    sa.func.coalesce(sa.func.min(_TABLE.c.version), 0)
).where(
    _TABLE.c.binary == sa.bindparam('binary'),
    _TABLE.c.forced_down == sa.false(),
    service_rows.LIVING,
)


@retry_on_failure
def service_register(
    context: RequestContext,
    values: Mapping[str, object],
    only_if_silent_for: float | None = None,
) -> ServiceRow:
    """Announce a starting process: update its living row, or create one.

    Registering is a sign of life, and replaces the process that was registered
    before: the row's ``registration`` is raised, and the claims of the service
    are released. However many processes race with the same host and binary,
    one living row is left; a destroyed row stays destroyed.

    :param context: an administrator's context
    :param values: host and binary, and any other value that service_create
        takes; a row that exists keeps the values that are left out
    :param only_if_silent_for: a number of seconds; a process that was seen
        within them by the database's clock, and has not been unregistered, is
        not replaced. None sets no condition. If many race with a condition,
        one registers. A process that was seen more than [service] down_time in
        the future, as after a clock was set back, counts as not seen
    :returns: the row, with the registration that is now the latest
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when a value cannot be stored
    :raises ServiceAlive: when the condition forbids it; nothing was changed
    """
    require_admin(context, 'service_register')
    validation.check_values(
        _TABLE, values, (*_IDENTITY, *_SETTABLE), required=_IDENTITY
    )
    validation.check_seconds('only_if_silent_for', only_if_silent_for)
    session = get_session(context, core=True)
    with session.begin():
        service_rows.register(values, only_if_silent_for, session=session)
        key = {name: values[name] for name in _IDENTITY}
        own = {**key, 'operation': session.operation.id}
        row = lookup.get('no', ServiceRow, own, session=session)
        if row is None:
            other = lookup.get_one('no', ServiceRow, key, session=session)
            raise exception.ServiceAlive(
                service_id=other.id,
                registration=other.registration,
                last_seen_at=other.last_seen_at,
                **key,
            )
        release.release_all_of(row.id, session=session)
        return row


@retry_on_failure(settle=trace_in(_TABLE.c.id, ServiceRow))
def service_create(
    context: RequestContext, values: Mapping[str, object]
) -> ServiceRow:
    """Create a service.

    With an id, it may be called again: if the service is there, and has these
    values, nothing is changed. In a service that was updated since, only the
    values that are given are compared.

    :param context: an administrator's context
    :param values: host and binary, and any of topic, availability_zone,
        version, disabled, disabled_reason, forced_down, and id, a new UUID in
        lower case
    :returns: the row
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when a value cannot be stored
    :raises ServiceExists: when a living service has this host and binary
    :raises ServiceIdExists: a ServiceExists, when the service with this id has
        other values, or was destroyed
    """
    require_admin(context, 'service_create')
    validation.check_values(
        _TABLE, values, ('id', *_IDENTITY, *_SETTABLE), required=_IDENTITY
    )
    validation.check_new_id(values)
    session = get_session(context, autocommit=True)
    with session.begin():
        if 'id' in values:
            return _create_with_id(values, session=session)
        service_id = session.operation.id
        try:
            session.execute(sa.insert(_TABLE), {'id': service_id, **values})
        except db_exception.DBDuplicateEntry as error:
            raise exception.ServiceExists(
                host=values['host'], binary=values['binary']
            ) from error
        key = {'id': service_id}
        # It may have been destroyed since.
        return lookup.get_one('yes', ServiceRow, key, session=session)


@retry_on_failure
def service_get(context: RequestContext, service_id: str) -> ServiceRow:
    """Return a service; inside a transaction, lock it.

    :param context: an administrator's context
    :param service_id: the id of the row
    :returns: the row, with is_up by the database's clock: whether it was last
        seen within [service] down_time. A heartbeat from the future counts as
        now; one that is ahead by more than down_time does not count
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when the id is not a text
    :raises ServiceNotFound: when no living service has this id
    """
    require_admin(context, 'service_get')
    validation.check_text('service_id', service_id)
    session = get_session(context, read_only=True)
    with session.begin():
        return service_lookup.get(context, service_id, session=session)


@retry_on_failure
def service_get_by_host_and_binary(
    context: RequestContext, host: str, binary: str
) -> ServiceRow:
    """Return the service of a binary on a host; in a transaction, lock it.

    :param context: an administrator's context
    :param host: the host, compared exactly
    :param binary: the binary, compared exactly
    :returns: the row, with is_up by the database's clock
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when host or binary is not a text
    :raises HostBinaryNotFound: a ServiceNotFound, when there is none
    """
    require_admin(context, 'service_get_by_host_and_binary')
    validation.check_text('host', host)
    validation.check_text('binary', binary)
    session = get_session(context, read_only=True)
    with session.begin():
        return service_lookup.get_by_host_and_binary(
            context, host, binary, session=session
        )


@retry_on_failure
def service_get_many(
    context: RequestContext, service_ids: Collection[str]
) -> list[ServiceRow]:
    """Return services by their ids, in one statement, without a lock.

    :param context: an administrator's context
    :param service_ids: the ids of the rows, any number of them; an id may be
        there more than once
    :returns: a list of rows, in the order of the ids, with is_up by the
        database's clock
    :raises AdminRequired: when the caller is no administrator
    :raises InvalidInput: when service_ids is not a list of texts
    :raises ServicesNotFound: a ServiceNotFound, with all the ids of which
        there is no living service
    """
    require_admin(context, 'service_get_many')
    validation.check_texts('service_ids', service_ids)
    session = get_session(context, read_only=True)
    with session.begin():
        return service_lookup.get_many(context, service_ids, session=session)


@retry_on_failure
def service_get_all(
    context: RequestContext,
    filters: Mapping[str, object] | None = None,
    limit: int | None = None,
    marker: str | None = None,
    sort_keys: Sequence[str] | None = None,
    sort_dirs: Sequence[str] | None = None,
) -> list[ServiceRow]:
    """Return services, all of them or a page.

    :param context: an administrator's context
    :param filters: any of host, binary, topic, availability_zone, disabled
        and is_up, to a value or a list of allowed ones; None is left out
    :param limit: rows at most; None is all
    :param marker: the id of the last row of the page before
    :param sort_keys: any of id, host, binary, topic, availability_zone,
        version, created_at, updated_at and last_seen_at; by default id, which
        is the order of creation
    :param sort_dirs: for each key asc or desc, optionally with -nullsfirst
        or -nullslast; NULL is smallest by default
    :returns: a list of rows
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when a filter, limit, key or direction is unknown
        or of the wrong type
    :raises MarkerNotFound: when there is no row with the marker's id
    """
    require_admin(context, 'service_get_all')
    page = _LISTING.page(context, filters, limit, marker, sort_keys, sort_dirs)
    session = get_session(context, read_only=True)
    with session.begin():
        return page.read(session=session)


@retry_on_failure
def service_heartbeat(
    context: RequestContext, service_id: str, registration: int | None = None
) -> None:
    """Record that a service is alive, by the database's clock.

    :param context: an administrator's context
    :param service_id: the id of the row
    :param registration: the registration of the process, as service_register
        has returned it; without it, a process does not learn that it was
        replaced
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ServiceNotFound: when the service was destroyed; a heartbeat never
        revives it
    :raises ServiceReplaced: when the registration is not the latest, or was
        ended by service_unregister: its process has to stop
    """
    require_admin(context, 'service_heartbeat')
    validation.check_text('service_id', service_id)
    validation.check_registration(registration)
    session = get_session(context, autocommit=True)
    with session.begin():
        if not service_rows.beat(service_id, registration, session=session):
            raise service_rows.refusal(
                service_id, registration, session=session
            )


@retry_on_failure
def service_heartbeat_many(
    context: RequestContext, service_ids: Sequence[str | tuple[str, int]]
) -> int:
    """Record that many services are alive, in one statement.

    :param context: an administrator's context
    :param service_ids: the ids of the rows, or pairs of an id and the
        registration of the process
    :returns: how many of them it reached; it does not reach those that were
        destroyed, or whose registration is no longer valid. service_heartbeat
        tells why
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when service_ids is not a list of these
    """
    require_admin(context, 'service_heartbeat_many')
    beats = validation.check_beats('service_ids', service_ids)
    session = get_session(context, autocommit=True)
    with session.begin():
        return service_rows.beat_many(beats, session=session)


@retry_on_failure
def service_unregister(
    context: RequestContext, service_id: str, registration: int | None = None
) -> None:
    """Record that the process of a service ends: it is down at once.

    Its registration is no longer valid, so its claims can be taken over, and
    another process can register without waiting. Doing it again changes
    nothing. Only service_register brings the service up again.

    :param context: an administrator's context
    :param service_id: the id of the row
    :param registration: the registration that ends; None is the latest
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration is not the latest
    """
    require_admin(context, 'service_unregister')
    validation.check_text('service_id', service_id)
    validation.check_registration(registration)
    session = get_session(context, autocommit=True)
    with session.begin():
        if not service_rows.unregister(
            service_id, registration, session=session
        ):
            raise service_rows.refusal(
                service_id, registration, session=session
            )


@retry_on_failure
def service_update(
    context: RequestContext, service_id: str, values: Mapping[str, object]
) -> None:
    """Change a service; its heartbeat stays as it is.

    :param context: an administrator's context
    :param service_id: the id of the row
    :param values: any of topic, availability_zone, version, disabled,
        disabled_reason and forced_down
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when a value cannot be stored
    :raises ServiceNotFound: when no living service has this id
    """
    require_admin(context, 'service_update')
    validation.check_text('service_id', service_id)
    validation.check_values(_TABLE, values, _SETTABLE)
    session = get_session(context, autocommit=True)
    with session.begin():
        result = session.execute(_UPDATE, {'service_id': service_id, **values})
        if result.rowcount != 1:
            raise exception.ServiceNotFound(service_id=service_id)


@retry_on_failure
def service_get_minimum_version(context: RequestContext, binary: str) -> int:
    """Return the lowest version that the services of a binary run.

    :param context: an administrator's context
    :param binary: the binary, compared exactly
    :returns: the version; 0 where there is no service. Services that were
        forced down do not count
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when binary is not a text
    """
    require_admin(context, 'service_get_minimum_version')
    validation.check_text('binary', binary)
    session = get_session(context, read_only=True)
    with session.begin():
        return int(session.scalar(_MINIMUM_VERSION, {'binary': binary}))


@retry_on_failure(settle=trace_in(_TABLE.c.deleted))
def service_destroy(
    context: RequestContext, service_id: str, force: bool = False
) -> None:
    """Mark a service deleted.

    :param context: an administrator's context
    :param service_id: the id of the row
    :param force: destroy it also while it holds claims, which are released
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceInUse: when it holds claims, and force is False
    """
    require_admin(context, 'service_destroy')
    validation.check_text('service_id', service_id)
    validation.check_bool('force', force)
    session = get_session(context, core=True)
    with session.begin():
        service_ref = service_lookup.get(context, service_id, session=session)
        claims = release.count_of(service_id, session=session)
        if claims and not force:
            raise exception.ServiceInUse(service_id=service_id, claims=claims)
        if claims:
            release.release_all_of(service_id, session=session)
        service_ref.delete(session=session)


def _create_with_id(
    values: Mapping[str, object], *, session: AnySession
) -> ServiceRow:
    """Insert a service, or return the one that an earlier call has made."""
    row = creation.insert(ServiceRow, values, session=session)
    if row is None:
        raise exception.ServiceExists(
            host=values['host'], binary=values['binary']
        )
    defaults = _SETTABLE if row.updated_at is None else ()
    if row.deleted or not creation.is_made_of(row, values, defaults):
        raise exception.ServiceIdExists(
            service_id=row.id, host=row.host, binary=row.binary
        )
    return row

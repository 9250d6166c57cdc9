"""Which resources have a quota, and which of several limits counts.

A project's own limit comes first, then that of the quota class that
``[quota] default_class`` names, then ``[quota] default_limits``, then the one
that is built in. What is counted has a quota wherever its counter is
registered: configuration decides how much of it there may be, never whether
it is counted, so that nodes with different ones can work side by side.
"""

import logging
import weakref
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Generic
from typing import NoReturn
from typing import TypeVar
from typing import cast

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice import plain
from myservice.conf import quota as options
from myservice.context import RequestContext
from myservice.context import check_context
from myservice.db import validation
from myservice.db.engine import engines
from myservice.db.models import Quota
from myservice.db.models import QuotaClass
from myservice.db.query import lookup
from myservice.db.quotas import counters
from myservice.db.rows import Row
from myservice.db.sql import clock
from myservice.db.transaction.session import AnySession

LOG = logging.getLogger(__name__)

R = TypeVar('R')

UNLIMITED = -1

# What a counter holds. Sums must not pass it on their way to a comparison
# either: MariaDB and PostgreSQL raise, SQLite goes on with a float.
MAXIMUM = 2**63 - 1

_QUOTA: Any = Quota.__table__
_CLASS: Any = QuotaClass.__table__


# Of what is counted and has no limit here, there may be any number.
_built_in = dict(options.BUILT_IN)

# The limits that were in force when each configuration was read last.
_in_force: weakref.WeakKeyDictionary[engines.Engines, dict[str, int]] = (
    weakref.WeakKeyDictionary()
)


def quota_counter_register(
    resource: str, statement: Any, default_limit: int = UNLIMITED
) -> None:
    """Say how a resource of the caller's own is counted.

    Every process that reserves it has to say so, before it does: a project's
    first reservation starts from that number, and ``quota_usage_check`` and
    ``quota_usage_sync`` compare with it. It is for all databases that the
    process uses; who says so again replaces it. Where it is not registered,
    what is in use is not compared, and left as it is.

    :param resource: its name; any but ``resources`` and ``gigabytes``, which
        ``resource_create`` counts
    :param statement: a SELECT of one row with one whole number, which has
        ``db.api.PROJECT`` in a condition; NULL is 0
    :param default_limit: how much of it a project may have for which neither
        itself, its class nor [quota] default_limits has a limit; -1 is
        unlimited
    :raises InvalidInput: when an argument is something else
    """
    resource, default_limit = plain.plain(resource), plain.plain(default_limit)
    validation.check_name('resource', resource)
    if resource in options.BUILT_IN:
        raise exception.InvalidInput(
            field='resource', reason=f'resource_create counts {resource}'
        )
    counters.check_statement(statement)
    check_limit(default_limit, 'default_limit')
    _built_in[resource] = default_limit
    counters.register(resource, statement)


def quota_get_defaults(context: RequestContext) -> dict[str, int]:
    """Return the limits of projects for which nobody has said otherwise.

    They are those of [quota] default_limits, and for what that leaves out and
    is counted all the same, the built-in ones. They are logged whenever they
    have changed.

    :param context: the caller
    :returns: for each resource that has a quota a number; -1 is unlimited
    :raises InvalidInput: when context is no RequestContext, or
        [quota] default_limits cannot be used
    """
    check_context(context)
    return defaults(context)


def defaults(context: RequestContext | None = None) -> dict[str, int]:
    """Return the resources that have a quota, with their default limits.

    :param context: the caller; without one it is that of the call under way
    :raises InvalidInput: when [quota] default_limits cannot be used
    """
    ours = engines.get_engines(context)
    configured: dict[str, int] = ours.conf.quota.default_limits or {}
    limits = {
        name: _built_in.get(name, UNLIMITED) for name in counters.registered()
    }
    limits.update(configured)
    if limits != _in_force.get(ours):
        _check_configured(configured)
        _log(limits, configured)
        _in_force[ours] = limits.copy()
    return limits


def _check_configured(limits: Mapping[Any, Any]) -> None:
    option = '[quota] default_limits'
    for name, limit in limits.items():
        validation.check_name(option, name)
        check_limit(limit, f'{option}, {name}')


def _log(limits: Mapping[str, int], configured: Mapping[str, int]) -> None:
    counted = counters.registered()

    def described(name: str) -> str:
        remarks = '' if name in configured else ' (built in)'
        if name not in counted:
            remarks += ' (not counted)'
        return f'{name}:{limits[name]}{remarks}'

    LOG.info(
        'In force as [quota] default_limits: %s.',
        ', '.join(map(described, sorted(limits))),
    )


def default_class() -> str:
    """Return the name of the class that counts."""
    return str(engines.get_conf().quota.default_class)


def check_resources(names: Iterable[str]) -> None:
    """Refuse resources that have no quota.

    :param names: the resources
    :raises QuotaResourceUnknown: naming those that have none
    """
    known = defaults()
    unknown = sorted({str(name) for name in names if name not in known})
    if unknown:
        raise exception.QuotaResourceUnknown(
            field='resource',
            reason='it has no quota',
            unknown=unknown,
            known=sorted(known),
        )


def check_resource(name: Any) -> None:
    """Refuse what is no resource that has a quota.

    :param name: the resource
    :raises InvalidInput: when it is no name
    :raises QuotaResourceUnknown: when it has no quota
    """
    validation.check_name('resource', name)
    check_resources([name])


def check_limit(limit: Any, field: str = 'limit') -> None:
    """Refuse what is no limit.

    :param limit: a number from 0 on, or -1 for no limit at all
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    validation.check_value(_QUOTA.c.limit, limit, field)
    if limit < UNLIMITED:
        raise exception.InvalidInput(
            field=field,
            reason=f'{limit} is neither a number from 0 on nor -1, which is '
            f'unlimited',
        )


def check_deltas(deltas: Any) -> None:
    """Refuse what is no change of usages.

    :param deltas: resource to a whole number
    :raises InvalidInput: when it is something else, or empty
    :raises QuotaResourceUnknown: when a resource has no quota
    """
    if not isinstance(deltas, Mapping) or not deltas:
        raise exception.InvalidInput(
            field='deltas',
            reason=f'{validation.shown(deltas)} is no dict of resource to '
            f'number',
        )
    check_resources(deltas)
    for name, delta in deltas.items():
        validation.check_value(_QUOTA.c.limit, delta, f'deltas[{name!r:.100}]')


def limit_of(
    project_id: Any, class_name: Any, resource: Any, default: Any
) -> Any:
    """Return the limit that counts for a project and resource, as SQL.

    :param project_id: an SQL expression
    :param class_name: an SQL expression; the class that counts
    :param resource: an SQL expression
    :param default: an SQL expression; the limit when no row says one
    """
    own = sa.select(_QUOTA.c.limit).where(
        _QUOTA.c.project_id == project_id,
        _QUOTA.c.resource == resource,
        _QUOTA.c.deleted == '',
    )
    of_class = sa.select(_CLASS.c.limit).where(
        _CLASS.c.class_name == class_name,
        _CLASS.c.resource == resource,
        _CLASS.c.deleted == '',
    )
    return sa.func.coalesce(
        own.scalar_subquery(), of_class.scalar_subquery(), default
    )


class Limits(Generic[R]):
    """A table of limits: of projects, or of classes.

    :param row_class: the class of its rows
    :param owner: the column that says whose limit it is
    :param exists: the error for a limit that is there already
    :param not_found: the error for one that is not there
    """

    def __init__(
        self,
        row_class: type[Row],
        owner: str,
        *,
        exists: type[exception.Conflict],
        not_found: type[exception.NotFound],
    ) -> None:
        self._row_class = row_class
        self._owner = owner
        self._exists = exists
        self._not_found = not_found
        self._table: Any = row_class.columns[0].table
        living = (
            self._table.c[owner] == sa.bindparam('of_owner'),
            self._table.c.resource == sa.bindparam('of_resource'),
            self._table.c.deleted == '',
        )
        self._update = (
            self._by_owner(sa.update(self._table))
            .where(*living)
            .values(limit=sa.bindparam('new_limit'), updated_at=clock.utcnow())
        )
        self._destroy = (
            self._by_owner(sa.update(self._table))
            .where(*living)
            .values(
                deleted=sa.bindparam('operation'), deleted_at=clock.utcnow()
            )
        )
        self._destroyed = sa.select(self._table.c.id).where(
            self._table.c[owner] == sa.bindparam('of_owner'),
            self._table.c.resource == sa.bindparam('of_resource'),
            self._table.c.deleted == sa.bindparam('operation'),
        )

    def _by_owner(self, update: Any) -> Any:
        # MariaDB locks the limits that a reserve reads, by this index. From a
        # small table an UPDATE would lock the row first and its entry in the
        # index last, which is a deadlock.
        name = f'uq_{self._table.name}_{self._owner}_resource_deleted'
        return lookup.force_index(update, self._table, name)

    def create(
        self, owner: str, resource: str, limit: int, *, session: AnySession
    ) -> R:
        """Insert a limit and return its row."""
        key = {self._owner: owner, 'resource': resource}
        row_id = session.operation.id
        try:
            session.execute(
                sa.insert(self._table), {'id': row_id, **key, 'limit': limit}
            )
        except db_exception.DBDuplicateEntry as error:
            raise self._exists(**key) from error
        row = lookup.get(
            'no', self._row_class, {'id': row_id}, session=session
        )
        return cast(R, row)

    def created(self, owner: str, resource: str, *, session: AnySession) -> R:
        """Return the row that an earlier attempt of create() has inserted."""
        key = {'id': session.operation.id}
        row = lookup.get('yes', self._row_class, key, session=session)
        return cast(R, row or self._missing(owner, resource))

    def get(
        self,
        context: RequestContext,
        owner: str,
        resource: str,
        *,
        session: AnySession,
    ) -> R:
        """Return the row of a limit."""
        key = {self._owner: owner, 'resource': resource}
        row = lookup.get(
            context.read_deleted, self._row_class, key, session=session
        )
        return cast(R, row or self._missing(owner, resource))

    def update(
        self, owner: str, resource: str, limit: int, *, session: AnySession
    ) -> None:
        """Change a limit."""
        self._execute(
            self._update, owner, resource, session=session, new_limit=limit
        )

    def destroy(
        self, owner: str, resource: str, *, session: AnySession
    ) -> None:
        """Mark a limit deleted."""
        self._execute(
            self._destroy,
            owner,
            resource,
            session=session,
            operation=session.operation.id,
        )

    def destroyed(
        self, owner: str, resource: str, *, session: AnySession
    ) -> None:
        """Return if an earlier attempt of destroy() was successful."""
        key = {'of_owner': owner, 'of_resource': resource}
        trace = key | {'operation': session.operation.id}
        if session.execute(self._destroyed, trace).first() is None:
            self._missing(owner, resource)

    def _execute(
        self,
        statement: Any,
        owner: str,
        resource: str,
        *,
        session: AnySession,
        **values: Any,
    ) -> None:
        key = {'of_owner': owner, 'of_resource': resource}
        if session.execute(statement, key | values).rowcount != 1:
            self._missing(owner, resource)

    def _missing(self, owner: str, resource: str) -> NoReturn:
        raise self._not_found(**{self._owner: owner, 'resource': resource})

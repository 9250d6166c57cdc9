"""Which resources have a quota, and which of several limits applies.

A project's own limit comes first, then that of the quota class that ``[quota]
default_class`` names, then ``[quota] default_limits``, then the built-in one.
A resource that is counted has a quota wherever its counter is registered:
configuration decides how much of it there may be, never whether it is counted,
so that nodes with different configurations can work side by side.
"""

import logging
import weakref
from collections.abc import Iterable
from collections.abc import Mapping

import sqlalchemy as sa

from myservice import exception
from myservice import plain
from myservice.conf import quota as options
from myservice.context import RequestContext
from myservice.context import check_context
from myservice.db import validation
from myservice.db.engine import engines
from myservice.db.models import Quota
from myservice.db.models import QuotaClass
from myservice.db.quotas import counters

LOG = logging.getLogger(__name__)


UNLIMITED = -1

# The largest number in a counter. Sums in a comparison must not exceed it
# either: MariaDB and PostgreSQL raise, SQLite goes on with a float.
MAXIMUM = 2**63 - 1

_QUOTA = Quota.__table__
_CLASS = QuotaClass.__table__


# A resource that is counted and has no limit here is unlimited.
_built_in = dict(options.BUILT_IN)

# The limits in force when each configuration was read last.
_in_force: weakref.WeakKeyDictionary[engines.Engines, dict[str, int]] = (
    weakref.WeakKeyDictionary()
)


def quota_counter_register(
    resource: str, statement: sa.SelectBase, default_limit: int = UNLIMITED
) -> None:
    """Register how a resource of the caller's own is counted.

    Every process that reserves the resource has to register it first: a
    project's first reservation starts from that number, and
    ``quota_usage_check`` and ``quota_usage_sync`` compare with it. It is for
    all databases that the process uses; registering again replaces it. A
    process that has not registered it does not compare its use, and leaves it
    as it is.

    :param resource: its name; any but ``resources`` and ``gigabytes``, which
        ``resource_create`` counts
    :param statement: a SELECT of one row with one whole number, which has
        ``db.api.PROJECT`` in a condition; NULL is 0
    :param default_limit: the limit of a project if neither the project, its
        class nor [quota] default_limits has one; -1 is unlimited
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
    """Return the limits of projects that have no others.

    They are those of [quota] default_limits, and the built-in ones for other
    resources that are counted. They are logged whenever they have changed.

    :param context: the caller
    :returns: a number for each resource that has a quota; -1 is unlimited
    :raises InvalidInput: when context is not a RequestContext, or [quota]
        default_limits cannot be used
    """
    check_context(context)
    return defaults(context)


def defaults(context: RequestContext | None = None) -> dict[str, int]:
    """Return the resources that have a quota, with their default limits.

    :param context: the caller; by default that of the current call
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


def _check_configured(limits: Mapping[str, int]) -> None:
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
    """Return the name of the class that applies."""
    return str(engines.get_conf().quota.default_class)


def check_resources(names: Iterable[str]) -> None:
    """Refuse resources that have no quota.

    :param names: the resources
    :raises QuotaResourceUnknown: for those that have none
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


def check_resource(name: str) -> None:
    """Refuse a value that is not a resource with a quota.

    :param name: the resource
    :raises InvalidInput: when it is not a name
    :raises QuotaResourceUnknown: when it has no quota
    """
    validation.check_name('resource', name)
    check_resources([name])


def check_limit(limit: int, field: str = 'limit') -> None:
    """Refuse a value that is not a limit.

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


def check_deltas(deltas: Mapping[str, int]) -> None:
    """Refuse a value that is not a change of usages.

    :param deltas: resource to a whole number
    :raises InvalidInput: when it is something else, or empty
    :raises QuotaResourceUnknown: when a resource has no quota
    """
    if not isinstance(deltas, Mapping) or not deltas:
        raise exception.InvalidInput(
            field='deltas',
            reason=f'{validation.shown(deltas)} is not a dict of resource to '
            f'number',
        )
    check_resources(deltas)
    for name, delta in deltas.items():
        validation.check_value(_QUOTA.c.limit, delta, f'deltas[{name!r:.100}]')


def limit_of(
    project_id: sa.ColumnElement[str],
    class_name: sa.ColumnElement[str],
    resource: sa.ColumnElement[str],
    default: sa.ColumnElement[int],
) -> sa.ColumnElement[int]:
    """Return the limit that applies to a project and resource, as SQL.

    :param project_id: an SQL expression
    :param class_name: an SQL expression; the class that applies
    :param resource: an SQL expression
    :param default: an SQL expression; the limit when no row has one
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

"""Usages: how much of each resource projects have, and checks of it.

They change in the transaction of the rows that they count, so they agree.
``quota_usage_check`` shows whether they do, and ``quota_usage_sync`` corrects
them after somebody has changed rows without this layer. Both can count
``resources``, ``gigabytes``, and each resource for which this process has
registered a counter (``quota_counter_register``). They leave the use of any
other resource as it is.
"""

from collections.abc import Collection

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.context import require_project
from myservice.db import validation
from myservice.db.models import QuotaUsage
from myservice.db.query import listing
from myservice.db.quotas import counters
from myservice.db.quotas import enforcement
from myservice.db.sql import clock
from myservice.db.sql import in_list
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session

_TABLE = QuotaUsage.__table__


@retry_on_failure
def quota_usage_get_all(
    context: RequestContext, project_id: str | None = None
) -> dict[str, dict[str, int]]:
    """Return the limits of a project, its use and its reservations.

    :param context: a caller of the project, or an administrator
    :param project_id: the project; by default that of the context
    :returns: for each resource that has a quota here, as in
        ``quota_get_defaults``, a dict of limit (-1 for unlimited), in_use and
        reserved
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when no project is named
    """
    project_id = require_project(context, project_id, 'quota_usage_get_all')
    validation.check_name('project_id', project_id)
    session = get_session(context, read_only=True)
    with session.begin():
        return enforcement.read(project_id, session=session)


@retry_on_failure
def quota_usage_get_projects(
    context: RequestContext,
    limit: int | None = None,
    marker: str | None = None,
) -> list[str]:
    """Return the projects that have usages, in the order of their ids.

    :param context: an administrator's context
    :param limit: how many at most; None is all
    :param marker: return only projects after this one
    :returns: a list of project ids
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when limit or marker is of the wrong type
    """
    require_admin(context, 'quota_usage_get_projects')
    listing.check_limit(limit)
    if marker is not None:
        validation.check_text('marker', marker)
    session = get_session(context, read_only=True)
    with session.begin():
        statement = (
            sa.select(_TABLE.c.project_id)
            .distinct()
            .order_by(_TABLE.c.project_id)
        )
        if marker is not None:
            statement = statement.where(_TABLE.c.project_id > marker)
        return list(session.scalars(statement.limit(limit)))


@retry_on_failure
def quota_usage_get_uncounted(
    context: RequestContext, project_id: str | None = None
) -> list[str]:
    """Return the used resources that have no counter in this process.

    Their use is the sum of what was committed: this process has no counter to
    compare it with.

    :param context: a caller of the project, or an administrator
    :param project_id: the project; for an administrator by default all
    :returns: their names, in order
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when the project is not a text
    """
    if project_id is not None or not context.is_admin:
        project_id = require_project(
            context, project_id, 'quota_usage_get_uncounted'
        )
        validation.check_name('project_id', project_id)
    session = get_session(context, read_only=True)
    with session.begin():
        statement = (
            sa.select(_TABLE.c.resource)
            .distinct()
            .where(sa.not_(in_list.is_member(_TABLE.c.resource, 'counted')))
            .order_by(_TABLE.c.resource)
        )
        if project_id is not None:
            statement = statement.where(_TABLE.c.project_id == project_id)
        counted = {'counted': list(counters.registered())}
        return list(session.scalars(statement, counted))


@retry_on_failure
def quota_usage_check(
    context: RequestContext, project_id: str | None = None
) -> dict[str, dict[str, dict[str, int]]]:
    """Compare a project's usages with its real numbers.

    The use is compared if this process has registered a counter. ``reserved``
    is compared with the reservations that have not ended.
    ``quota_usage_get_uncounted`` returns the resources that have no counter.

    :param context: a caller of the project, or an administrator
    :param project_id: the project; by default that of the context
    :returns: resource to its differences: in_use or reserved, to a dict of
        recorded and counted. Empty if there are none
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when no project is named
    """
    project_id = require_project(context, project_id, 'quota_usage_check')
    validation.check_name('project_id', project_id)
    session = get_session(context, read_only=True)
    with session.begin():
        return _differences(context, project_id, session=session)


@retry_on_failure
def quota_usage_sync(
    context: RequestContext, project_id: str
) -> dict[str, dict[str, dict[str, int]]]:
    """Set a project's usages to its real numbers.

    If a row is created in one transaction and committed in another, a sync
    between the two counts it twice; use one transaction. The use of a resource
    that has no counter in this process stays as it is.

    :param context: an administrator's context
    :param project_id: the project
    :returns: the differences, as quota_usage_check returns them
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when the project is not a text
    """
    require_admin(context, 'quota_usage_sync')
    validation.check_name('project_id', project_id)
    session = get_session(context, core=True)
    with session.begin():
        # Without these locks nobody changes counted or reserved rows.
        _lock([project_id], session=session)
        differences = _differences(context, project_id, session=session)
        for resource, columns in sorted(differences.items()):
            values = {
                column: numbers['counted']
                for column, numbers in columns.items()
            }
            session.execute(
                sa.update(_TABLE)
                .where(
                    _TABLE.c.project_id == project_id,
                    _TABLE.c.resource == resource,
                )
                .values(updated_at=clock.utcnow(), **values)
            )
        return differences


def _differences(
    context: RequestContext, project_id: str, *, session: AnySession
) -> dict[str, dict[str, dict[str, int]]]:
    # One statement, which sees one state of the database: in a busy project,
    # numbers that are read one after the other differ without any fault.
    differences: dict[str, dict[str, dict[str, int]]] = {}
    for row in session.execute(
        counters.comparison(), {counters.PROJECT.key: project_id}
    ):
        for column, recorded, counted in (
            ('in_use', row.in_use, row.counted),
            ('reserved', row.reserved, row.held),
        ):
            if counted is not None and recorded != counted:
                differences.setdefault(row.resource, {})[column] = {
                    'recorded': recorded,
                    'counted': int(counted),
                }
    return differences


def _lock(
    project_ids: Collection[str],
    names: Collection[str] | None = None,
    *,
    session: AnySession,
) -> None:
    """Lock usages.

    :param project_ids: the projects
    :param names: the resources; None is all
    :param session: an open transaction
    """
    statement = (
        sa.select(_TABLE.c.resource)
        .where(in_list.is_member(_TABLE.c.project_id, 'projects'))
        .order_by(_TABLE.c.project_id, _TABLE.c.resource)
        .with_for_update()
    )
    parameters = {'projects': list(project_ids)}
    if names is not None:
        statement = statement.where(
            in_list.is_member(_TABLE.c.resource, 'names')
        )
        parameters['names'] = list(names)
    session.execute(statement, parameters)

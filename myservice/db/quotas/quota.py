"""Quotas: how much of each resource a project may have.

A project has a limit of its own, or that of the quota class that ``[quota]
default_class`` names, or that of ``[quota] default_limits``.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.context import require_project
from myservice.db import validation
from myservice.db.models import QuotaRow
from myservice.db.query import listing
from myservice.db.quotas import limit_table
from myservice.db.quotas import limits
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.retry import trace_in
from myservice.db.transaction.session import get_session

_TABLE = QuotaRow.__table__
_LISTING = listing.Listing(
    QuotaRow,
    filters=('project_id', 'resource'),
    sort_keys={
        'id': 'ix_quotas_id',
        'project_id': None,
        'resource': None,
        'limit': None,
        'created_at': None,
        'updated_at': None,
    },
    scoped_by='project_id',
)
_LIMITS = limit_table.Limits(
    QuotaRow,
    'project_id',
    exists=exception.QuotaExists,
    not_found=exception.QuotaNotFound,
)


@retry_on_failure(settle=trace_in(_TABLE.c.id, QuotaRow))
def quota_create(
    context: RequestContext, project_id: str, resource: str, limit: int
) -> QuotaRow:
    """Give a project a limit of its own.

    It may be lower than the project's use: then the project keeps what it has,
    and gets nothing more.

    :param context: an administrator's context
    :param project_id: the project
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :returns: the row
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    :raises QuotaExists: when the project already has a limit of its own
    """
    require_admin(context, 'quota_create')
    validation.check_name('project_id', project_id)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        return _LIMITS.create(project_id, resource, limit, session=session)


@retry_on_failure
def quota_get(
    context: RequestContext, project_id: str, resource: str
) -> QuotaRow:
    """Return a project's own limit.

    If it has none, ``quota_usage_get_all`` returns the limit that applies.

    :param context: a caller of the project, or an administrator
    :param project_id: the project
    :param resource: the resource
    :returns: the row
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when an argument is not a text
    :raises QuotaNotFound: when the project has no limit of its own
    """
    require_project(context, project_id, 'quota_get')
    validation.check_name('project_id', project_id)
    validation.check_name('resource', resource)
    session = get_session(context, read_only=True)
    with session.begin():
        return _LIMITS.get(context, project_id, resource, session=session)


@retry_on_failure
def quota_get_all(
    context: RequestContext,
    project_id: str | None = None,
    filters: Mapping[str, object] | None = None,
    limit: int | None = None,
    marker: str | None = None,
    sort_keys: Sequence[str] | None = None,
    sort_dirs: Sequence[str] | None = None,
) -> list[QuotaRow]:
    """Return the own limits of projects, all of them or a page.

    :param context: a caller of the project, or an administrator
    :param project_id: the project; for an administrator by default all
    :param filters: project_id or resource, to a value or a list of allowed
        ones; None is left out
    :param limit: rows at most; None is all
    :param marker: the id of the last row of the page before
    :param sort_keys: any of id, project_id, resource, limit, created_at and
        updated_at; by default id, which is the order of creation
    :param sort_dirs: for each key asc or desc, optionally with -nullsfirst
        or -nullslast; NULL is smallest by default
    :returns: a list of rows
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when a filter, limit, key or direction is unknown
        or of the wrong type
    :raises MarkerNotFound: when there is no row with the marker's id
    """
    if project_id is not None or not context.is_admin:
        project_id = require_project(context, project_id, 'quota_get_all')
        validation.check_name('project_id', project_id)
    filters = listing.with_filter(filters, 'project_id', project_id)
    page = _LISTING.page(context, filters, limit, marker, sort_keys, sort_dirs)
    session = get_session(context, read_only=True)
    with session.begin():
        return page.read(session=session)


@retry_on_failure
def quota_update(
    context: RequestContext, project_id: str, resource: str, limit: int
) -> None:
    """Change a project's own limit.

    :param context: an administrator's context
    :param project_id: the project
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    :raises QuotaNotFound: when the project has no limit of its own
    """
    require_admin(context, 'quota_update')
    validation.check_name('project_id', project_id)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.update(project_id, resource, limit, session=session)


@retry_on_failure
def quota_set(
    context: RequestContext, project_id: str, resource: str, limit: int
) -> None:
    """Give a project a limit of its own, or change the one that it has.

    :param context: an administrator's context
    :param project_id: the project
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    """
    require_admin(context, 'quota_set')
    validation.check_name('project_id', project_id)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.set(project_id, resource, limit, session=session)


@retry_on_failure(settle=trace_in(_TABLE.c.deleted))
def quota_destroy(
    context: RequestContext, project_id: str, resource: str
) -> None:
    """Remove a project's own limit; then that of the class applies.

    Its usage and its reservations stay.

    :param context: an administrator's context
    :param project_id: the project
    :param resource: the resource
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is not a text
    :raises QuotaNotFound: when the project has no limit of its own
    """
    require_admin(context, 'quota_destroy')
    validation.check_name('project_id', project_id)
    validation.check_name('resource', resource)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.destroy(project_id, resource, session=session)

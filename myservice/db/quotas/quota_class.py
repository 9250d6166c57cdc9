"""Quota classes: limits for all projects that have none of their own.

The class that ``[quota] default_class`` names applies.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import validation
from myservice.db.models import QuotaClassRow
from myservice.db.query import listing
from myservice.db.quotas import limit_table
from myservice.db.quotas import limits
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.retry import trace_in
from myservice.db.transaction.session import get_session

_TABLE = QuotaClassRow.__table__
_LISTING = listing.Listing(
    QuotaClassRow,
    filters=('class_name', 'resource'),
    sort_keys={
        'id': 'ix_quota_classes_id',
        'class_name': None,
        'resource': None,
        'limit': None,
        'created_at': None,
        'updated_at': None,
    },
)
_LIMITS = limit_table.Limits(
    QuotaClassRow,
    'class_name',
    exists=exception.QuotaClassExists,
    not_found=exception.QuotaClassNotFound,
)


@retry_on_failure(settle=trace_in(_TABLE.c.id, QuotaClassRow))
def quota_class_create(
    context: RequestContext, class_name: str, resource: str, limit: int
) -> QuotaClassRow:
    """Give a quota class a limit.

    :param context: an administrator's context
    :param class_name: the class
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :returns: the row
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    :raises QuotaClassExists: when the class already has a limit
    """
    require_admin(context, 'quota_class_create')
    validation.check_name('class_name', class_name)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        return _LIMITS.create(class_name, resource, limit, session=session)


@retry_on_failure
def quota_class_get(
    context: RequestContext, class_name: str, resource: str
) -> QuotaClassRow:
    """Return the limit of a quota class.

    :param context: the caller
    :param class_name: the class
    :param resource: the resource
    :returns: the row
    :raises InvalidInput: when an argument is not a text
    :raises QuotaClassNotFound: when the class has no limit
    """
    validation.check_name('class_name', class_name)
    validation.check_name('resource', resource)
    session = get_session(context, read_only=True)
    with session.begin():
        return _LIMITS.get(context, class_name, resource, session=session)


@retry_on_failure
def quota_class_get_all(
    context: RequestContext,
    class_name: str | None = None,
    filters: Mapping[str, object] | None = None,
    limit: int | None = None,
    marker: str | None = None,
    sort_keys: Sequence[str] | None = None,
    sort_dirs: Sequence[str] | None = None,
) -> list[QuotaClassRow]:
    """Return limits of quota classes, all of them or a page.

    :param context: the caller
    :param class_name: the class; by default all
    :param filters: class_name or resource, to a value or a list of allowed
        ones; None is left out
    :param limit: rows at most; None is all
    :param marker: the id of the last row of the page before
    :param sort_keys: any of id, class_name, resource, limit, created_at and
        updated_at; by default id, which is the order of creation
    :param sort_dirs: for each key asc or desc, optionally with -nullsfirst
        or -nullslast; NULL is smallest by default
    :returns: a list of rows
    :raises InvalidInput: when a filter, limit, key or direction is unknown
        or of the wrong type
    :raises MarkerNotFound: when there is no row with the marker's id
    """
    filters = listing.with_filter(filters, 'class_name', class_name)
    page = _LISTING.page(context, filters, limit, marker, sort_keys, sort_dirs)
    session = get_session(context, read_only=True)
    with session.begin():
        return page.read(session=session)


@retry_on_failure
def quota_class_update(
    context: RequestContext, class_name: str, resource: str, limit: int
) -> None:
    """Change the limit of a quota class.

    :param context: an administrator's context
    :param class_name: the class
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    :raises QuotaClassNotFound: when the class has no limit
    """
    require_admin(context, 'quota_class_update')
    validation.check_name('class_name', class_name)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.update(class_name, resource, limit, session=session)


@retry_on_failure
def quota_class_set(
    context: RequestContext, class_name: str, resource: str, limit: int
) -> None:
    """Give a quota class a limit, or change the one that it has.

    :param context: an administrator's context
    :param class_name: the class
    :param resource: a resource that has a quota
    :param limit: a number; -1 is unlimited, 0 is nothing
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type or out of
        range
    :raises QuotaResourceUnknown: an InvalidInput, when the resource has no
        quota
    """
    require_admin(context, 'quota_class_set')
    validation.check_name('class_name', class_name)
    limits.check_resource(resource)
    limits.check_limit(limit)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.set(class_name, resource, limit, session=session)


@retry_on_failure(settle=trace_in(_TABLE.c.deleted))
def quota_class_destroy(
    context: RequestContext, class_name: str, resource: str
) -> None:
    """Remove a limit of a quota class; [quota] default_limits applies.

    :param context: an administrator's context
    :param class_name: the class
    :param resource: the resource
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is not a text
    :raises QuotaClassNotFound: when the class has no limit
    """
    require_admin(context, 'quota_class_destroy')
    validation.check_name('class_name', class_name)
    validation.check_name('resource', resource)
    session = get_session(context, autocommit=True)
    with session.begin():
        _LIMITS.destroy(class_name, resource, session=session)

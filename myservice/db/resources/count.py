"""How many resources there are, of all that a list shows, or of each kind."""

from collections.abc import Mapping
from typing import Any
from typing import overload

from myservice.context import RequestContext
from myservice.db.query import counting
from myservice.db.resources import listing
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import get_session

_COLUMNS = ('status', 'kind', 'project_id', 'service_id')


@overload
def resource_count(
    context: RequestContext,
    filters: Mapping[str, Any] | None = None,
    group_by: None = None,
) -> int: ...


@overload
def resource_count(
    context: RequestContext,
    filters: Mapping[str, Any] | None,
    group_by: str,
) -> dict[Any, int]: ...


@overload
def resource_count(
    context: RequestContext,
    filters: Mapping[str, Any] | None = None,
    *,
    group_by: str,
) -> dict[Any, int]: ...


@retry_on_failure
def resource_count(
    context: RequestContext,
    filters: Mapping[str, Any] | None = None,
    group_by: str | None = None,
) -> int | dict[Any, int]:
    """Return how many resources the caller may see, of all or for each value.

    :param context: a caller of a project, or an administrator
    :param filters: as resource_get_all takes them
    :param group_by: status, kind, project_id or service_id; None is all
        resources together
    :returns: the number; with group_by, value to number, where None stands
        for NULL, and a value that no resource has is left out
    :raises InvalidInput: when a filter or column is unknown or of the wrong
        type, or the caller has no project
    """
    filters = listing.check_scope(context, filters, 'resource_count')
    count = counting.check_count(
        context, listing.LISTING, filters, group_by, _COLUMNS
    )
    session = get_session(context, read_only=True)
    with session.begin():
        return count.read(session=session)

"""How many services there are, of all that a list shows, or of each kind."""

from collections.abc import Mapping
from typing import Any
from typing import overload

from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import service_lookup
from myservice.db.query import counting
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import get_session

_COLUMNS = ('binary', 'topic', 'availability_zone', 'is_up', 'disabled')


@overload
def service_count(
    context: RequestContext,
    filters: Mapping[str, object] | None = None,
    group_by: None = None,
) -> int: ...


@overload
def service_count(
    context: RequestContext,
    filters: Mapping[str, object] | None,
    group_by: str,
) -> dict[Any, int]: ...


@overload
def service_count(
    context: RequestContext,
    filters: Mapping[str, object] | None = None,
    *,
    group_by: str,
) -> dict[Any, int]: ...


@retry_on_failure
def service_count(
    context: RequestContext,
    filters: Mapping[str, object] | None = None,
    group_by: str | None = None,
) -> int | dict[Any, int]:
    """Return how many services there are, of all or for each value.

    :param context: an administrator's context
    :param filters: as service_get_all takes them
    :param group_by: binary, topic, availability_zone, is_up or disabled; None
        is all services together
    :returns: the number; with group_by, value to number, where None stands
        for NULL, and a value that no service has is left out
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when a filter or column is unknown or of the wrong
        type
    """
    require_admin(context, 'service_count')
    count = counting.check_count(
        context, service_lookup.LISTING, filters, group_by, _COLUMNS
    )
    session = get_session(context, read_only=True)
    with session.begin():
        return count.read(session=session)

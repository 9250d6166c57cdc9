"""Tags of resources: words by which a project finds them again."""

from collections.abc import Collection

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.resources import access
from myservice.db.resources import child_rows
from myservice.db.resources import fencing
from myservice.db.resources.fencing import Claim
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import get_session

_TABLE = child_rows.TAGS

_DELETE = sa.delete(_TABLE).where(
    _TABLE.c.resource_id == sa.bindparam('of_resource')
)


@retry_on_failure
def resource_tags_get(context: RequestContext, resource_id: str) -> list[str]:
    """Return the tags of a resource.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :returns: the tags, sorted
    :raises InvalidInput: when the id is not a text
    :raises ResourceNotFound: when there is none that the caller may see
    """
    validation.check_text('resource_id', resource_id)
    session = get_session(context, read_only=True)
    with session.begin():
        rows = child_rows.read_of_one(
            context, _TABLE, resource_id, session=session
        )
        return [row.tag for row in rows]


@retry_on_failure
def resource_tags_get_many(
    context: RequestContext, resource_ids: Collection[str]
) -> dict[str, list[str]]:
    """Return the tags of many resources, as of a page, in one statement.

    :param context: a caller of their project, or an administrator
    :param resource_ids: the ids of the resources
    :returns: id to sorted tags; empty for those that the caller cannot see
    :raises InvalidInput: when resource_ids is not a list of texts
    """
    validation.check_texts('resource_ids', resource_ids)
    session = get_session(context, read_only=True)
    with session.begin():
        return child_rows.read_tags(context, resource_ids, session=session)


@retry_on_failure
def resource_tags_set(
    context: RequestContext,
    resource_id: str,
    tags: Collection[str],
    claim: Claim | None = None,
) -> None:
    """Give a resource these tags, and no others.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param tags: a list of texts; one that is named twice counts once
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument cannot be stored
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    child_rows.check_tags(tags)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, core=True)
    with session.begin():
        access.get_for_writing(context, resource_id, claim, session=session)
        session.execute(_DELETE, {'of_resource': resource_id})
        child_rows.add_tags(resource_id, tags, session=session)

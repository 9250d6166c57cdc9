"""Metadata of resources: a value for each key, which projects choose."""

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.resources import access
from myservice.db.resources import child_rows
from myservice.db.resources import fencing
from myservice.db.resources.fencing import Claim
from myservice.db.sql import in_list
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import get_session

_TABLE = child_rows.METADATA

_OF_RESOURCE: Any = _TABLE.c.resource_id == sa.bindparam('of_resource')
_DELETE = sa.delete(_TABLE).where(_OF_RESOURCE)
_DELETE_SOME = _DELETE.where(in_list.is_member(_TABLE.c.key, 'unwanted'))


@retry_on_failure
def resource_metadata_get(
    context: RequestContext, resource_id: str
) -> dict[str, str]:
    """Return the metadata of a resource.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :returns: key to value
    :raises InvalidInput: when the id is not a text
    :raises ResourceNotFound: when there is none that the caller may see
    """
    validation.check_text('resource_id', resource_id)
    session = get_session(context, read_only=True)
    with session.begin():
        rows = child_rows.read_of_one(
            context, _TABLE, resource_id, session=session
        )
        return {row.key: row.value for row in rows}


@retry_on_failure
def resource_metadata_get_many(
    context: RequestContext, resource_ids: Collection[str]
) -> dict[str, dict[str, str]]:
    """Return the metadata of many resources, as of a page, in one statement.

    :param context: a caller of their project, or an administrator
    :param resource_ids: the ids of the resources
    :returns: id to key to value; empty for those that the caller cannot see
    :raises InvalidInput: when resource_ids is not a list of texts
    """
    validation.check_texts('resource_ids', resource_ids)
    session = get_session(context, read_only=True)
    with session.begin():
        return child_rows.read_metadata(context, resource_ids, session=session)


@retry_on_failure
def resource_metadata_set(
    context: RequestContext,
    resource_id: str,
    metadata: Mapping[str, str],
    claim: Claim | None = None,
) -> None:
    """Give a resource this metadata, and no other.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param metadata: key to value
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument cannot be stored
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    child_rows.check_metadata(metadata)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, core=True)
    with session.begin():
        access.get_for_writing(context, resource_id, claim, session=session)
        session.execute(_DELETE, {'of_resource': resource_id})
        child_rows.add_metadata(resource_id, metadata, session=session)


@retry_on_failure
def resource_metadata_update(
    context: RequestContext,
    resource_id: str,
    metadata: Mapping[str, str],
    claim: Claim | None = None,
) -> None:
    """Change some of the metadata of a resource; the rest stays.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param metadata: key to value
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument cannot be stored
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    child_rows.check_metadata(metadata)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, core=True)
    with session.begin():
        access.get_for_writing(context, resource_id, claim, session=session)
        session.execute(
            _DELETE_SOME,
            {'of_resource': resource_id, 'unwanted': list(metadata)},
        )
        child_rows.add_metadata(resource_id, metadata, session=session)


@retry_on_failure
def resource_metadata_delete(
    context: RequestContext,
    resource_id: str,
    keys: str | Collection[str],
    claim: Claim | None = None,
) -> None:
    """Delete metadata of a resource; a key that is not there is not an error.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param keys: a key, or a list of keys
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    unwanted = validation.check_one_or_more('keys', keys)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, core=True)
    with session.begin():
        access.get_for_writing(context, resource_id, claim, session=session)
        session.execute(
            _DELETE_SOME, {'of_resource': resource_id, 'unwanted': unwanted}
        )

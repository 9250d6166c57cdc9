"""Tags of resources: words by which a project finds them again."""

import functools
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.resources import access
from myservice.db.resources import child_rows
from myservice.db.resources import fencing
from myservice.db.resources.fencing import Claim
from myservice.db.sql import dialects
from myservice.db.sql import in_list
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session

_TABLE = child_rows.TAGS
_RESOURCE = access.TABLE

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
def resource_tag_exists(
    context: RequestContext, resource_id: str, tag: str
) -> bool:
    """Return whether a resource has a tag.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param tag: the tag, compared exactly
    :returns: whether it has
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when there is none that the caller may see
    """
    validation.check_text('resource_id', resource_id)
    validation.check_name('tag', tag)
    session = get_session(context, read_only=True)
    with session.begin():
        row = session.execute(
            _exists_statement(access.scope(context)),
            {
                'of_resource': resource_id,
                'asked_tag': tag,
                **access.of_project(context),
            },
        ).first()
        if row is None:
            raise exception.ResourceNotFound(resource_id=resource_id)
        return row.tag is not None


@retry_on_failure
def resource_tag_add(
    context: RequestContext,
    resource_id: str,
    tag: str,
    claim: Claim | None = None,
) -> None:
    """Give a resource a tag; one that it has is not an error.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param tag: the tag
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument cannot be stored
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    validation.check_name('tag', tag)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, autocommit=True)
    with session.begin():
        _add(context, resource_id, [tag], claim, session=session)


@retry_on_failure
def resource_tags_add(
    context: RequestContext,
    resource_id: str,
    tags: Collection[str],
    claim: Claim | None = None,
) -> None:
    """Give a resource more tags; those that it has stay.

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
    session = get_session(context, autocommit=True)
    with session.begin():
        _add(context, resource_id, tags, claim, session=session)


def _tag_removed(
    context: RequestContext,
    resource_id: str,
    tag: str,
    claim: Any = None,
    *,
    session: AnySession,
) -> None:
    """Return if the tag is gone: no trace says who has removed it."""
    rows = child_rows.read_of_one(
        context, _TABLE, resource_id, session=session
    )
    if any(row.tag == tag for row in rows):
        raise exception.NotFound()


@retry_on_failure(settle=_tag_removed)
def resource_tag_remove(
    context: RequestContext,
    resource_id: str,
    tag: str,
    claim: Claim | None = None,
) -> None:
    """Remove a tag from a resource.

    If a reply of the server is lost, and the tag is gone when the call is
    repeated, it counts as removed by this call.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param tag: the tag
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ResourceTagNotFound: when it does not have the tag
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    validation.check_name('tag', tag)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, autocommit=True)
    with session.begin():
        if not _remove(context, resource_id, [tag], claim, session=session):
            raise exception.ResourceTagNotFound(
                resource_id=resource_id, tag=tag
            )


@retry_on_failure
def resource_tags_remove(
    context: RequestContext,
    resource_id: str,
    tags: Collection[str],
    claim: Claim | None = None,
) -> None:
    """Remove tags from a resource; one that it does not have is not an error.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the resource
    :param tags: a list of texts
    :param claim: the claim under which the caller works
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    child_rows.check_tags(tags)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, autocommit=True)
    with session.begin():
        _remove(context, resource_id, tags, claim, session=session)


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


def _add(
    context: RequestContext,
    resource_id: str,
    tags: Collection[str],
    claim: Claim | None,
    *,
    session: AnySession,
) -> None:
    """Insert the tags that a resource lacks, in one statement.

    Another statement looks why it has inserted none: the resource may have
    them all, or may not be the caller's to write.
    """
    statement = _add_statement(
        backend_of(session.get_bind().dialect),
        bool(context.is_admin),
        claim is not None,
    )
    parameters = _of_resource(context, resource_id, claim)
    given = [(tag,) for tag in sorted(set(tags))]
    result = session.execute(statement, {**parameters, 'given': given})
    if not result.rowcount:
        access.get_for_writing(context, resource_id, claim, session=session)


def _remove(
    context: RequestContext,
    resource_id: str,
    tags: Collection[str],
    claim: Claim | None,
    *,
    session: AnySession,
) -> bool:
    """Delete tags of a resource, in one statement.

    :returns: False when the resource has none of them
    """
    statement = _remove_statement(
        in_list.how_many(tags), bool(context.is_admin), claim is not None
    )
    parameters = _of_resource(context, resource_id, claim)
    unwanted = in_list.members('unwanted', tags)
    result = session.execute(statement, {**parameters, **unwanted})
    if not result.rowcount:
        # It may not be the caller's to write.
        access.get_for_writing(context, resource_id, claim, session=session)
    return bool(result.rowcount)


def _of_resource(
    context: RequestContext, resource_id: str, claim: Claim | None
) -> dict[str, object]:
    """Return the parameters of _lock_statement."""
    return {
        'of_resource': resource_id,
        **access.of_project(context),
        **(fencing.held(claim) if claim else {}),
    }


def _lock_statement(all_projects: bool, claimed: bool) -> sa.Select[Any]:
    """Return the SELECT that locks a resource which the caller may write."""
    return (
        sa.select(_RESOURCE.c.id)
        .where(
            _RESOURCE.c.id == sa.bindparam('of_resource'),
            *access.Scope('no', all_projects).clauses(),
            *(fencing.HELD if claimed else ()),
        )
        .with_for_update(of=_RESOURCE)
    )


@functools.cache
def _add_statement(
    backend: Backend, all_projects: bool, claimed: bool
) -> sa.Insert:
    given = in_list.rows('given', _TABLE.c.tag)
    wanted = (
        _lock_statement(all_projects, claimed)
        .add_columns(given.c.tag)
        .join_from(_RESOURCE, given, sa.true())
    )
    return dialects.insert_lacking(backend, _TABLE, wanted)


@functools.cache
def _remove_statement(
    number: int, all_projects: bool, claimed: bool
) -> sa.Delete:
    # A scalar subquery is evaluated first: it locks the resource before its
    # tags, as everybody does.
    locked = _lock_statement(all_projects, claimed).scalar_subquery()
    return sa.delete(_TABLE).where(
        _TABLE.c.resource_id == locked,
        in_list.is_member(_TABLE.c.tag, 'unwanted', number),
    )


@functools.cache
def _exists_statement(scope: access.Scope) -> sa.Select[Any]:
    is_asked = sa.and_(
        _TABLE.c.resource_id == _RESOURCE.c.id,
        _TABLE.c.tag == sa.bindparam('asked_tag'),
    )
    return (
        sa.select(_TABLE.c.tag)
        .select_from(_RESOURCE.outerjoin(_TABLE, is_asked))
        .where(_RESOURCE.c.id == sa.bindparam('of_resource'), *scope.clauses())
    )

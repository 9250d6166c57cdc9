"""Which resources a caller sees, and how one is read, or locked to write."""

import functools
from collections.abc import Collection
from typing import Any
from typing import NamedTuple

import sqlalchemy as sa

from myservice import exception
from myservice import plain
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.db.models import Resource
from myservice.db.models import ResourceRow
from myservice.db.query import lookup
from myservice.db.query.conditions import Clause
from myservice.db.resources import fencing
from myservice.db.sql import in_list
from myservice.db.transaction.session import AnySession

TABLE = Resource.__table__


class Scope(NamedTuple):
    """Which rows a caller may see, as far as that decides a statement.

    :param read_deleted: as in a RequestContext
    :param all_projects: whether the caller is an administrator, who sees all;
        else they see those of the project in the parameter ``of_project``
    """

    read_deleted: ReadDeleted
    all_projects: bool

    def clauses(self) -> list[Clause]:
        """Return the clauses that select these rows."""
        found = lookup.visible(TABLE, self.read_deleted)
        if not self.all_projects:
            found.append(TABLE.c.project_id == sa.bindparam('of_project'))
        return found


def scope(context: RequestContext) -> Scope:
    """Return which rows a caller may see.

    :param context: the caller
    """
    return Scope(context.read_deleted, bool(context.is_admin))


def of_project(context: RequestContext) -> dict[str, object]:
    """Return the parameters of the clauses of a caller's scope.

    :param context: the caller
    """
    if context.is_admin:
        return {}
    return {'of_project': plain.plain(context.project_id)}


def get(
    context: RequestContext, resource_id: str, *, session: AnySession
) -> ResourceRow:
    """Read a resource of the caller, and lock it inside a transaction.

    :param context: the caller
    :param resource_id: the id of the row
    :param session: an open session
    :raises ResourceNotFound: when there is none that the caller may see
    """
    key = {'id': resource_id}
    row = lookup.get(context.read_deleted, ResourceRow, key, session=session)
    if row is None or (
        not context.is_admin and row.project_id != context.project_id
    ):
        raise exception.ResourceNotFound(resource_id=resource_id)
    return row


def get_many(
    context: RequestContext,
    resource_ids: Collection[str],
    *,
    session: AnySession,
) -> list[ResourceRow]:
    """Read resources of the caller, in one statement; nothing is locked.

    :param context: the caller
    :param resource_ids: the ids of the rows
    :param session: an open session
    :returns: the rows, in the order of the ids
    :raises ResourcesNotFound: when the caller may not see all of them
    """
    rows, missing = lookup.get_many(
        _get_many_statement(scope(context)),
        ResourceRow,
        resource_ids,
        of_project(context),
        session=session,
    )
    if missing:
        raise exception.ResourcesNotFound(
            resource_ids=missing, resource_id=missing[0]
        )
    return rows


@functools.cache
def _get_many_statement(of: Scope) -> sa.Select[Any]:
    return sa.select(*ResourceRow.columns).where(
        in_list.is_member(TABLE.c.id, 'ids'), *of.clauses()
    )


def get_for_writing(
    context: RequestContext,
    resource_id: str,
    claim: fencing.Claim | None,
    *,
    session: AnySession,
) -> ResourceRow:
    """Lock a living resource, and check that a claim on it still holds.

    :param context: the caller
    :param resource_id: the id of the row
    :param claim: the claim under which the caller works, if any
    :param session: an open transaction
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ClaimLost: when the claim no longer holds
    """
    row = get(context, resource_id, session=session)
    if row.deleted:
        raise exception.ResourceNotFound(resource_id=resource_id)
    if claim is not None and not fencing.holds(claim, row):
        raise exception.ClaimLost(**claim._asdict())
    return row

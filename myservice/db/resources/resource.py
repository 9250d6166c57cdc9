"""Resources: what projects have, and services work on.

Callers see the resources of their project; those of other projects do not
exist for them. Administrators see all.
"""

import functools
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.context import require_project
from myservice.db import validation
from myservice.db.models import ResourceRow
from myservice.db.query import conditions
from myservice.db.quotas import counters
from myservice.db.quotas import enforcement
from myservice.db.resources import access
from myservice.db.resources import child_rows
from myservice.db.resources import fencing
from myservice.db.resources import holder
from myservice.db.resources import insertion
from myservice.db.resources import listing
from myservice.db.resources.fencing import Claim
from myservice.db.sql import clock
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.retry import trace_in
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session
from myservice.db.transaction.session import undo_on_refusal

_TABLE = access.TABLE
_SETTABLE = ('name', 'kind', 'size', 'status')
_CREATABLE = ('id', 'project_id', *_SETTABLE)
_LISTING = listing.LISTING
_OF_PROJECT = (
    _TABLE.c.project_id == counters.PROJECT,
    _TABLE.c.deleted == '',
)
counters.register(
    'resources',
    sa.select(sa.func.count()).select_from(_TABLE).where(*_OF_PROJECT),
)
counters.register(
    'gigabytes', sa.select(sa.func.sum(_TABLE.c.size)).where(*_OF_PROJECT)
)


@retry_on_failure(settle=trace_in(_TABLE.c.id, ResourceRow))
def resource_create(
    context: RequestContext, values: Mapping[str, Any]
) -> ResourceRow:
    """Create a resource, which takes quota of its project.

    With an id, it may be called again: if the resource is there, and has these
    values, nothing is changed, and no quota is taken. In a resource that was
    changed since, only project_id, size and the values that are given are
    compared; metadata and tags always only if they are given.

    :param context: a caller of the project, or an administrator
    :param values: any of name, kind, size (in gigabytes, 0 by default),
        status (by default 'requested'), metadata (a dict of texts), tags
        (a list of texts), project_id, by default that of the context, and id,
        a new UUID in lower case
    :returns: the row
    :raises ProjectForbidden: when the caller is of another project
    :raises InvalidInput: when a value cannot be stored
    :raises ResourceExists: when the resource with this id has other values,
        or was destroyed
    :raises OverQuota: when it does not fit into the project's limits
    :raises QuotaUsageOverflow: when a counter could not hold it
    """
    checked = _check_new(values)
    project_id = require_project(
        context, checked.pop('project_id', None), 'resource_create'
    )
    validation.check_name('project_id', project_id)
    session = get_session(context, core=True)
    with session.begin():
        metadata = checked.pop('metadata', None)
        tags = checked.pop('tags', None)
        columns = {**checked, 'project_id': project_id}
        with undo_on_refusal(context):
            row, is_new = insertion.insert(columns, session=session)
            if not is_new:
                insertion.check_made_of(
                    row, columns, metadata, tags, session=session
                )
                return row
            child_rows.add_metadata(row.id, metadata or {}, session=session)
            child_rows.add_tags(row.id, tags or (), session=session)
            # Last, so that the project's usages are locked for a short time.
            enforcement.take(
                project_id, _quota_of(row.size), 'in_use', session=session
            )
        return row


@retry_on_failure
def resource_get(context: RequestContext, resource_id: str) -> ResourceRow:
    """Return a resource; inside a transaction, lock it.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the row
    :returns: the row
    :raises InvalidInput: when the id is not a text
    :raises ResourceNotFound: when there is none that the caller may see
    """
    validation.check_text('resource_id', resource_id)
    session = get_session(context, read_only=True)
    with session.begin():
        return access.get(context, resource_id, session=session)


@retry_on_failure
def resource_get_many(
    context: RequestContext, resource_ids: Collection[str]
) -> list[ResourceRow]:
    """Return resources by their ids, in one statement, without a lock.

    :param context: a caller of their project, or an administrator
    :param resource_ids: the ids of the rows, any number of them; an id may be
        there more than once
    :returns: a list of rows, in the order of the ids
    :raises InvalidInput: when resource_ids is not a list of texts
    :raises ResourcesNotFound: a ResourceNotFound, with all the ids of which
        there is none that the caller may see
    """
    validation.check_texts('resource_ids', resource_ids)
    session = get_session(context, read_only=True)
    with session.begin():
        return access.get_many(context, resource_ids, session=session)


@retry_on_failure
def resource_get_all(
    context: RequestContext,
    filters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    marker: str | None = None,
    sort_keys: Sequence[str] | None = None,
    sort_dirs: Sequence[str] | None = None,
) -> list[ResourceRow]:
    """Return resources that the caller may see, all of them or a page.

    :param context: a caller of a project, or an administrator
    :param filters: any of id, project_id, name, kind, size, status,
        service_id, generation, created_at and updated_at, to a value, a list
        of allowed ones, or db.api's Not, Range, StartsWith or Contains;
        is_claimed; metadata, a dict of which all items have to be there;
        tags, tags-any, not-tags and not-tags-any, lists of tags of which a
        resource has all, at least one, not all, or none: each resource has
        all tags of an empty list, and none of them. None is left out
    :param limit: rows at most; None is all
    :param marker: the id of the last row of the page before; one that was
        destroyed meanwhile still marks its place
    :param sort_keys: any of the columns that filters name; by default id,
        which is the order of creation
    :param sort_dirs: for each key asc or desc, optionally with -nullsfirst
        or -nullslast; NULL is smallest by default
    :returns: a list of rows; resource_metadata_get_many and
        resource_tags_get_many tell the rest of a page
    :raises InvalidInput: when a filter, limit, key or direction is unknown
        or of the wrong type, or the caller has no project
    :raises MarkerNotFound: when there is no row with the marker's id
    """
    filters = listing.check_scope(context, filters)
    page = _LISTING.page(context, filters, limit, marker, sort_keys, sort_dirs)
    session = get_session(context, read_only=True)
    with session.begin():
        return page.read(session=session)


def _resource_updated(
    context: RequestContext,
    resource_id: str,
    values: Any,
    expected: Any = None,
    claim: Any = None,
    *,
    session: AnySession,
) -> None:
    row = access.get(context, resource_id, session=session)
    if row.operation != session.operation.id:
        raise row.not_found()


@retry_on_failure(settle=_resource_updated)
def resource_update(
    context: RequestContext,
    resource_id: str,
    values: Mapping[str, Any],
    expected: Mapping[str, Any] | None = None,
    claim: Claim | None = None,
) -> None:
    """Change a resource if it is as expected: compare and swap.

    A new size takes quota of its project for the difference, or gives it back.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the row
    :param values: any of name, kind, status and size (in gigabytes)
    :param expected: column to the value that it must have, a list of allowed
        ones, or db.api's Not or Range; None is NULL
    :param claim: the claim under which the caller works
    :raises InvalidInput: when a value cannot be stored or compared
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ResourceConflict: when it is not as expected
    :raises ClaimLost: when the claim no longer holds
    :raises OverQuota: when the new size does not fit into the project's limits
    :raises QuotaUsageOverflow: when a counter could not hold the new size
    """
    validation.check_text('resource_id', resource_id)
    validation.check_values(_TABLE, values, _SETTABLE)
    if 'size' in values:
        validation.check_whole('size', values['size'], 0)
    _check_expected(expected)
    fencing.check_claim(claim, resource_id)
    session = get_session(context, autocommit='size' not in values, core=True)
    with session.begin():
        change = _resize if 'size' in values else _update
        if not change(
            context, resource_id, values, expected, claim, session=session
        ):
            row = access.get_for_writing(
                context, resource_id, claim, session=session
            )
            raise _conflict(row, expected)


@retry_on_failure(settle=trace_in(_TABLE.c.deleted))
def resource_destroy(
    context: RequestContext,
    resource_id: str,
    claim: Claim | None = None,
    force: bool = False,
) -> None:
    """Mark a resource deleted, and give its quota back.

    :param context: a caller of its project, or an administrator
    :param resource_id: the id of the row
    :param claim: the claim under which the caller works
    :param force: also if somebody else has claimed it; for administrators
    :raises AdminRequired: when any other caller asks for force
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when there is none that the caller may see
    :raises ResourceClaimed: when a service holds it, and no claim is given
    :raises ClaimLost: when the claim no longer holds
    """
    validation.check_text('resource_id', resource_id)
    fencing.check_claim(claim, resource_id)
    _check_force(context, force)
    session = get_session(context, core=True)
    with session.begin():
        row = access.get_for_writing(
            context, resource_id, claim, session=session
        )
        if row.service_id is not None and not (claim or force):
            raise holder.claimed(row, session=session)
        session.execute(
            sa.update(_TABLE)
            .where(_TABLE.c.id == resource_id)
            .values(
                deleted=session.operation.id,
                deleted_at=clock.utcnow(),
                service_id=None,
                claim_generation=None,
                generation=fencing.NEXT_GENERATION,
            )
        )
        enforcement.give_back(
            row.project_id, _quota_of(row.size), session=session
        )


def _quota_of(size: int) -> dict[str, int]:
    """Return how much of its project's quota a resource takes."""
    return {'resources': 1} | ({'gigabytes': size} if size else {})


def _check_expected(expected: Any) -> None:
    """Refuse what a resource cannot be compared with."""
    if expected is None:
        return
    validation.check_dict('expected', expected)
    for name, wanted in expected.items():
        if name not in _TABLE.c:
            raise exception.InvalidInput(
                field='expected',
                reason=f'there is no column {validation.shown(name)}',
            )
        conditions.of(wanted).check(_TABLE.c[name], name)


def _resize(
    context: RequestContext,
    resource_id: str,
    values: Mapping[str, Any],
    expected: Mapping[str, Any] | None,
    claim: fencing.Claim | None,
    *,
    session: AnySession,
) -> bool:
    """Change a resource and its quota, if it is as expected."""
    row = access.get_for_writing(context, resource_id, claim, session=session)
    with undo_on_refusal(context):
        updated = _update(
            context, resource_id, values, expected, claim, session=session
        )
        difference = values['size'] - row.size
        if updated and difference:
            # After the update: whoever counts what there is counts it too.
            enforcement.take(
                row.project_id,
                {'gigabytes': difference},
                'in_use',
                session=session,
            )
    return updated


def _update(
    context: RequestContext,
    resource_id: str,
    values: Mapping[str, Any],
    expected: Mapping[str, Any] | None,
    claim: fencing.Claim | None,
    *,
    session: AnySession,
) -> bool:
    """Change a resource, in one statement, if it is as expected."""
    criteria = conditions.criteria_of(expected)
    result = session.execute(
        _update_statement(
            bool(context.is_admin), criteria.shapes, claim is not None
        ),
        {
            **values,
            **criteria.parameters,
            **(fencing.held(claim) if claim else {}),
            **access.of_project(context),
            'resource_id': resource_id,
            'updated_by': session.operation.id,
        },
    )
    return bool(result.rowcount == 1)


@functools.lru_cache(maxsize=1000)
def _update_statement(
    all_projects: bool,
    expected: conditions.Shapes,
    claimed: bool,
) -> sa.UpdateBase:
    own_uuid = sa.bindparam('updated_by', type_=_TABLE.c.operation.type)
    return (
        sa.update(_TABLE)
        .where(
            _TABLE.c.id == sa.bindparam('resource_id'),
            # An attempt whose reply was lost may have done it already.
            _TABLE.c.operation != own_uuid,
            *access.Scope('no', all_projects).clauses(),
            *(shape.clause(_TABLE.c[name], name) for name, shape in expected),
            *(fencing.HELD if claimed else ()),
        )
        .values(
            generation=fencing.NEXT_GENERATION,
            operation=own_uuid,
            updated_at=clock.utcnow(),
        )
    )


def _conflict(
    row: ResourceRow, expected: Mapping[str, Any] | None
) -> exception.ResourceConflict:
    """Return the error for a resource that is not as expected."""
    return exception.ResourceConflict(
        resource_id=row.id,
        expected=dict(expected or {}),
        actual={name: getattr(row, name) for name in expected or {}},
    )


def _check_force(context: RequestContext, force: object) -> None:
    """Refuse force to callers who are not administrators."""
    validation.check_bool('force', force)
    if force:
        require_admin(context, 'resource_destroy by force')


def _check_new(values: Any) -> dict[str, Any]:
    """Check the values of a new resource, and return a copy of them."""
    validation.check_dict('values', values)
    checked = dict(values)
    columns = {
        name: value
        for name, value in values.items()
        if name not in ('metadata', 'tags')
    }
    if columns:
        validation.check_values(_TABLE, columns, _CREATABLE)
    validation.check_new_id(columns)
    validation.check_whole('size', columns.get('size', 0), 0)
    child_rows.check_metadata(checked.get('metadata', {}))
    child_rows.check_tags(checked.get('tags', ()))
    return checked

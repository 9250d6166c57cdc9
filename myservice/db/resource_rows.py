"""What the modules of resources share: scope, claims, metadata and tags."""

import functools
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import cast

import sqlalchemy as sa

from myservice import exception
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import clock
from myservice.db import conditions
from myservice.db import query
from myservice.db import quota_limits
from myservice.db import quota_rows
from myservice.db import validation
from myservice.db.models import Resource
from myservice.db.models import ResourceMetadata
from myservice.db.models import ResourceRow
from myservice.db.models import ResourceTag
from myservice.db.session import AnySession

TABLE: Any = Resource.__table__
METADATA: Any = ResourceMetadata.__table__
TAGS: Any = ResourceTag.__table__


class Claim(NamedTuple):
    """A service's right to work on a resource, until it is taken over.

    :param resource_id: the resource
    :param service_id: the service that holds it
    :param generation: the fencing token: a later claim has a higher one
    """

    resource_id: str
    service_id: str
    generation: int


def check_claim(
    claim: Any, resource_id: str | None = None, required: bool = False
) -> None:
    """Refuse what is no claim, or one on another resource.

    :param claim: the claim; None is none
    :param resource_id: the resource; None is any
    :param required: whether there has to be one
    :raises InvalidInput: when it is something else
    """
    if claim is None and not required:
        return
    if not isinstance(claim, Claim):
        raise exception.InvalidInput(
            field='claim', reason=f'{claim!r:.100} is no Claim'
        )
    validation.check_name('claim.resource_id', claim.resource_id)
    validation.check_name('claim.service_id', claim.service_id)
    validation.check_value(
        TABLE.c.generation, claim.generation, 'claim.generation'
    )
    if resource_id not in (None, claim.resource_id):
        raise exception.InvalidInput(
            field='claim', reason=f'it is on resource {claim.resource_id}'
        )


class Scope(NamedTuple):
    """Which rows a caller may see, as far as that decides a statement.

    :param read_deleted: as in a RequestContext
    :param all_projects: whether he is an administrator, and sees all; else
        the parameter ``of_project`` says whose he sees
    """

    read_deleted: ReadDeleted
    all_projects: bool

    def conditions(self) -> list[Any]:
        """Return the conditions of these rows."""
        found = query.visible(TABLE, self.read_deleted)
        if not self.all_projects:
            found.append(TABLE.c.project_id == sa.bindparam('of_project'))
        return found


def scope(context: RequestContext) -> Scope:
    """Return which rows a caller may see.

    :param context: the caller
    """
    return Scope(context.read_deleted, bool(context.is_admin))


def of_project(context: RequestContext) -> dict[str, Any]:
    """Return the parameters of the conditions of a caller's scope.

    :param context: the caller
    """
    return {} if context.is_admin else {'of_project': context.project_id}


#: the conditions of the row that a claim holds
HELD = (
    TABLE.c.service_id == sa.bindparam('held_by'),
    TABLE.c.claim_generation == sa.bindparam('held_since'),
)


def held(claim: Claim) -> dict[str, Any]:
    """Return the parameters of HELD.

    :param claim: the claim
    """
    return {'held_by': claim.service_id, 'held_since': claim.generation}


def get(
    context: RequestContext, resource_id: str, *, session: AnySession
) -> Resource:
    """Read a resource of the caller, and lock it inside a transaction.

    :param context: the caller
    :param resource_id: the id of the row
    :param session: an open session
    :raises ResourceNotFound: when there is none that he may see
    """
    key = {'id': resource_id}
    row = query.get(context.read_deleted, ResourceRow, key, session=session)
    if row is None or (
        not context.is_admin and row.project_id != context.project_id
    ):
        raise exception.ResourceNotFound(resource_id=resource_id)
    return cast(Resource, row)


def get_for_writing(
    context: RequestContext,
    resource_id: str,
    claim: Claim | None,
    *,
    session: AnySession,
) -> Resource:
    """Lock a living resource, whose claim still holds.

    :param context: the caller
    :param resource_id: the id of the row
    :param claim: the claim under which the caller works; None is none
    :param session: an open transaction
    :raises ResourceNotFound: when there is none that he may see
    :raises ClaimLost: when the claim holds no longer
    """
    row = get(context, resource_id, session=session)
    if row.deleted:
        raise exception.ResourceNotFound(resource_id=resource_id)
    if claim is not None and not holds(claim, row):
        raise exception.ClaimLost(**claim._asdict())
    return row


def holds(claim: Claim, row: Resource) -> bool:
    """Return whether a claim holds, by the resource's row."""
    return (claim.service_id, claim.generation) == (
        row.service_id,
        row.claim_generation,
    )


def check_metadata(metadata: Any) -> None:
    """Refuse what cannot be stored as metadata.

    :param metadata: key to value, all of them text
    :raises InvalidInput: when it is something else
    """
    if not isinstance(metadata, Mapping):
        raise exception.InvalidInput(
            field='metadata', reason=f'{metadata!r:.100} is not a dict'
        )
    for key, value in metadata.items():
        validation.check_name('metadata key', key)
        validation.check_value(METADATA.c.value, value, f'metadata[{key!r}]')


def check_tags(tags: Any) -> None:
    """Refuse what cannot be stored as tags.

    :param tags: a list, tuple or set of texts
    :raises InvalidInput: when it is something else
    """
    validation.check_texts('tags', tags)
    for tag in tags:
        validation.check_name('tags', tag)


def read_metadata(
    context: RequestContext,
    resource_ids: Iterable[str],
    *,
    session: AnySession,
) -> dict[str, dict[str, str]]:
    """Return the metadata of resources, in one statement.

    :param context: the caller; what he may not see has none
    :param resource_ids: the ids
    :param session: an open session
    :returns: id to key to value
    """
    found: dict[str, dict[str, str]] = {i: {} for i in resource_ids}
    for row in _read_of_many(context, METADATA, found, session=session):
        found[row.resource_id][row.key] = row.value
    return found


def read_tags(
    context: RequestContext,
    resource_ids: Iterable[str],
    *,
    session: AnySession,
) -> dict[str, list[str]]:
    """Return the tags of resources, in one statement.

    :param context: the caller; what he may not see has none
    :param resource_ids: the ids
    :param session: an open session
    :returns: id to tags, sorted
    """
    found: dict[str, list[str]] = {i: [] for i in resource_ids}
    for row in _read_of_many(context, TAGS, found, session=session):
        found[row.resource_id].append(row.tag)
    return found


def read_of_one(
    context: RequestContext,
    table: Any,
    resource_id: str,
    *,
    session: AnySession,
) -> list[Any]:
    """Return the rows of metadata or tags of a resource, in one statement.

    :param context: the caller
    :param table: METADATA or TAGS
    :param resource_id: the id of the resource
    :param session: an open session
    :raises ResourceNotFound: when there is none that he may see
    """
    rows = session.execute(
        _reading_one(table, scope(context)),
        {'resource_id': resource_id, **of_project(context)},
    ).all()
    if not rows:
        raise exception.ResourceNotFound(resource_id=resource_id)
    # The join gives one row of NULLs where the resource has none.
    return [row for row in rows if row.resource_id is not None]


@functools.cache
def _reading_one(table: Any, scope: Scope) -> Any:
    return (
        sa.select(table)
        .select_from(TABLE.outerjoin(table, table.c.resource_id == TABLE.c.id))
        .where(TABLE.c.id == sa.bindparam('resource_id'), *scope.conditions())
        .order_by(*table.primary_key)
    )


# A statement has 65,535 parameters at most, in PostgreSQL.
_MANY = 30000


def _read_of_many(
    context: RequestContext,
    table: Any,
    resource_ids: Iterable[str],
    *,
    session: AnySession,
) -> Iterator[Any]:
    statement = _reading_many(table, scope(context))
    ids = list(resource_ids)
    for start in range(0, len(ids), _MANY):
        yield from session.execute(
            statement,
            {
                'ids': ids[start : start + _MANY],
                **of_project(context),
            },
        )


@functools.cache
def _reading_many(table: Any, scope: Scope) -> Any:
    ids: Any = sa.bindparam('ids', expanding=True)
    return (
        sa.select(table)
        .join(TABLE, TABLE.c.id == table.c.resource_id)
        .where(table.c.resource_id.in_(ids), *scope.conditions())
        .order_by(*table.primary_key)
    )


def add_metadata(
    resource_id: str, metadata: Mapping[str, str], *, session: AnySession
) -> None:
    """Insert metadata where there is none of these keys.

    :param resource_id: the resource, which the caller has locked
    :param metadata: key to value
    :param session: an open transaction
    """
    rows = [
        {'resource_id': resource_id, 'key': key, 'value': value}
        for key, value in sorted(metadata.items())
    ]
    if rows:
        session.execute(sa.insert(METADATA).values(rows))


def add_tags(
    resource_id: str, tags: Iterable[str], *, session: AnySession
) -> None:
    """Insert tags that are not there.

    :param resource_id: the resource, which the caller has locked
    :param tags: the tags; one that is named twice counts once
    :param session: an open transaction
    """
    rows = [
        {'resource_id': resource_id, 'tag': tag} for tag in sorted(set(tags))
    ]
    if rows:
        session.execute(sa.insert(TAGS).values(rows))


def take_quota(project_id: str, size: int, *, session: AnySession) -> None:
    """Add a resource to what a project has in use.

    :param project_id: the project
    :param size: its size in gigabytes
    :param session: an open transaction, in which it was inserted
    :raises OverQuota: when it does not fit into the limits
    :raises QuotaUsageOverflow: when a counter could not hold it
    """
    _change_usage(project_id, 1, size, session=session)


def give_quota_back(
    project_id: str, size: int, *, session: AnySession
) -> None:
    """Take a resource from what a project has in use.

    :param project_id: the project
    :param size: its size in gigabytes
    :param session: an open transaction, in which it was marked deleted
    """
    _change_usage(project_id, -1, -size, session=session)


def _change_usage(
    project_id: str, number: int, size: int, *, session: AnySession
) -> None:
    known = quota_limits.defaults()
    wanted = {'resources': number, 'gigabytes': size}
    deltas = {
        name: delta
        for name, delta in wanted.items()
        if delta and name in known
    }
    if deltas:
        quota_rows.take(project_id, deltas, 'in_use', session=session)


_CREATABLE = ('project_id', 'name', 'kind', 'size', 'status')


def check_new(values: Any) -> dict[str, Any]:
    """Refuse what no resource can be created of.

    :param values: as resource_create takes them
    :returns: a copy of them
    :raises InvalidInput: when a value cannot be stored
    """
    if not isinstance(values, Mapping):
        raise exception.InvalidInput(
            field='values', reason=f'{values!r:.100} is not a dict'
        )
    checked = dict(values)
    columns = {
        name: value
        for name, value in values.items()
        if name not in ('metadata', 'tags')
    }
    if columns:
        validation.check_values(TABLE, columns, _CREATABLE)
    if columns.get('size', 0) < 0:
        raise exception.InvalidInput(
            field='size', reason=f'{columns["size"]} is below 0'
        )
    check_metadata(checked.get('metadata', {}))
    check_tags(checked.get('tags', ()))
    return checked


def check_expected(expected: Any) -> None:
    """Refuse what a resource cannot be compared with.

    :param expected: as resource_update takes it
    :raises InvalidInput: when a column is unknown, or a value does not fit
    """
    if expected is None:
        return
    if not isinstance(expected, Mapping):
        raise exception.InvalidInput(
            field='expected', reason=f'{expected!r:.100} is not a dict'
        )
    for name, wanted in expected.items():
        if name not in TABLE.c:
            raise exception.InvalidInput(
                field='expected', reason=f'there is no column {name!r:.100}'
            )
        conditions.check(TABLE.c[name], wanted, name)


def update(
    context: RequestContext,
    resource_id: str,
    values: Mapping[str, Any],
    expected: Mapping[str, Any] | None,
    claim: Claim | None,
    *,
    session: AnySession,
) -> bool:
    """Change a resource, in one statement, if it is as expected.

    :param context: the caller
    :param resource_id: the id of the row
    :param values: column to value
    :param expected: as resource_update takes it
    :param claim: the claim under which the caller works; None is none
    :param session: an open session
    :returns: whether it was, and is changed
    """
    wanted = conditions.take_apart(expected)
    result = session.execute(
        _updating(bool(context.is_admin), wanted.shape, claim is not None),
        {
            **values,
            **wanted.parameters,
            **(held(claim) if claim else {}),
            **of_project(context),
            'resource_id': resource_id,
            'updated_by': session.operation.id,
        },
    )
    return bool(result.rowcount == 1)


@functools.lru_cache(maxsize=1000)
def _updating(all_projects: bool, expected: Any, claimed: bool) -> Any:
    own_uuid = sa.bindparam('updated_by', type_=TABLE.c.operation.type)
    return (
        sa.update(TABLE)
        .where(
            TABLE.c.id == sa.bindparam('resource_id'),
            # What an attempt whose reply was lost has done is done.
            TABLE.c.operation != own_uuid,
            *Scope('no', all_projects).conditions(),
            *(
                conditions.condition(name, TABLE.c[name], shape)
                for name, shape in expected
            ),
            *(HELD if claimed else ()),
        )
        .values(
            generation=TABLE.c.generation + 1,
            operation=own_uuid,
            updated_at=clock.utcnow(),
        )
    )


def conflict(
    row: Resource, expected: Mapping[str, Any] | None
) -> exception.ResourceConflict:
    """Return the error for a resource that is not as expected.

    :param row: how it is
    :param expected: as resource_update takes it
    """
    return exception.ResourceConflict(
        resource_id=row.id,
        expected=dict(expected or {}),
        actual={name: getattr(row, name) for name in expected or {}},
    )


def check_force(context: RequestContext, force: Any) -> None:
    """Refuse force to those who are no administrators.

    :param context: the caller
    :param force: whether he asks for it
    :raises AdminRequired: when he may not
    :raises InvalidInput: when it is neither True nor False
    """
    if not isinstance(force, bool):
        raise exception.InvalidInput(
            field='force', reason=f'{force!r:.100} is not a bool'
        )
    if force:
        require_admin(context, 'resource_destroy by force')

"""What the modules of resources share: scope, claims, metadata and tags."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import cast

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.context import require_project
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


def scope(context: RequestContext) -> list[Any]:
    """Return the conditions of the rows that a caller may see.

    :param context: the caller; an administrator sees all
    """
    if context.is_admin:
        return []
    return [TABLE.c.project_id == context.project_id]


def visible(context: RequestContext) -> list[Any]:
    """Return the conditions of the rows that a caller reads.

    :param context: the caller
    """
    return [*query.visible(TABLE, context.read_deleted), *scope(context)]


def check_scope(
    context: RequestContext, filters: Any
) -> Mapping[str, Any] | None:
    """Return filters that show a caller no more than he may see.

    :param context: the caller; an administrator sees all
    :param filters: as resource_get_all takes them
    :raises InvalidInput: when the caller has no project
    """
    if context.is_admin:
        return cast(Mapping[str, Any] | None, filters)
    project_id = require_project(context, None, 'resource_get_all')
    return query.with_filter(filters, 'project_id', project_id)


def held_by(claim: Claim) -> list[Any]:
    """Return the conditions of the row that a claim holds.

    :param claim: the claim
    """
    return [
        TABLE.c.service_id == claim.service_id,
        TABLE.c.claim_generation == claim.generation,
    ]


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
    statement = _READ_METADATA.where(*visible(context))
    for ids in _batches(list(found)):
        for row in session.execute(statement, {'ids': ids}):
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
    statement = _READ_TAGS.where(*visible(context))
    for ids in _batches(list(found)):
        for row in session.execute(statement, {'ids': ids}):
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
        sa.select(table)
        .select_from(TABLE.outerjoin(table, table.c.resource_id == TABLE.c.id))
        .where(TABLE.c.id == resource_id, *visible(context))
        .order_by(*table.primary_key)
    ).all()
    if not rows:
        raise exception.ResourceNotFound(resource_id=resource_id)
    # The join gives one row of NULLs where the resource has none.
    return [row for row in rows if row.resource_id is not None]


_IDS: Any = sa.bindparam('ids', expanding=True)

# A statement has 65,535 parameters at most, in PostgreSQL.
_MANY = 30000
_READ_METADATA = (
    sa.select(METADATA)
    .join(TABLE, TABLE.c.id == METADATA.c.resource_id)
    .where(METADATA.c.resource_id.in_(_IDS))
    .order_by(METADATA.c.key)
)
_READ_TAGS = (
    sa.select(TAGS)
    .join(TABLE, TABLE.c.id == TAGS.c.resource_id)
    .where(TAGS.c.resource_id.in_(_IDS))
    .order_by(TAGS.c.tag)
)


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _MANY):
        yield ids[start : start + _MANY]


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


def _has_metadata(wanted: Any) -> Any:
    check_metadata(wanted)
    return sa.and_(
        sa.true(),
        *(
            sa.exists().where(
                METADATA.c.resource_id == TABLE.c.id,
                METADATA.c.key == key,
                METADATA.c.value == value,
            )
            for key, value in wanted.items()
        ),
    )


def _has_tags(wanted: Any) -> Any:
    tags = [wanted] if isinstance(wanted, str) else wanted
    check_tags(tags)
    return sa.and_(
        sa.true(),
        *(
            sa.exists().where(
                TAGS.c.resource_id == TABLE.c.id, TAGS.c.tag == tag
            )
            for tag in tags
        ),
    )


def _is_claimed(wanted: Any) -> Any:
    if not isinstance(wanted, bool):
        raise exception.InvalidInput(
            field='is_claimed', reason=f'{wanted!r:.100} is not a bool'
        )
    column = TABLE.c.service_id
    return column.is_not(None) if wanted else column.is_(None)


LISTING = query.Listing(
    ResourceRow,
    filters=(
        'id',
        'project_id',
        'name',
        'kind',
        'size',
        'status',
        'service_id',
        'generation',
        'created_at',
        'updated_at',
    ),
    sort_keys={
        'id': 'ix_resources_id',
        'name': 'ix_resources_name',
        'created_at': 'ix_resources_created_at',
        'project_id': None,
        'kind': None,
        'size': None,
        'status': None,
        'service_id': None,
        'generation': None,
        'updated_at': None,
    },
    scoped_by='project_id',
    scoped_sort_keys={
        'id': 'ix_resources_project',
        'name': 'ix_resources_project_name',
        'created_at': 'ix_resources_project_created_at',
        'updated_at': 'ix_resources_project_updated_at',
    },
    special={
        'metadata': _has_metadata,
        'tags': _has_tags,
        'is_claimed': _is_claimed,
    },
)


def check_filters(filters: Any) -> list[Any]:
    """Return the conditions that filters say, as SQL.

    :param filters: as resource_get_all takes them
    :raises InvalidInput: when one is unknown, or its value does not fit
    """
    return LISTING.check_filters(filters)


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


def expectations(expected: Mapping[str, Any] | None) -> list[Any]:
    """Return what is expected of a resource, as SQL.

    :param expected: as resource_update takes it
    """
    return [
        conditions.condition(TABLE.c[name], wanted)
        for name, wanted in (expected or {}).items()
    ]


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

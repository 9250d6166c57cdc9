"""How a new resource is inserted, or found to be there already."""

from collections.abc import Collection
from collections.abc import Mapping

import sqlalchemy as sa

from myservice import exception
from myservice.db.models import ResourceRow
from myservice.db.operation import new_id
from myservice.db.query import creation
from myservice.db.query import lookup
from myservice.db.resources import access
from myservice.db.resources.child_rows import METADATA
from myservice.db.resources.child_rows import TAGS
from myservice.db.transaction.session import AnySession

# What can change; a resource stays in its project, and keeps its size.
_CHANGEABLE = ('name', 'kind', 'status')

_METADATA_OF = sa.select(METADATA.c.key, METADATA.c.value).where(
    METADATA.c.resource_id == sa.bindparam('of_resource')
)
_TAGS_OF = sa.select(TAGS.c.tag).where(
    TAGS.c.resource_id == sa.bindparam('of_resource')
)


def insert(
    columns: Mapping[str, object], *, session: AnySession
) -> tuple[ResourceRow, bool]:
    """Insert a resource, unless the caller has chosen an id that is in use.

    :param columns: column to value; the id may be among them
    :param session: an open transaction
    :returns: the row that has the id now, and whether it is a new one
    """
    if 'id' not in columns:
        key = {'id': session.operation.id}
        session.execute(sa.insert(access.TABLE), {**key, **columns})
        return lookup.get_one('no', ResourceRow, key, session=session), True
    # Another one for each attempt: the row of an earlier one is not new.
    mark = new_id()
    row = creation.insert(
        ResourceRow, {**columns, 'operation': mark}, session=session
    )
    if row is None:
        raise exception.ResourceExists(resource_id=columns['id'])
    return row, row.operation == mark


def check_made_of(
    row: ResourceRow,
    columns: Mapping[str, object],
    metadata: Mapping[str, str] | None,
    tags: Collection[str] | None,
    *,
    session: AnySession,
) -> None:
    """Refuse a create whose id has a resource with other values.

    :param row: the row that has the id
    :param columns: column to value
    :param metadata: the metadata; None is not compared
    :param tags: the tags; None is not compared
    :param session: an open transaction
    :raises ResourceExists: when the resource has other values, or is destroyed
    """
    changeable = _CHANGEABLE if row.generation == 0 else ()
    if (
        row.deleted
        or not creation.is_made_of(row, columns, ('size', *changeable))
        or not _has(row.id, metadata, tags, session=session)
    ):
        raise exception.ResourceExists(resource_id=row.id)


def _has(
    resource_id: str,
    metadata: Mapping[str, str] | None,
    tags: Collection[str] | None,
    *,
    session: AnySession,
) -> bool:
    of_resource = {'of_resource': resource_id}
    if metadata is not None:
        pairs = session.execute(_METADATA_OF, of_resource)
        if {key: value for key, value in pairs} != metadata:
            return False
    if tags is not None:
        found = session.execute(_TAGS_OF, of_resource)
        return {row.tag for row in found} == set(tags)
    return True

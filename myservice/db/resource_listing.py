"""How resources are listed: filters, sort keys and their indexes."""

from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import cast

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_project
from myservice.db import in_list
from myservice.db import listing
from myservice.db import resource_details
from myservice.db import resource_rows
from myservice.db.models import ResourceRow

_TABLE = resource_rows.TABLE
_METADATA = resource_details.METADATA
_TAGS = resource_details.TAGS
_LOOKED_FOR = {
    _METADATA: (_METADATA.c.key, _METADATA.c.value),
    _TAGS: (_TAGS.c.tag,),
}


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
    return listing.with_filter(filters, 'project_id', project_id)


def _metadata_filter(wanted: Any) -> tuple[Hashable, Mapping[str, Any]]:
    resource_details.check_metadata(wanted)
    return _take_apart(_METADATA, wanted.items())


def _tags_filter(wanted: Any) -> tuple[Hashable, Mapping[str, Any]]:
    tags = [wanted] if isinstance(wanted, str) else wanted
    resource_details.check_tags(tags)
    return _take_apart(_TAGS, {(tag,) for tag in tags})


def _take_apart(
    table: Any, rows: Collection[Sequence[str]]
) -> tuple[Hashable, Mapping[str, Any]]:
    shape = in_list.how_many(rows)
    return shape, in_list.all_of(_LOOKED_FOR[table], table.name, rows)


def _has_metadata(number: int) -> Any:
    return _has(_METADATA, number)


def _has_tags(number: int) -> Any:
    return _has(_TAGS, number)


def _has(table: Any, number: int) -> Any:
    return in_list.has_all(
        _TABLE.c.id,
        table.c.resource_id,
        _LOOKED_FOR[table],
        table.name,
        number,
    )


def _is_claimed_filter(wanted: Any) -> tuple[bool, Mapping[str, Any]]:
    if not isinstance(wanted, bool):
        raise exception.InvalidInput(
            field='is_claimed', reason=f'{wanted!r:.100} is not a bool'
        )
    return wanted, {}


def _is_claimed(wanted: Any) -> Any:
    column = _TABLE.c.service_id
    return column.is_not(None) if wanted else column.is_(None)


LISTING = listing.Listing(
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
    selective=('id', 'name', 'service_id'),
    special={
        'metadata': listing.Special(_metadata_filter, _has_metadata),
        'tags': listing.Special(_tags_filter, _has_tags),
        'is_claimed': listing.Special(_is_claimed_filter, _is_claimed),
    },
)

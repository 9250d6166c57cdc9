"""How resources are listed: filters, sort keys and their indexes."""

from collections.abc import Hashable
from collections.abc import Mapping
from typing import Any
from typing import cast

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.context import require_project
from myservice.db import listing
from myservice.db import resource_details
from myservice.db import resource_rows
from myservice.db import validation
from myservice.db.models import ResourceRow

_TABLE = resource_rows.TABLE
_METADATA = resource_details.METADATA
_TAGS = resource_details.TAGS


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


def _metadata_filter(wanted: Any) -> Hashable:
    resource_details.check_metadata(wanted)
    return tuple(sorted(wanted.items()))


def _has_metadata(wanted: Any) -> Any:
    return sa.and_(
        sa.true(),
        *(
            sa.exists().where(
                _METADATA.c.resource_id == _TABLE.c.id,
                _METADATA.c.key == key,
                _METADATA.c.value == value,
            )
            for key, value in wanted
        ),
    )


def _tags_filter(wanted: Any) -> Hashable:
    tags = [wanted] if isinstance(wanted, str) else wanted
    resource_details.check_tags(tags)
    return tuple(sorted(tags))


def _has_tags(tags: Any) -> Any:
    return sa.and_(
        sa.true(),
        *(
            sa.exists().where(
                _TAGS.c.resource_id == _TABLE.c.id, _TAGS.c.tag == tag
            )
            for tag in tags
        ),
    )


def _is_claimed_filter(wanted: Any) -> Hashable:
    validation.check_bool('is_claimed', wanted)
    return bool(wanted)


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

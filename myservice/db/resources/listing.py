"""How resources are listed: filters, sort keys and their indexes."""

import functools
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import cast

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.context import require_project
from myservice.db import validation
from myservice.db.models import ResourceRow
from myservice.db.query import listing
from myservice.db.query.conditions import Clause
from myservice.db.query.conditions import Column
from myservice.db.resources import access
from myservice.db.resources import child_rows
from myservice.db.sql import in_list

_TABLE = access.TABLE
_METADATA = child_rows.METADATA
_TAGS = child_rows.TAGS
_LOOKED_FOR = {
    _METADATA: (_METADATA.c.key, _METADATA.c.value),
    _TAGS: (_TAGS.c.tag,),
}


def check_scope(
    context: RequestContext, filters: Any, function: str = 'resource_get_all'
) -> Mapping[str, object] | None:
    """Return filters that show a caller no more than they may see.

    :param context: the caller; an administrator sees all
    :param filters: as resource_get_all takes them
    :param function: what the caller has called
    :raises InvalidInput: when the caller has no project
    """
    if context.is_admin:
        return cast(Mapping[str, object] | None, filters)
    project_id = require_project(context, None, function)
    return listing.with_filter(filters, 'project_id', project_id)


def _metadata_filter(wanted: Any) -> tuple[Hashable, Mapping[str, object]]:
    child_rows.check_metadata(wanted)
    return _take_apart(_METADATA, 'metadata', wanted.items())


def _all_tags_filter(
    name: str, wanted: Any
) -> tuple[Hashable, Mapping[str, object]]:
    rows = {(tag,) for tag in _checked_tags(name, wanted)}
    return _take_apart(_TAGS, _prefix(name), rows)


def _any_tags_filter(
    name: str, wanted: Any
) -> tuple[Hashable, Mapping[str, object]]:
    tags = _checked_tags(name, wanted)
    return in_list.how_many(tags), in_list.members(_prefix(name), tags)


def _checked_tags(name: str, wanted: Any) -> set[str]:
    tags = [wanted] if isinstance(wanted, str) else wanted
    child_rows.check_tags(tags, name)
    return set(tags)


def _prefix(name: str) -> str:
    """Return what the parameters of a filter begin with."""
    return name.replace('-', '_')


def _take_apart(
    table: sa.Table, prefix: str, rows: Collection[Sequence[str]]
) -> tuple[Hashable, Mapping[str, object]]:
    number = in_list.how_many(rows)
    if number == in_list.MANY:
        return number, {
            f'asked_{prefix}': list(rows),
            f'{prefix}_count': len(rows),
        }
    return number, {
        f'{prefix}_{each}_{column.key}': value
        for each, row in enumerate(rows)
        for column, value in zip(_LOOKED_FOR[table], row, strict=True)
    }


def _has_all(table: sa.Table, prefix: str, number: int) -> Clause:
    if number == in_list.MANY:
        selected: Clause = in_list.is_selected(
            _TABLE.c.id, _has_many_statement(table, prefix)
        )
        return selected
    return sa.and_(
        sa.true(), *(_has_one(table, prefix, each) for each in range(number))
    )


def _has_one(table: sa.Table, prefix: str, number: int) -> Clause:
    return sa.exists().where(
        table.c.resource_id == _TABLE.c.id,
        *(
            column
            == sa.bindparam(
                f'{prefix}_{number}_{column.key}', type_=column.type
            )
            for column in _LOOKED_FOR[table]
        ),
    )


def _has_many_statement(table: sa.Table, prefix: str) -> sa.Select[Any]:
    # Each row is asked for once, and exists at most once: a resource that has
    # as many of them has all. With one EXISTS for each, servers would take
    # ever longer to plan.
    asked = in_list.rows(f'asked_{prefix}', *_LOOKED_FOR[table])
    found = (column == asked.c[column.key] for column in _LOOKED_FOR[table])
    count = sa.bindparam(f'{prefix}_count', type_=sa.Integer())
    return (
        sa.select(table.c.resource_id)
        .where(*found)
        .group_by(table.c.resource_id)
        .having(sa.func.count() == count)
    )


def _has_any_tag(prefix: str, number: int) -> Clause:
    if number == 0:
        return sa.false()
    is_one: Clause = in_list.is_member(_TAGS.c.tag, prefix, number)
    if number == in_list.MANY:
        selected: Clause = in_list.is_selected(
            _TABLE.c.id, sa.select(_TAGS.c.resource_id).where(is_one)
        )
        return selected
    return sa.exists().where(_TAGS.c.resource_id == _TABLE.c.id, is_one)


def _has_not_all_tags(number: int) -> Clause:
    return sa.not_(_has_all(_TAGS, 'not_tags', number))


def _has_none_of_tags(number: int) -> Clause:
    return sa.not_(_has_any_tag('not_tags_any', number))


def _is_claimed_filter(wanted: object) -> tuple[bool, Mapping[str, object]]:
    validation.check_bool('is_claimed', wanted)
    return bool(wanted), {}


def _is_claimed(wanted: bool) -> Clause:
    column: Column = _TABLE.c.service_id
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
        'metadata': listing.Special(
            _metadata_filter,
            functools.partial(_has_all, _METADATA, 'metadata'),
        ),
        'tags': listing.Special(
            functools.partial(_all_tags_filter, 'tags'),
            functools.partial(_has_all, _TAGS, 'tags'),
        ),
        'tags-any': listing.Special(
            functools.partial(_any_tags_filter, 'tags-any'),
            functools.partial(_has_any_tag, 'tags_any'),
        ),
        'not-tags': listing.Special(
            functools.partial(_all_tags_filter, 'not-tags'),
            _has_not_all_tags,
        ),
        'not-tags-any': listing.Special(
            functools.partial(_any_tags_filter, 'not-tags-any'),
            _has_none_of_tags,
        ),
        'is_claimed': listing.Special(_is_claimed_filter, _is_claimed),
    },
)

"""What a resource has besides its row: metadata and tags."""

import functools
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.db import validation
from myservice.db.models import ResourceMetadata
from myservice.db.models import ResourceTag
from myservice.db.resources import access
from myservice.db.sql import in_list
from myservice.db.transaction.session import AnySession

METADATA: Any = ResourceMetadata.__table__
TAGS: Any = ResourceTag.__table__

_RESOURCE = access.TABLE


def check_metadata(metadata: Any) -> None:
    """Refuse what cannot be stored as metadata.

    :param metadata: key to value, all of them text
    :raises InvalidInput: when it is something else
    """
    validation.check_dict('metadata', metadata)
    for key, value in metadata.items():
        validation.check_name('metadata key', key)
        validation.check_value(
            METADATA.c.value, value, f'metadata[{key!r:.100}]'
        )


def check_tags(tags: Any, field: str = 'tags') -> None:
    """Refuse what cannot be stored as tags.

    :param tags: a list, tuple or set of texts
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    validation.check_texts(field, tags)
    for tag in tags:
        validation.check_name(field, tag)


def read_metadata(
    context: RequestContext,
    resource_ids: Iterable[str],
    *,
    session: AnySession,
) -> dict[str, dict[str, str]]:
    """Return the metadata of resources, in one statement.

    :param context: the caller; resources that they may not see have none
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

    :param context: the caller; resources that they may not see have none
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
    table: sa.Table,
    resource_id: str,
    *,
    session: AnySession,
) -> list[Any]:
    """Return the rows of metadata or tags of a resource, in one statement.

    :param context: the caller
    :param table: METADATA or TAGS
    :param resource_id: the id of the resource
    :param session: an open session
    :raises ResourceNotFound: when there is none that the caller may see
    """
    rows = session.execute(
        _read_one_statement(table, access.scope(context)),
        {'resource_id': resource_id, **access.of_project(context)},
    ).all()
    if not rows:
        raise exception.ResourceNotFound(resource_id=resource_id)
    # The join gives one row of NULLs where the resource has none.
    return [row for row in rows if row.resource_id is not None]


@functools.cache
def _read_one_statement(
    table: sa.Table, scope: access.Scope
) -> sa.Select[Any]:
    return (
        sa.select(table)
        .select_from(
            _RESOURCE.outerjoin(table, table.c.resource_id == _RESOURCE.c.id)
        )
        .where(_RESOURCE.c.id == sa.bindparam('resource_id'), *scope.clauses())
        .order_by(*table.primary_key)
    )


def _read_of_many(
    context: RequestContext,
    table: sa.Table,
    resource_ids: Iterable[str],
    *,
    session: AnySession,
) -> Any:
    return session.execute(
        _read_many_statement(table, access.scope(context)),
        {'ids': list(resource_ids), **access.of_project(context)},
    )


@functools.cache
def _read_many_statement(
    table: sa.Table, scope: access.Scope
) -> sa.Select[Any]:
    return (
        sa.select(table)
        .join(_RESOURCE, _RESOURCE.c.id == table.c.resource_id)
        .where(
            in_list.is_member(table.c.resource_id, 'ids'),
            *scope.clauses(),
        )
        .order_by(*table.primary_key)
    )


_ADD_METADATA = in_list.insert(
    (METADATA.c.resource_id, METADATA.c.key, METADATA.c.value)
)
_ADD_TAGS = in_list.insert((TAGS.c.resource_id, TAGS.c.tag))


def add_metadata(
    resource_id: str, metadata: Mapping[str, str], *, session: AnySession
) -> None:
    """Insert metadata, of keys that the resource does not have.

    :param resource_id: the resource, which the caller has locked
    :param metadata: key to value
    :param session: an open transaction
    """
    rows = [(resource_id, *pair) for pair in sorted(metadata.items())]
    if rows:
        session.execute(_ADD_METADATA, {'given': rows})


def add_tags(
    resource_id: str, tags: Iterable[str], *, session: AnySession
) -> None:
    """Insert tags that the resource does not have.

    :param resource_id: the resource, which the caller has locked
    :param tags: the tags; one that is named twice counts once
    :param session: an open transaction
    """
    rows = [(resource_id, tag) for tag in sorted(set(tags))]
    if rows:
        session.execute(_ADD_TAGS, {'given': rows})

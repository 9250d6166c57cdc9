"""How services are found: by a key, by their ids, and in lists."""

import functools
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.db import service_rows
from myservice.db.liveness import ServiceRow
from myservice.db.query import listing
from myservice.db.query import lookup
from myservice.db.sql import in_list
from myservice.db.transaction.session import AnySession

_TABLE = service_rows.TABLE

LISTING = listing.Listing(
    ServiceRow,
    filters=(
        'host',
        'binary',
        'topic',
        'availability_zone',
        'disabled',
        'is_up',
    ),
    selective=('host',),
    sort_keys={
        'id': 'ix_services_id',
        'host': 'ix_services_host',
        'binary': 'ix_services_binary',
        'topic': 'ix_services_topic',
        'availability_zone': 'ix_services_zone',
        'version': 'ix_services_version',
        'created_at': 'ix_services_created_at',
        'updated_at': 'ix_services_updated_at',
        'last_seen_at': None,
    },
)


def get(
    context: RequestContext, service_id: str, *, session: AnySession
) -> ServiceRow:
    """Read a service, and lock it inside a transaction.

    :param context: the caller
    :param service_id: the id of the row
    :param session: an open session
    :raises ServiceNotFound: when there is none
    """
    row = lookup.get(
        context.read_deleted, ServiceRow, {'id': service_id}, session=session
    )
    if row is None:
        raise exception.ServiceNotFound(service_id=service_id)
    return row


def get_by_host_and_binary(
    context: RequestContext, host: str, binary: str, *, session: AnySession
) -> ServiceRow:
    """Read a service, and lock it inside a transaction.

    :param context: the caller
    :param host: the host, compared exactly
    :param binary: the binary, compared exactly
    :param session: an open session
    :raises HostBinaryNotFound: when there is none
    """
    key = {'host': host, 'binary': binary}
    row = lookup.get(context.read_deleted, ServiceRow, key, session=session)
    if row is None:
        raise exception.HostBinaryNotFound(host=host, binary=binary)
    return row


def get_many(
    context: RequestContext,
    service_ids: Collection[str],
    *,
    session: AnySession,
) -> list[ServiceRow]:
    """Read services, in one statement; nothing is locked.

    :param context: the caller
    :param service_ids: the ids of the rows
    :param session: an open session
    :returns: the rows, in the order of the ids
    :raises ServicesNotFound: when there are not all of them
    """
    rows, missing = lookup.get_many(
        _get_many_statement(context.read_deleted),
        ServiceRow,
        service_ids,
        {},
        session=session,
    )
    if missing:
        raise exception.ServicesNotFound(
            service_ids=missing, service_id=missing[0]
        )
    return rows


@functools.cache
def _get_many_statement(read_deleted: ReadDeleted) -> sa.Select[Any]:
    return sa.select(*ServiceRow.columns).where(
        in_list.is_member(_TABLE.c.id, 'ids'),
        *lookup.visible(_TABLE, read_deleted),
    )

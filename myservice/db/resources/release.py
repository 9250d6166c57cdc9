"""SQL that clears the holder of resources: it releases their claims."""

import functools
from typing import Any

import sqlalchemy as sa

from myservice.db import liveness
from myservice.db.models import Resource
from myservice.db.models import Service
from myservice.db.resources import fencing
from myservice.db.sql import clock
from myservice.db.sql import dialects
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

_TABLE: Any = Resource.__table__
_SERVICES: Any = Service.__table__

# The statements below add which resources.
_RELEASE: sa.Update = (
    sa.update(_TABLE)
    .where(_TABLE.c.deleted == '')
    .values(
        service_id=None,
        claim_generation=None,
        generation=fencing.NEXT_GENERATION,
        operation=sa.bindparam('released_by', type_=_TABLE.c.operation.type),
        updated_at=clock.utcnow(),
    )
)
#: releases the one that a claim holds
RELEASE_ONE: sa.Update = _RELEASE.where(
    _TABLE.c.id == sa.bindparam('resource_id'), *fencing.HELD
)
# MariaDB would scan a small table, and wait for what others are claiming.
_RELEASE_ALL_OF: sa.Update = dialects.force_index(
    _RELEASE.where(_TABLE.c.service_id == sa.bindparam('released_service')),
    _TABLE,
    'ix_resources_free',
)
_COUNT_OF: sa.Select[Any] = sa.select(sa.func.count()).where(
    _TABLE.c.service_id == sa.bindparam('holder'), _TABLE.c.deleted == ''
)


def release_all_of(service_id: str, *, session: AnySession) -> int:
    """Release all that a service holds, which the caller has locked.

    :param service_id: the service
    :param session: an open transaction
    :returns: how many claims there were
    """
    result = session.execute(
        _RELEASE_ALL_OF,
        {'released_service': service_id, 'released_by': session.operation.id},
    )
    return int(result.rowcount)


def count_of(service_id: str, *, session: AnySession) -> int:
    """Return how many claims a service holds.

    :param service_id: the service
    :param session: an open session
    """
    return int(session.scalar(_COUNT_OF, {'holder': service_id}))


def release_those_of_services_down(*, session: AnySession) -> int:
    """Release all that services that are down hold, in one statement.

    :param session: an open session
    :returns: how many claims there were
    """
    backend = backend_of(session.get_bind().dialect)
    result = session.execute(
        _release_those_down_statement(backend),
        {'released_by': session.operation.id},
    )
    return int(result.rowcount)


@functools.cache
def _release_those_down_statement(backend: Backend) -> sa.UpdateBase:
    down = dialects.evaluated_once(
        backend,
        sa.select(_SERVICES.c.id)
        .where(sa.not_(liveness.is_up(_SERVICES.c)))
        .with_for_update(read=True),
        'down',
    )
    return _RELEASE.where(_TABLE.c.service_id == down.c.id)

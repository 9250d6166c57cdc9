"""SQL that replaces a claim by a new one, of the same service or another."""

import functools

import sqlalchemy as sa

from myservice import exception
from myservice.db import service_rows
from myservice.db.resources import access
from myservice.db.resources import fencing
from myservice.db.resources import holder
from myservice.db.resources.fencing import Claim
from myservice.db.sql.dialects import Backend
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction.session import AnySession

_TABLE = access.TABLE

_HELD = sa.select(_TABLE.c.id).where(
    _TABLE.c.id == sa.bindparam('resource_id'), *fencing.HELD
)


def renew(claim: Claim, *, session: AnySession) -> int | None:
    """Give the holder of a claim a new one, in one statement.

    :param claim: the claim
    :param session: an open session
    :returns: the new generation; None when the claim no longer holds
    """
    backend = backend_of(session.get_bind().dialect)
    return holder.assign(
        backend,
        _renew_statement(backend),
        claim.resource_id,
        fencing.held(claim),
        session=session,
    )


@functools.cache
def _renew_statement(backend: Backend) -> sa.UpdateBase:
    return holder.statement(backend, _TABLE.c.service_id, *fencing.HELD)


def hand_over(
    claim: Claim,
    service_id: str,
    registration: int | None,
    *,
    session: AnySession,
) -> int | None:
    """Give the resource of a claim to a living service, in one statement.

    :param claim: the claim
    :param service_id: the service
    :param registration: the one that has to hold; None is any
    :param session: an open session
    :returns: the new generation; None when the service cannot get it, which
        ``refusal`` explains
    """
    backend = backend_of(session.get_bind().dialect)
    return holder.assign(
        backend,
        _hand_over_statement(backend, registration is not None),
        claim.resource_id,
        {
            **fencing.held(claim),
            'living_service': service_id,
            **service_rows.held(registration),
        },
        session=session,
    )


@functools.cache
def _hand_over_statement(backend: Backend, numbered: bool) -> sa.UpdateBase:
    return holder.statement_of_service(backend, numbered, *fencing.HELD)


def refusal(
    claim: Claim,
    service_id: str,
    registration: int | None,
    *,
    session: AnySession,
) -> exception.MyServiceError:
    """Return why a claim could not be handed over.

    :param claim: the claim
    :param service_id: the service
    :param registration: the one that has to hold; None is any
    :param session: an open session
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    # Before the service: this error says that the caller has to stop.
    held = session.execute(
        _HELD, {**fencing.held(claim), 'resource_id': claim.resource_id}
    ).first()
    if held is not None:
        service = session.execute(
            service_rows.ONE, {'living_service': service_id}
        ).first()
        service_rows.check(service, service_id, registration)
    return exception.ClaimLost(**claim._asdict())

"""Claims: which service, and no other one, works on a resource.

A claim carries a fencing token, the resource's generation. Once a claim was
taken over, writes that name it are refused, however late they come: see
M. Kleppmann, "How to do distributed locking", 2016.

Services are locked before resources, here as in service.py. There is one
exception, which doc/source/contributor/claims.rst explains. The transaction of
a claim locks the service against being destroyed. On PostgreSQL a heartbeat
does not wait for that lock. MariaDB has no such lock, and a heartbeat waits
for the end of the transaction: keep transactions that claim short.
"""

from collections.abc import Mapping
from typing import Any

from myservice import exception
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import validation
from myservice.db.resources import access
from myservice.db.resources import acquire
from myservice.db.resources import fencing
from myservice.db.resources import listing
from myservice.db.resources import release
from myservice.db.resources import replacement
from myservice.db.resources.fencing import Claim
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session


def _resource_claimed(
    context: RequestContext,
    resource_id: str,
    service_id: str,
    registration: int | None = None,
    *,
    session: AnySession,
) -> Claim:
    row = access.get(context, resource_id, session=session)
    if row.operation != session.operation.id or row.claim_generation is None:
        raise row.not_found()
    return Claim(resource_id, service_id, row.claim_generation, registration)


@retry_on_failure(settle=_resource_claimed)
def resource_claim(
    context: RequestContext,
    resource_id: str,
    service_id: str,
    registration: int | None = None,
) -> Claim:
    """Make a service the one that works on a resource.

    :param context: an administrator's context
    :param resource_id: the resource, which nobody holds
    :param service_id: the service
    :param registration: that of the process that claims, as service_register
        has returned it; None is any
    :returns: the claim, whose generation is higher than that of all before
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ResourceNotFound: when no living resource has this id
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    :raises ResourceClaimed: when a service holds it, this one or another
    """
    require_admin(context, 'resource_claim')
    validation.check_text('resource_id', resource_id)
    validation.check_text('service_id', service_id)
    validation.check_registration(registration)
    session = get_session(context, autocommit=True)
    with session.begin():
        generation = acquire.claim(
            resource_id, service_id, registration, session=session
        )
        if generation is None:
            raise acquire.refusal(
                context, resource_id, service_id, registration, session=session
            )
        return Claim(resource_id, service_id, generation, registration)


@retry_on_failure
def resource_claim_next(
    context: RequestContext,
    service_id: str,
    filters: Mapping[str, Any] | None = None,
    limit: int = 1,
    registration: int | None = None,
) -> list[Claim]:
    """Make a service work on resources that nobody holds, oldest first.

    Concurrent callers do not wait for each other, and no two of them get the
    same resource. Resources that another caller is about to claim are
    skipped, so an empty answer does not mean that there is no work.

    :param context: an administrator's context
    :param service_id: the service; one that is disabled, or forced down,
        gets no new work
    :param filters: as resource_get_all takes them
    :param limit: how many at most, from 1 on
    :param registration: that of the process that claims, as service_register
        has returned it; None is any
    :returns: a list of claims
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    require_admin(context, 'resource_claim_next')
    validation.check_text('service_id', service_id)
    validation.check_batch_size(limit, 'limit')
    validation.check_registration(registration)
    wanted = listing.LISTING.check_filters(filters)
    session = get_session(context, core=True)
    with session.begin():
        if session.operation.attempt > 1:
            acquire.lock_service(service_id, registration, session=session)
            done = acquire.of_earlier_attempt(
                service_id, registration, session=session
            )
            if done:
                return done
        return acquire.claim_unclaimed(
            service_id, registration, wanted, limit, session=session
        )


def _resource_claim_renewed(
    context: RequestContext, claim: Claim, *, session: AnySession
) -> Claim:
    return _resource_claimed(
        context,
        claim.resource_id,
        claim.service_id,
        claim.registration,
        session=session,
    )


@retry_on_failure(settle=_resource_claim_renewed)
def resource_claim_renew(context: RequestContext, claim: Claim) -> Claim:
    """Replace a claim that holds by a new one of the same service.

    :param context: an administrator's context
    :param claim: the claim, under which nothing can be written any more
    :returns: the new claim, whose generation is higher
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when it is not a claim
    :raises ClaimLost: when it no longer holds
    """
    require_admin(context, 'resource_claim_renew')
    fencing.check_claim(claim, required=True)
    session = get_session(context, autocommit=True)
    with session.begin():
        generation = replacement.renew(claim, session=session)
        if generation is None:
            raise exception.ClaimLost(**claim._asdict())
        return claim._replace(generation=generation)


def _resource_claim_handed_over(
    context: RequestContext,
    claim: Claim,
    service_id: str,
    registration: int | None = None,
    *,
    session: AnySession,
) -> Claim:
    return _resource_claimed(
        context, claim.resource_id, service_id, registration, session=session
    )


@retry_on_failure(settle=_resource_claim_handed_over)
def resource_claim_hand_over(
    context: RequestContext,
    claim: Claim,
    service_id: str,
    registration: int | None = None,
) -> Claim:
    """Make another service the one that works on a resource.

    At no time does nobody hold the resource.

    :param context: an administrator's context
    :param claim: the claim, under which nothing can be written any more
    :param service_id: the service that gets the resource
    :param registration: that of the process that gets it, as
        service_register has returned it; None is any
    :returns: the claim of that service, whose generation is higher
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when an argument is of the wrong type
    :raises ClaimLost: when the claim no longer holds
    :raises ServiceNotFound: when no living service has this id
    :raises ServiceReplaced: when the registration no longer holds
    """
    require_admin(context, 'resource_claim_hand_over')
    fencing.check_claim(claim, required=True)
    validation.check_text('service_id', service_id)
    validation.check_registration(registration)
    session = get_session(context, autocommit=True)
    with session.begin():
        generation = replacement.hand_over(
            claim, service_id, registration, session=session
        )
        if generation is None:
            raise replacement.refusal(
                claim, service_id, registration, session=session
            )
        return Claim(claim.resource_id, service_id, generation, registration)


def _resource_released(
    context: RequestContext, claim: Claim, *, session: AnySession
) -> None:
    row = access.get(context, claim.resource_id, session=session)
    if row.operation != session.operation.id:
        raise row.not_found()


@retry_on_failure(settle=_resource_released)
def resource_release(context: RequestContext, claim: Claim) -> None:
    """Give a claim up.

    :param context: an administrator's context
    :param claim: the claim
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when it is not a claim
    :raises ClaimLost: when it no longer holds
    """
    require_admin(context, 'resource_release')
    fencing.check_claim(claim, required=True)
    session = get_session(context, autocommit=True)
    with session.begin():
        result = session.execute(
            release.RELEASE_ONE,
            {
                **fencing.held(claim),
                'resource_id': claim.resource_id,
                'released_by': session.operation.id,
            },
        )
        if result.rowcount != 1:
            raise exception.ClaimLost(**claim._asdict())


@retry_on_failure
def claims_take_over(context: RequestContext) -> int:
    """Release the claims of services that are down, by the database's clock.

    A service that beats in this moment keeps its claims.

    :param context: an administrator's context
    :returns: how many were released
    :raises AdminRequired: when the caller is not an administrator
    """
    require_admin(context, 'claims_take_over')
    session = get_session(context, autocommit=True)
    with session.begin():
        return release.release_those_of_services_down(session=session)

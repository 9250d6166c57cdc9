"""Claims and their fencing tokens: what a claim is, and whether it holds.

M. Kleppmann, "How to do distributed locking", 2016.
"""

from typing import NamedTuple

import sqlalchemy as sa

from myservice import exception
from myservice.db import validation
from myservice.db.models import Resource
from myservice.db.models import ResourceRow

_TABLE = Resource.__table__

#: the generation after a change of a resource
NEXT_GENERATION = _TABLE.c.generation + 1


class Claim(NamedTuple):
    """A service's right to work on a resource, until it is taken over.

    :param resource_id: the resource
    :param service_id: the service that holds it
    :param generation: the fencing token: a later claim has a higher one
    :param registration: the service's when it claimed, if it was given
    """

    resource_id: str
    service_id: str
    generation: int
    registration: int | None = None


def check_claim(
    claim: object, resource_id: str | None = None, required: bool = False
) -> None:
    """Refuse what is not a claim, or is one on another resource.

    :param claim: the claim, if any
    :param resource_id: the resource; None is any
    :param required: whether there has to be one
    :raises InvalidInput: when it is something else
    """
    if claim is None and not required:
        return
    if not isinstance(claim, Claim):
        raise exception.InvalidInput(
            field='claim', reason=f'{validation.shown(claim)} is not a Claim'
        )
    validation.check_name('claim.resource_id', claim.resource_id)
    validation.check_name('claim.service_id', claim.service_id)
    validation.check_value(
        _TABLE.c.generation, claim.generation, 'claim.generation'
    )
    validation.check_registration(claim.registration, 'claim.registration')
    if resource_id not in (None, claim.resource_id):
        raise exception.InvalidInput(
            field='claim', reason=f'it is on resource {claim.resource_id}'
        )


#: the clauses of the row that a claim holds
HELD = (
    _TABLE.c.service_id == sa.bindparam('held_by'),
    _TABLE.c.claim_generation == sa.bindparam('held_since'),
)


def held(claim: Claim) -> dict[str, object]:
    """Return the parameters of HELD.

    :param claim: the claim
    """
    return {'held_by': claim.service_id, 'held_since': claim.generation}


def holds(claim: Claim, row: ResourceRow) -> bool:
    """Return whether a claim holds, by the row of its resource."""
    return (claim.service_id, claim.generation) == (
        row.service_id,
        row.claim_generation,
    )

"""What the modules of resources share: scope, claims, quota and updates."""

import functools
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import cast

import sqlalchemy as sa

from myservice import exception
from myservice import plain
from myservice.context import ReadDeleted
from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import validation
from myservice.db.models import Resource
from myservice.db.models import ResourceRow
from myservice.db.query import conditions
from myservice.db.query import lookup
from myservice.db.quotas import enforcement
from myservice.db.sql import clock
from myservice.db.transaction.session import AnySession

TABLE: Any = Resource.__table__


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
    claim: Any, resource_id: str | None = None, required: bool = False
) -> None:
    """Refuse what is no claim, or one on another resource.

    :param claim: the claim; None is none
    :param resource_id: the resource; None is any
    :param required: whether there has to be one
    :raises InvalidInput: when it is something else
    """
    if claim is None and not required:
        return
    if not isinstance(claim, Claim):
        raise exception.InvalidInput(
            field='claim', reason=f'{validation.shown(claim)} is no Claim'
        )
    validation.check_name('claim.resource_id', claim.resource_id)
    validation.check_name('claim.service_id', claim.service_id)
    validation.check_value(
        TABLE.c.generation, claim.generation, 'claim.generation'
    )
    validation.check_registration(claim.registration, 'claim.registration')
    if resource_id not in (None, claim.resource_id):
        raise exception.InvalidInput(
            field='claim', reason=f'it is on resource {claim.resource_id}'
        )


class Scope(NamedTuple):
    """Which rows a caller may see, as far as that decides a statement.

    :param read_deleted: as in a RequestContext
    :param all_projects: whether he is an administrator, and sees all; else
        the parameter ``of_project`` says whose he sees
    """

    read_deleted: ReadDeleted
    all_projects: bool

    def conditions(self) -> list[Any]:
        """Return the conditions of these rows."""
        found = lookup.visible(TABLE, self.read_deleted)
        if not self.all_projects:
            found.append(TABLE.c.project_id == sa.bindparam('of_project'))
        return found


def scope(context: RequestContext) -> Scope:
    """Return which rows a caller may see.

    :param context: the caller
    """
    return Scope(context.read_deleted, bool(context.is_admin))


def of_project(context: RequestContext) -> dict[str, Any]:
    """Return the parameters of the conditions of a caller's scope.

    :param context: the caller
    """
    if context.is_admin:
        return {}
    return {'of_project': plain.plain(context.project_id)}


#: the conditions of the row that a claim holds
HELD = (
    TABLE.c.service_id == sa.bindparam('held_by'),
    TABLE.c.claim_generation == sa.bindparam('held_since'),
)


def held(claim: Claim) -> dict[str, Any]:
    """Return the parameters of HELD.

    :param claim: the claim
    """
    return {'held_by': claim.service_id, 'held_since': claim.generation}


def get(
    context: RequestContext, resource_id: str, *, session: AnySession
) -> Resource:
    """Read a resource of the caller, and lock it inside a transaction.

    :param context: the caller
    :param resource_id: the id of the row
    :param session: an open session
    :raises ResourceNotFound: when there is none that he may see
    """
    key = {'id': resource_id}
    row = lookup.get(context.read_deleted, ResourceRow, key, session=session)
    if row is None or (
        not context.is_admin and row.project_id != context.project_id
    ):
        raise exception.ResourceNotFound(resource_id=resource_id)
    return cast(Resource, row)


def get_for_writing(
    context: RequestContext,
    resource_id: str,
    claim: Claim | None,
    *,
    session: AnySession,
) -> Resource:
    """Lock a living resource, whose claim still holds.

    :param context: the caller
    :param resource_id: the id of the row
    :param claim: the claim under which the caller works; None is none
    :param session: an open transaction
    :raises ResourceNotFound: when there is none that he may see
    :raises ClaimLost: when the claim holds no longer
    """
    row = get(context, resource_id, session=session)
    if row.deleted:
        raise exception.ResourceNotFound(resource_id=resource_id)
    if claim is not None and not holds(claim, row):
        raise exception.ClaimLost(**claim._asdict())
    return row


def holds(claim: Claim, row: Resource) -> bool:
    """Return whether a claim holds, by the resource's row."""
    return (claim.service_id, claim.generation) == (
        row.service_id,
        row.claim_generation,
    )


def take_quota(project_id: str, size: int, *, session: AnySession) -> None:
    """Add a resource to what a project has in use.

    :param project_id: the project
    :param size: its size in gigabytes
    :param session: an open transaction, in which it was inserted
    :raises OverQuota: when it does not fit into the limits
    :raises QuotaUsageOverflow: when a counter could not hold it
    """
    _change_usage(project_id, 1, size, session=session)


def give_quota_back(
    project_id: str, size: int, *, session: AnySession
) -> None:
    """Take a resource from what a project has in use.

    :param project_id: the project
    :param size: its size in gigabytes
    :param session: an open transaction, in which it was marked deleted
    """
    _change_usage(project_id, -1, -size, session=session)


def _change_usage(
    project_id: str, number: int, size: int, *, session: AnySession
) -> None:
    deltas = {'resources': number} | ({'gigabytes': size} if size else {})
    enforcement.take(project_id, deltas, 'in_use', session=session)


def check_expected(expected: Any) -> None:
    """Refuse what a resource cannot be compared with.

    :param expected: as resource_update takes it
    :raises InvalidInput: when a column is unknown, or a value does not fit
    """
    if expected is None:
        return
    validation.check_dict('expected', expected)
    for name, wanted in expected.items():
        if name not in TABLE.c:
            raise exception.InvalidInput(
                field='expected',
                reason=f'there is no column {validation.shown(name)}',
            )
        conditions.check(TABLE.c[name], wanted, name)


def update(
    context: RequestContext,
    resource_id: str,
    values: Mapping[str, Any],
    expected: Mapping[str, Any] | None,
    claim: Claim | None,
    *,
    session: AnySession,
) -> bool:
    """Change a resource, in one statement, if it is as expected.

    :param context: the caller
    :param resource_id: the id of the row
    :param values: column to value
    :param expected: as resource_update takes it
    :param claim: the claim under which the caller works; None is none
    :param session: an open session
    :returns: whether it was, and is changed
    """
    wanted = conditions.take_apart(expected)
    result = session.execute(
        _updating(bool(context.is_admin), wanted.shape, claim is not None),
        {
            **values,
            **wanted.parameters,
            **(held(claim) if claim else {}),
            **of_project(context),
            'resource_id': resource_id,
            'updated_by': session.operation.id,
        },
    )
    return bool(result.rowcount == 1)


@functools.lru_cache(maxsize=1000)
def _updating(all_projects: bool, expected: Any, claimed: bool) -> Any:
    own_uuid = sa.bindparam('updated_by', type_=TABLE.c.operation.type)
    return (
        sa.update(TABLE)
        .where(
            TABLE.c.id == sa.bindparam('resource_id'),
            # What an attempt whose reply was lost has done is done.
            TABLE.c.operation != own_uuid,
            *Scope('no', all_projects).conditions(),
            *(
                conditions.condition(name, TABLE.c[name], shape)
                for name, shape in expected
            ),
            *(HELD if claimed else ()),
        )
        .values(
            generation=TABLE.c.generation + 1,
            operation=own_uuid,
            updated_at=clock.utcnow(),
        )
    )


def conflict(
    row: Resource, expected: Mapping[str, Any] | None
) -> exception.ResourceConflict:
    """Return the error for a resource that is not as expected.

    :param row: how it is
    :param expected: as resource_update takes it
    """
    return exception.ResourceConflict(
        resource_id=row.id,
        expected=dict(expected or {}),
        actual={name: getattr(row, name) for name in expected or {}},
    )


def check_force(context: RequestContext, force: Any) -> None:
    """Refuse force to those who are no administrators.

    :param context: the caller
    :param force: whether he asks for it
    :raises AdminRequired: when he may not
    :raises InvalidInput: when it is neither True nor False
    """
    validation.check_bool('force', force)
    if force:
        require_admin(context, 'resource_destroy by force')

"""Errors of quotas and reservations."""

from myservice.exception.base import Conflict
from myservice.exception.base import InvalidInput
from myservice.exception.base import NotFound


class QuotaResourceUnknown(InvalidInput):
    """There is no quota for this kind of resource."""

    message = (
        'There is no quota for {unknown}. These have one: {known}; [quota] '
        'default_limits names them.'
    )
    unknown: list[str]
    known: list[str]


class QuotaNotFound(NotFound):
    """The project has no limit of its own for this resource."""

    message = 'Project {project_id} has no limit of its own for {resource}.'
    project_id: str
    resource: str


class QuotaExists(Conflict):
    """The project already has a limit of its own for this resource."""

    message = 'Project {project_id} already has a limit for {resource}.'
    project_id: str
    resource: str


class QuotaClassNotFound(NotFound):
    """The quota class has no limit for this resource."""

    message = 'Quota class {class_name} has no limit for {resource}.'
    class_name: str
    resource: str


class QuotaClassExists(Conflict):
    """The quota class already has a limit for this resource."""

    message = 'Quota class {class_name} already has a limit for {resource}.'
    class_name: str
    resource: str


class OverQuota(Conflict):
    """A reservation would exceed a limit; nothing was reserved.

    The dicts have only the resources that are over their limit.
    """

    message = 'Project {project_id} is over quota: {explanation}.'
    project_id: str
    explanation: str
    overs: list[str]
    quotas: dict[str, int]
    usages: dict[str, dict[str, int]]


class QuotaUsageOverflow(Conflict):
    """A usage would exceed what a counter can hold; nothing was changed."""

    message = (
        'The usage of {resource} in project {project_id} would exceed '
        '{maximum}, the most that a counter can hold.'
    )
    project_id: str
    resource: str
    maximum: int


class ReservationNotFound(NotFound):
    """The project has no such reservations, or no longer has them."""

    message = (
        'Reservations {reservation_ids} could not be found in project '
        '{project_id}: they were committed, rolled back, or never made.'
    )
    project_id: str
    reservation_ids: list[str]


class ReservationExpired(Conflict):
    """Reservations were not committed in time, so they were given back."""

    message = (
        'Reservations {reservation_ids} of project {project_id} have expired. '
        'Reserve again.'
    )
    project_id: str
    reservation_ids: list[str]

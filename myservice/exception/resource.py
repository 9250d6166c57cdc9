"""Errors of resources and claims."""

from typing import Any

from myservice.exception.base import Conflict
from myservice.exception.base import NotFound


class ResourceNotFound(NotFound):
    """No living resource that the caller may see has this id."""

    message = 'Resource {resource_id} could not be found.'
    resource_id: str


class ResourceTagNotFound(NotFound):
    """The resource does not have this tag."""

    message = 'Resource {resource_id} does not have the tag {tag}.'
    resource_id: str
    tag: str


class ResourcesNotFound(ResourceNotFound):
    """Some resources that were asked for are not there, or not visible.

    ``resource_ids`` are all of these, and ``resource_id`` is the first one.
    """

    message = 'Resources {resource_ids} could not be found.'
    resource_ids: list[str]


class ResourceExists(Conflict):
    """The id of a new resource is in use, or was, with other values."""

    message = (
        'Resource {resource_id} already exists with other values, or was '
        'destroyed.'
    )
    resource_id: str


class ResourceConflict(Conflict):
    """A resource is not in the expected state; nothing was changed."""

    message = (
        'Resource {resource_id} is not in the expected state: expected '
        '{expected}, found {actual}.'
    )
    resource_id: str
    expected: dict[str, Any]
    actual: dict[str, Any]


class ResourceClaimed(Conflict):
    """A service holds the resource; its host is None if it is destroyed."""

    message = (
        'Resource {resource_id} is claimed by service {service_id} on host '
        '{host}.'
    )
    resource_id: str
    service_id: str
    host: str | None


class ResourceNotClaimed(Conflict):
    """No service holds the resource, so there is no claim to release."""

    message = 'Resource {resource_id} is not claimed by any service.'
    resource_id: str


class ClaimLost(Conflict):
    """A claim is no longer valid: it was released, or taken over."""

    message = (
        'The claim of service {service_id} on resource {resource_id}, '
        'generation {generation}, is no longer valid. Stop working on the '
        'resource.'
    )
    resource_id: str
    service_id: str
    generation: int
    registration: int | None

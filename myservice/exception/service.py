"""Errors of services."""

import datetime

from myservice.exception.base import Conflict
from myservice.exception.base import NotFound


class ServiceNotFound(NotFound):
    """No living service has this id."""

    message = 'Service {service_id} could not be found.'
    service_id: str


class HostBinaryNotFound(ServiceNotFound):
    """No living service has this host and binary."""

    message = 'Service {binary} on host {host} could not be found.'
    host: str
    binary: str


class ServicesNotFound(ServiceNotFound):
    """Some services that were asked for are not there.

    ``service_ids`` are all of these, and ``service_id`` is the first one.
    """

    message = 'Services {service_ids} could not be found.'
    service_ids: list[str]


class ServiceExists(Conflict):
    """A living service already has this host and binary."""

    message = 'A service {binary} on host {host} already exists.'
    host: str
    binary: str


class ServiceIdExists(ServiceExists):
    """The id of a new service is in use, or was, with other values.

    ``host`` and ``binary`` are those of the service that has the id.
    """

    message = (
        'Service {service_id} already exists with other values, as {binary} '
        'on host {host}, or was destroyed.'
    )
    service_id: str


class ServiceReplaced(Conflict):
    """A registration of a service is no longer valid: stop its work."""

    message = (
        'Registration {registration} of service {service_id} is no longer '
        'valid: another process has registered as {binary} on host {host}, or '
        'the registration was ended. Stop this process. To run both, give '
        'each its own host or binary (myservice-agent: --host, --binary).'
    )
    service_id: str
    registration: int
    host: str
    binary: str


class ServiceAlive(Conflict):
    """A process is registered as this service, and was seen recently."""

    message = (
        'Another process runs as {binary} on host {host}: service '
        '{service_id}, registration {registration}, last seen at '
        '{last_seen_at} UTC. Give this process its own host or binary '
        '(myservice-agent: --host, --binary), or register without a condition '
        'to replace the other process (--replace).'
    )
    service_id: str
    registration: int
    host: str
    binary: str
    last_seen_at: datetime.datetime


class ServiceInUse(Conflict):
    """A service holds claims, which would be lost with it."""

    message = (
        'Service {service_id} holds {claims} claims. Release them first, or '
        'destroy the service by force, which frees them.'
    )
    service_id: str
    claims: int

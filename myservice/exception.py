"""Every error that a caller can get, beside those of oslo_db.exception.

A class declares its fields as annotations and its message as a template over
them; callers raise with keywords and read the fields as attributes. Those
have all that a list holds; a message says its first ten and how many more.
"""

import dataclasses
import datetime
import itertools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

from myservice import pickling

_SHOWN = 10


def listed(
    values: Collection[Any],
    separator: str = ', ',
    text: Callable[[Any], str] = str,
) -> str:
    """Return values as a text for a message: ten, and how many more.

    :param values: a list, or the like
    :param separator: what stands between them
    :param text: what returns one of them as a text
    """
    shown = [text(each) for each in itertools.islice(values, _SHOWN)]
    if len(values) > _SHOWN:
        shown.append(f'… and {len(values) - _SHOWN} more')
    return separator.join(shown)


def _text(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return listed(value)
    return _inner(value) if isinstance(value, Mapping) else value


def _inner(value: Any) -> str:
    """Return what a list or dict holds as a text, which is no list itself."""
    if isinstance(value, Mapping):
        pairs = listed(
            value, text=lambda key: f'{key!r}: {_inner(value[key])}'
        )
        return f'{{{pairs}}}'
    if isinstance(value, list | tuple | set | frozenset):
        return f'({listed(value, text=_inner)})'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each.name for each in dataclasses.fields(value)]
        values = (f'{name}={_inner(getattr(value, name))}' for name in fields)
        return f'{type(value).__name__}({", ".join(values)})'
    return repr(value)


class MyServiceError(Exception):
    """The base of all errors of myservice."""

    message: ClassVar[str] = 'An unknown error occurred.'

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        texts = {name: _text(value) for name, value in fields.items()}
        super().__init__(self.message.format(**texts))

    def __reduce__(self) -> tuple[Any, ...]:
        return pickling.reduced(super().__reduce__())


class NotFound(MyServiceError):
    """What was asked for does not exist, or not for this caller."""


class Conflict(MyServiceError):
    """The state of the database stands against the call."""


class InvalidInput(MyServiceError):
    """An argument was refused before any SQL was sent."""

    message = 'Invalid input for {field}: {reason}.'
    field: str
    reason: str


class Forbidden(MyServiceError):
    """The caller may not do what they have asked for."""

    user_id: str | None
    function: str


class AdminRequired(Forbidden):
    """The call is for administrators."""

    message = (
        'User {user_id} is not an administrator, and only administrators '
        'may call {function}.'
    )


class ProjectForbidden(Forbidden):
    """The call is for administrators, and for the project itself."""

    message = (
        'User {user_id} may not call {function} for project {project_id}: '
        'he is neither of this project nor an administrator.'
    )
    project_id: str


class MarkerNotFound(NotFound):
    """The marker of a page is no row of this list."""

    message = 'Marker {marker} could not be found.'
    marker: str


class ServiceNotFound(NotFound):
    """No living service has this id."""

    message = 'Service {service_id} could not be found.'
    service_id: str


class HostBinaryNotFound(ServiceNotFound):
    """No living service has this host and binary."""

    message = 'Service {binary} on host {host} could not be found.'
    host: str
    binary: str


class ServiceExists(Conflict):
    """A living service already has this host and binary."""

    message = 'A service {binary} on host {host} already exists.'
    host: str
    binary: str


class ServiceReplaced(Conflict):
    """A registration of a service holds no longer: stop working for it."""

    message = (
        'Registration {registration} of service {service_id} holds no longer: '
        'another process has registered as {binary} on host {host}, or it was '
        'ended. Stop this process; if both are to run, give each a host or '
        'binary of its own (myservice-agent: --host, --binary).'
    )
    service_id: str
    registration: int
    host: str
    binary: str


class ServiceAlive(Conflict):
    """A process is registered as this service, and was seen of late."""

    message = (
        'Another process runs as {binary} on host {host}: service '
        '{service_id}, registration {registration}, last seen at '
        '{last_seen_at} UTC. Give this one a host or binary of its own '
        '(myservice-agent: --host, --binary), or register without a condition '
        'to replace the other (--replace).'
    )
    service_id: str
    registration: int
    host: str
    binary: str
    last_seen_at: datetime.datetime


class ServiceInUse(Conflict):
    """A service holds claims, which would be lost with it."""

    message = (
        'Service {service_id} holds {claims} claims. Release them, or destroy '
        'it by force, which frees them.'
    )
    service_id: str
    claims: int


class ResourceNotFound(NotFound):
    """No living resource of the caller has this id."""

    message = 'Resource {resource_id} could not be found.'
    resource_id: str


class ResourceConflict(Conflict):
    """A resource is not as the caller expected; nothing was changed."""

    message = (
        'Resource {resource_id} is not as expected: expected {expected}, '
        'actual {actual}.'
    )
    resource_id: str
    expected: dict[str, Any]
    actual: dict[str, Any]


class ResourceClaimed(Conflict):
    """A resource is held by a service."""

    message = 'Resource {resource_id} is claimed by service {service_id}.'
    resource_id: str
    service_id: str


class ResourceNotClaimed(Conflict):
    """A resource is held by nobody, so there is nothing to take away."""

    message = 'Resource {resource_id} is claimed by no service.'
    resource_id: str


class ClaimLost(Conflict):
    """A claim holds no longer: it was released, or taken over."""

    message = (
        'The claim of service {service_id} on resource {resource_id}, of '
        'generation {generation}, holds no longer. Stop working on it.'
    )
    resource_id: str
    service_id: str
    generation: int
    registration: int | None


class QuotaResourceUnknown(InvalidInput):
    """A resource is none of those that have a quota."""

    message = (
        'There is no quota for {unknown}; [quota] default_limits names the '
        'resources that have one: {known}.'
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
    """A reservation does not fit into the limits; nothing was reserved.

    The dicts have the resources that are over, and only those.
    """

    message = 'Project {project_id} is over quota: {explanation}.'
    project_id: str
    explanation: str
    overs: list[str]
    quotas: dict[str, int]
    usages: dict[str, dict[str, int]]


class QuotaUsageOverflow(Conflict):
    """A counter cannot hold so much, limit or not; nothing was changed."""

    message = (
        'The usage of {resource} in project {project_id} would exceed '
        '{maximum}, which is the most that a counter holds.'
    )
    project_id: str
    resource: str
    maximum: int


class ReservationNotFound(NotFound):
    """Reservations of this project do not exist, or no longer."""

    message = (
        'Reservations {reservation_ids} could not be found in project '
        '{project_id}: they were committed or rolled back, or never made.'
    )
    project_id: str
    reservation_ids: list[str]


class ReservationExpired(Conflict):
    """Reservations were not committed in time, and are given back."""

    message = (
        'Reservations {reservation_ids} of project {project_id} have expired. '
        'Reserve anew.'
    )
    project_id: str
    reservation_ids: list[str]


class SessionMisuse(MyServiceError):
    """A session was asked for what its form does not allow."""


class WriteInReadOnly(SessionMisuse):
    """A read-only session was asked to write, or to lock rows."""

    message = (
        'This session only reads, without locks, and refuses: {statement}. '
        'Take get_session(context) to write.'
    )
    statement: str


class SecondWriteInAutocommit(SessionMisuse):
    """An autocommit session was asked for a second write."""

    message = (
        'This session commits each statement by itself, so a second write '
        'would not be atomic with the first and was not sent: {statement}. '
        'Take get_session(context) for a transaction.'
    )
    statement: str


class LockInAutocommit(SessionMisuse):
    """An autocommit session was asked for a lock; nothing was sent."""

    message = (
        'This session commits each statement by itself, so it would not hold '
        'the locks of this one, which was not sent: {statement}. Take '
        'get_session(context) for a transaction.'
    )
    statement: str


class SessionNotBegun(SessionMisuse):
    """A session was used outside of its block."""

    message = 'Use this session inside of "with session.begin():".'


class TransactionInUse(SessionMisuse):
    """A transaction belongs to another thread, task or process."""

    message = (
        'This transaction or session belongs to {owner}, and was used from '
        '{caller}. A context is like a session: one for each thread of '
        'control. context.get_admin_context() makes a new one and is cheap.'
    )
    owner: str
    caller: str


class ForkedWhileBusy(SessionMisuse):
    """A child was forked while SQLite was busy, and cannot use the file."""

    message = (
        'Process {process} was forked while another thread of its parent was '
        'in the middle of a statement of SQLite, which took longer than a '
        'fork waits. SQLite could lose writes of this process: end it, and '
        'fork anew.'
    )
    process: int


class UnknownRevision(NotFound):
    """There is no migration of this name."""

    message = 'There is no revision {revision} of the database schema.'
    revision: str


class TransactionEnded(MyServiceError):
    """The session of a transaction was used after its end."""

    message = (
        'The transaction that this session was opened for has ended. Open '
        'another one: db.api.transaction(context) or db.api.get_session().'
    )


class CannotJoinHere(TransactionEnded):
    """An event listener made a call where the session cannot be used."""

    message = (
        'This is called while the session begins or ends a transaction or a '
        'savepoint, and cannot join it. Listen to before_flush, after_flush '
        'or before_commit instead, where calls join.'
    )


class NotTransactionOwner(SessionMisuse):
    """A part of a shared transaction asked for its end."""

    message = (
        'Refused: {what} would end a transaction that others share, which '
        'only the block that opened it does. To undo a part, leave "with '
        'db.api.savepoint(context):" by an exception; for a transaction of '
        'its own, take transaction(context, independent=True).'
    )
    what: str


class TransactionDoomed(MyServiceError):
    """A statement of this transaction failed, so it cannot be committed."""

    message = (
        'This transaction can only be rolled back, because a statement in it '
        'failed: {reason}. What may fail belongs inside of "with '
        'db.api.savepoint(context):".'
    )
    reason: str


class PartRolledBack(MyServiceError):
    """A part of a shared transaction called ``session.rollback()``."""

    message = 'A part of it asked for a rollback.'


class NoTransaction(SessionMisuse):
    """A savepoint was asked for where there is no transaction."""

    message = (
        'There is no transaction to set a savepoint in. Open one by "with '
        'db.api.transaction(context):".'
    )


class WouldWaitForItself(SessionMisuse):
    """The caller's own thread holds what this call would wait for."""

    message = (
        'This call would wait for its own thread, which holds {held}. End '
        'that transaction first, or let the call join it: by its context.'
    )
    held: str


class CommitUnknown(MyServiceError):
    """The connection was lost during COMMIT, and nobody can tell if it held.

    It happened once or not at all; it will not happen later. ``known`` says
    what was seen, and ``operation`` is the uuid that the change would have
    left behind.
    """

    message = (
        'It is unknown whether {function} (operation {operation}) took '
        'effect: {known}.'
    )
    function: str
    operation: str
    known: str


class ServerError(MyServiceError):
    """The server could not do what it was asked; nothing was done."""

    message = 'The database server could not do it: {reason}'
    reason: str


class ServerBusy(ServerError):
    """The server takes no more connections now."""

    message = 'The database server takes no more connections: {reason}'


class ServerReadOnly(ServerError):
    """The server does not write now, as after a failover."""

    message = 'The database server refuses to write: {reason}'


class DatabaseReadOnly(ServerError):
    """A file of SQLite can only be read; trying again does not help."""

    message = 'The database can only be read: {reason}'


class StatementInterrupted(ServerError):
    """A statement was killed, or ran into the server's time limit."""

    message = 'The database server interrupted a statement: {reason}'


class NoSpace(ServerError):
    """The server has run out of disk space or memory."""

    message = 'The database server has no space left: {reason}'


class SchemaOutdated(ServerError):
    """The tables are not there, or not those of this release."""

    message = (
        'The tables are at revision {revision}, and those of this release at '
        '{head}: run myservice-manage db sync.'
    )
    revision: str
    head: str


class NoTables(SchemaOutdated):
    """There are no tables yet."""

    message = 'There are no tables: run myservice-manage db sync.'


class EncodingRefused(ServerError):
    """A database of PostgreSQL cannot hold all of Unicode."""

    message = (
        'The encoding of database {database} is {encoding}, in which not all '
        "text can be stored. It has to be made with ENCODING 'UTF8'."
    )
    database: str
    encoding: str


class MigrationLocked(ServerError):
    """Another migration of this database did not end in time."""

    message = (
        'Another migration of database {database} is under way: its lock '
        '{lock} was not free within {seconds} seconds. It is held by '
        'connection {holder} of the server.'
    )
    database: str
    lock: str
    seconds: int
    holder: int | None


class MigrationFailed(ServerError):
    """A migration stopped. Where it stopped, the next one goes on."""

    message = 'The migration was not done: {reason}'


class ThreadFailed(MyServiceError):
    """A thread of an agent failed, so the process ends."""

    message = 'The thread "{thread}" failed, so the process ends: {reason}'
    thread: str
    reason: str


class PoolTimeout(MyServiceError):
    """All connections of the pool were in use for too long."""

    message = (
        'No database connection became free within {timeout} seconds: {held} '
        'are held, which is the limit. Look for transactions that stay open, '
        'or raise [database] max_pool_size or max_overflow.'
    )
    timeout: float
    held: int

"""Every error that a caller can get, beside those of oslo_db.exception.

A class declares its fields as annotations and its message as a template over
them; callers raise with keywords and read the fields as attributes. The fields
hold whole lists; a message shows the first ten values of a list and how many
more there are.
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
    """Return a text for a message: the first ten values, and how many more.

    :param values: a list, or the like
    :param separator: the text between two values
    :param text: turns one value into a text
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
    """Return a value inside of a list or dict as a text."""
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
    """The row does not exist, or this caller may not see it."""


class Conflict(MyServiceError):
    """The call does not fit the present state of the database."""


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
        'User {user_id} may not call {function} for project {project_id}: the '
        'user is neither in this project nor an administrator.'
    )
    project_id: str


class MarkerNotFound(NotFound):
    """The marker of a page is not a row of this list."""

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


class ResourceNotFound(NotFound):
    """No living resource that the caller may see has this id."""

    message = 'Resource {resource_id} could not be found.'
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
    """A service holds the resource."""

    message = 'Resource {resource_id} is claimed by service {service_id}.'
    resource_id: str
    service_id: str


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


class SessionMisuse(MyServiceError):
    """A session was used in a way that its kind does not allow."""


class WriteInReadOnly(SessionMisuse):
    """A read-only session was asked to write, or to lock rows."""

    message = (
        'This session only reads, without locks. It refused: {statement}. To '
        'write, use get_session(context).'
    )
    statement: str


class SecondWriteInAutocommit(SessionMisuse):
    """An autocommit session was asked to write a second time."""

    message = (
        'This session commits each statement by itself, so a second write '
        'would not be atomic with the first. It was not sent: {statement}. '
        'For a transaction, use get_session(context).'
    )
    statement: str


class LockInAutocommit(SessionMisuse):
    """An autocommit session was asked to lock rows; nothing was sent."""

    message = (
        'This session commits each statement by itself, so it cannot keep the '
        'locks of this statement. It was not sent: {statement}. For a '
        'transaction, use get_session(context).'
    )
    statement: str


class SessionNotBegun(SessionMisuse):
    """A session was used outside of its block."""

    message = 'Use this session inside of "with session.begin():".'


class TransactionInUse(SessionMisuse):
    """A transaction belongs to another thread, task or process."""

    message = (
        'This transaction or session belongs to {owner}, and was used from '
        '{caller}. Like a session, a context belongs to one thread of '
        'control. Make another one here: context.get_admin_context() is cheap.'
    )
    owner: str
    caller: str


class ForkedWhileBusy(SessionMisuse):
    """A child was forked while SQLite was busy, and cannot use the file."""

    message = (
        'Process {process} was forked while another thread of its parent was '
        'executing a SQLite statement, which took longer than a fork waits. '
        'SQLite could lose writes of this process: end it, and fork again.'
    )
    process: int


class UnknownRevision(NotFound):
    """There is no migration of this name."""

    message = 'There is no revision {revision} of the database schema.'
    revision: str


class TransactionEnded(MyServiceError):
    """The session of a transaction was used after its end."""

    message = (
        'The transaction of this session has ended. Open another one: '
        'db.api.transaction(context) or db.api.get_session().'
    )


class CannotJoinHere(TransactionEnded):
    """An event listener made a call where the session cannot be used."""

    message = (
        'This call was made while the session begins or ends a transaction or '
        'a savepoint, so it cannot join the transaction. Listen to '
        'before_flush, after_flush or before_commit instead: there, calls can '
        'join.'
    )


class NotTransactionOwner(SessionMisuse):
    """A part of a shared transaction tried to end it."""

    message = (
        'Refused: {what} would end a transaction that others share; only the '
        'block that opened it may end it. To undo a part, leave "with '
        'db.api.savepoint(context):" by an exception. For a separate '
        'transaction, use transaction(context, independent=True).'
    )
    what: str


class TransactionDoomed(MyServiceError):
    """A statement of this transaction failed, so it cannot be committed."""

    message = (
        'This transaction can only be rolled back, because a statement in it '
        'failed: {reason}. Put statements that may fail inside of "with '
        'db.api.savepoint(context):".'
    )
    reason: str


class PartRolledBack(MyServiceError):
    """A part of a shared transaction called ``session.rollback()``."""

    message = 'A part of the transaction asked for a rollback.'


class NoTransaction(SessionMisuse):
    """A savepoint needs a transaction, and there is none."""

    message = (
        'A savepoint needs a transaction, and none is open. Open one by "with '
        'db.api.transaction(context):".'
    )


class WouldWaitForItself(SessionMisuse):
    """This call would wait for something that its own thread holds."""

    message = (
        'This call would wait for ever, as its own thread holds {held}. End '
        'that transaction first, or make the call join it: pass the context '
        'of the transaction.'
    )
    held: str


class CommitUnknown(MyServiceError):
    """The connection was lost during COMMIT: it may have taken effect.

    The change happened once or not at all, and will not happen later.
    ``known`` says what was found out. ``operation`` is the uuid that the
    change would have stored. Read the row before you repeat the call.
    """

    message = (
        'It is unknown whether {function} (operation {operation}) took '
        'effect: {known}. Read the row before you repeat the call.'
    )
    function: str
    operation: str
    known: str


class ServerError(MyServiceError):
    """The server could not execute a statement; nothing was done."""

    message = 'The database server failed: {reason}'
    reason: str


class ServerBusy(ServerError):
    """The server accepts no more connections at the moment."""

    message = 'The database server accepts no more connections: {reason}'


class ServerReadOnly(ServerError):
    """The server is read-only at the moment, for example after a failover."""

    message = 'The database server is read-only: {reason}'


class DatabaseReadOnly(ServerError):
    """A SQLite file is read-only; a retry does not help."""

    message = 'The database is read-only: {reason}'


class StatementInterrupted(ServerError):
    """A statement was killed, or ran into the server's time limit."""

    message = 'The database server interrupted a statement: {reason}'


class NoSpace(ServerError):
    """The server has run out of disk space or memory."""

    message = 'The database server has no space left: {reason}'


class SchemaOutdated(ServerError):
    """The tables are missing, or are not those of this release."""

    message = (
        'The tables are at revision {revision}, but this release needs '
        '{head}: run myservice-manage db sync.'
    )
    revision: str
    head: str


class NoTables(SchemaOutdated):
    """There are no tables yet."""

    message = 'There are no tables: run myservice-manage db sync.'


class EncodingRefused(ServerError):
    """A PostgreSQL database cannot store all of Unicode."""

    message = (
        'The encoding of database {database} is {encoding}, which cannot '
        "store all text. Create the database with ENCODING 'UTF8'."
    )
    database: str
    encoding: str


class MigrationLocked(ServerError):
    """Another migration of this database did not end in time."""

    message = (
        'Another migration of database {database} is running: its lock {lock} '
        'was not free within {seconds} seconds. Connection {holder} of the '
        'server holds the lock.'
    )
    database: str
    lock: str
    seconds: int
    holder: int | None


class MigrationFailed(ServerError):
    """A migration stopped. The next one continues from there."""

    message = 'The migration failed: {reason}'


class ThreadFailed(MyServiceError):
    """A thread of an agent failed, so the process ends."""

    message = 'The thread "{thread}" failed, so the process ends: {reason}'
    thread: str
    reason: str


class PoolTimeout(MyServiceError):
    """No connection of the pool became free in time."""

    message = (
        'No database connection became free within {timeout} seconds: all '
        '{held} are in use. Look for transactions that stay open, or raise '
        '[database] max_pool_size or max_overflow.'
    )
    timeout: float
    held: int

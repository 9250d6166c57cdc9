"""The three ways to reserve and commit that quota.py compares."""

import collections
import contextlib
import dataclasses
import datetime
import threading
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from typing import Any
from typing import ClassVar

import sqlalchemy as sa
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import enginefacade
from oslo_utils import timeutils
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import dialects
from myservice.db import engine as engines
from myservice.db import models
from myservice.db.operation import new_id

RESOURCES = [f'resource_{number}' for number in range(10)]

#: what a pair reserves 1 of
PAIR = RESOURCES[:2]

#: of each resource; never met
LIMIT = 10**15


class Layer:
    """The calls that are measured."""

    name: ClassVar[str] = 'layer'
    failures: tuple[type[Exception], ...] = (
        db_exception.DBError,
        exception.MyServiceError,
    )

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        """Give a thread a context of its own."""
        ctx = context.get_admin_context()
        yield lambda: layer_pair(ctx, self.name)

    def retries(self) -> collections.Counter[str]:
        """Return what the layer has counted."""
        return collections.Counter(db.api.statistics().retries)


def layer_pair(ctx: context.RequestContext, project_id: str) -> None:
    """Reserve and commit, by the layer."""
    ids = db.api.quota_reserve(ctx, dict.fromkeys(PAIR, 1), project_id)
    db.api.reservation_commit(ctx, ids, project_id)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A statement that the layer has sent.

    :param sql: its text, for the driver; '' is a COMMIT
    :param parameters: in the form that the driver takes
    :param rows: how many it has changed
    """

    sql: str
    parameters: Any = None
    rows: int = 0

    def with_values(self, new: dict[Any, Any]) -> Any:
        """Return the parameters with some values replaced."""
        if isinstance(self.parameters, dict):
            return {
                name: new.get(value, value)
                for name, value in self.parameters.items()
            }
        return tuple(new.get(value, value) for value in self.parameters)


class WrongRowcountError(Exception):
    """A statement has changed another number of rows than the layer's."""


class Driver:
    """The bare driver, which sends what the layer sends.

    :param engine: the layer's engine for transactions
    """

    name: ClassVar[str] = 'driver'

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._dbapi: Any = engine.dialect.loaded_dbapi
        self.failures: tuple[type[Exception], ...] = (
            self._dbapi.Error,
            WrongRowcountError,
        )
        self._sent, self._ids = _capture(self.name)

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        """Give a thread a connection of its own."""
        with contextlib.closing(self._connect()) as connection:
            yield lambda: self._pair(connection)

    def retries(self) -> collections.Counter[str]:
        """Return nothing: it does not retry."""
        return collections.Counter()

    def _connect(self) -> Any:
        """Connect as the layer does."""
        url = self._engine.url
        if dialects.backend_of(self._engine.dialect) == 'sqlite':
            # It is told BEGIN and COMMIT by what was captured.
            return self._dbapi.connect(url.database, isolation_level=None)
        address = {'host': url.host, 'port': url.port, 'user': url.username}
        if dialects.backend_of(self._engine.dialect) == 'mysql':
            return self._dbapi.connect(
                **address,
                database=url.database,
                charset='utf8mb4',
                init_command='SET SESSION TRANSACTION ISOLATION LEVEL '
                'READ COMMITTED',
            )
        connection = self._dbapi.connect(**address, dbname=url.database)
        level = self._dbapi.IsolationLevel.READ_COMMITTED
        connection.isolation_level = level
        return connection

    def _pair(self, connection: Any) -> None:
        new = {old: new_id() for old in self._ids}
        try:
            with contextlib.closing(connection.cursor()) as cursor:
                for sent in self._sent:
                    self._send(connection, cursor, sent, new)
        except self.failures:
            connection.rollback()
            raise

    def _send(
        self, connection: Any, cursor: Any, sent: Sent, new: dict[Any, Any]
    ) -> None:
        if not sent.sql:
            if dialects.backend_of(self._engine.dialect) == 'sqlite':
                cursor.execute('COMMIT')
            else:
                connection.commit()
            return
        cursor.execute(sent.sql, sent.with_values(new))
        if cursor.rowcount != sent.rows:
            raise WrongRowcountError(f'{cursor.rowcount}, not {sent.rows}')


def _capture(project_id: str) -> tuple[list[Sent], set[Any]]:
    """Return what the layer sends for a pair, and the uuids in it."""
    engine = engines.get_engines().get_engine('light')
    sent: list[Sent] = []

    def statement(
        _: Any, cursor: Any, sql: str, values: Any, *__: Any
    ) -> None:
        sent.append(Sent(sql, values, cursor.rowcount))

    def commit(_: Any) -> None:
        sent.append(Sent(''))

    ctx = context.get_admin_context()
    # The first one also makes the usages.
    layer_pair(ctx, project_id)
    event.listen(engine, 'after_cursor_execute', statement)
    event.listen(engine, 'commit', commit)
    layer_pair(ctx, project_id)
    # What has had a listener looks for others ever after.
    db.api.dispose()
    return sent, _uuids(sent)


def _uuids(sent: list[Sent]) -> set[Any]:
    values: set[Any] = set()
    for each in filter(lambda each: each.sql, sent):
        given = each.parameters
        values |= set(given.values() if isinstance(given, dict) else given)
    return {
        value
        for value in values
        if isinstance(value, str) and len(value) == 36 and value[14] == '7'
    }


class FacadeContext:
    """What the enginefacade notes its transaction in."""


class LockReadWrite:
    """The usual way: lock the rows, read them, decide, write them.

    :param url: the URL of the database
    :param connections: how many the pool keeps
    """

    name: ClassVar[str] = 'lock-read-write'
    failures: tuple[type[Exception], ...] = (db_exception.DBError,)

    def __init__(self, url: str, connections: int) -> None:
        self._facade = enginefacade.transaction_context()
        self._facade.configure(connection=url, max_pool_size=connections)
        self._retries: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        retried = oslo_db_api.wrap_db_retry(
            max_retries=20, retry_on_deadlock=True
        )
        self._call = retried(self._attempt)

    def close(self) -> None:
        """Close the connections."""
        self._facade.dispose_pool()

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        """Give a thread a context of its own."""
        ctx = FacadeContext()
        yield lambda: self.pair(ctx)

    def retries(self) -> collections.Counter[str]:
        """Return what was raised inside of wrap_db_retry and not by it."""
        with self._lock:
            return self._retries.copy()

    def pair(self, ctx: FacadeContext) -> None:
        """Reserve and commit."""
        self.commit(ctx, self.reserve(ctx, PAIR))

    def reserve(self, ctx: FacadeContext, names: Collection[str]) -> list[str]:
        """Reserve 1 of each resource, and return the ids."""
        made: list[str] = self._run(ctx, add_reservations, names)
        return made

    def commit(self, ctx: FacadeContext, ids: Collection[str]) -> None:
        """Commit reservations."""
        self._run(ctx, commit_reservations, ids)

    def _run(self, ctx: FacadeContext, work: Any, what: Any) -> Any:
        try:
            return self._call(ctx, work, what)
        except db_exception.DBDeadlock as error:
            # Its last attempt was not repeated.
            self._count(error, -1)
            raise

    def _attempt(self, ctx: FacadeContext, work: Any, what: Any) -> Any:
        try:
            with self._facade.writer.using(ctx) as session:
                return work(session, self.name, what)
        except db_exception.DBDeadlock as error:
            self._count(error, 1)
            raise

    def _count(self, error: Exception, number: int) -> None:
        with self._lock:
            self._retries[type(error).__name__] += number


def _locked_usages(
    session: Any, project_id: str, names: Collection[str]
) -> list[models.QuotaUsage]:
    return list(
        session.scalars(
            sa.select(models.QuotaUsage)
            .where(
                models.QuotaUsage.project_id == project_id,
                models.QuotaUsage.resource.in_(names),
            )
            .order_by(models.QuotaUsage.resource)
            .with_for_update()
        )
    )


def add_reservations(
    session: Any, project_id: str, names: Collection[str]
) -> list[str]:
    now = timeutils.utcnow()
    for usage in _locked_usages(session, project_id, names):
        if usage.in_use + usage.reserved + 1 > LIMIT:
            raise exception.OverQuota(explanation=usage.resource)
        usage.reserved += 1
        usage.updated_at = now
    made = [_reservation(project_id, name, now) for name in names]
    session.add_all(made)
    return [reservation.id for reservation in made]


def _reservation(
    project_id: str, name: str, now: datetime.datetime
) -> models.Reservation:
    return models.Reservation(
        id=new_id(),
        project_id=project_id,
        resource=name,
        delta=1,
        expire_at=now + datetime.timedelta(days=1),
        created_at=now,
    )


def commit_reservations(
    session: Any, project_id: str, ids: Collection[str]
) -> None:
    now = timeutils.utcnow()
    reservations = session.scalars(
        sa.select(models.Reservation)
        .where(models.Reservation.id.in_(ids))
        .order_by(models.Reservation.id)
        .with_for_update()
    ).all()
    deltas = {each.resource: each.delta for each in reservations}
    for usage in _locked_usages(session, project_id, deltas):
        usage.in_use += deltas[usage.resource]
        usage.reserved -= deltas[usage.resource]
        usage.updated_at = now
    for each in reservations:
        each.state = models.Reservation.COMMITTED
        each.updated_at = now

"""oslo.db's enginefacade, by its decorators and with its defaults.

The functions take a session in a transaction, and use it as in the
documentation of SQLAlchemy 2. Writes that do not depend on a read are one
UPDATE, as careful services write them.
"""

import datetime
import functools
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from oslo_db import api as oslo_db_api
from oslo_db.sqlalchemy import enginefacade
from oslo_utils import timeutils

from myservice import exception
from myservice.db import models
from myservice.db.operation import new_id
from myservice.db.sql import clock
from ways import base


def _service_get(session: Any, service_id: str) -> Any:
    return session.scalars(
        sa.select(models.Service).where(
            models.Service.id == service_id, models.Service.deleted == ''
        )
    ).one()


def _service_heartbeat(session: Any, service_id: str) -> None:
    result = session.execute(
        sa.update(models.Service)
        .where(models.Service.id == service_id, models.Service.deleted == '')
        .values(last_seen_at=clock.utcnow())
    )
    base.expect_one(result.rowcount)


def _service_create(session: Any, host: str) -> str:
    service = models.Service(host=host, binary='agent')
    session.add(service)
    session.flush()
    # For is_up, and for values that the server filled in.
    session.refresh(service)
    return service.id


def _service_destroy(session: Any, service_id: str) -> None:
    service = session.scalars(
        sa.select(models.Service)
        .where(models.Service.id == service_id, models.Service.deleted == '')
        .with_for_update()
    ).one()
    held = sa.select(sa.func.count()).where(
        models.Resource.service_id == service_id,
        models.Resource.deleted == '',
    )
    if session.scalar(held):
        raise base.NotThereError('it holds resources')
    service.deleted = new_id()
    service.deleted_at = clock.utcnow()


def _get_all(model: Any, session: Any, limit: int | None) -> list[Any]:
    statement = sa.select(model).where(model.deleted == '').order_by(model.id)
    if limit is not None:
        statement = statement.limit(limit)
    return list(session.scalars(statement).all())


def _resource_get(session: Any, resource_id: str) -> Any:
    return session.scalars(
        sa.select(models.Resource).where(
            models.Resource.id == resource_id, models.Resource.deleted == ''
        )
    ).one()


def _resource_details(
    session: Any, resource_id: str
) -> tuple[Any, dict[str, str], list[str]]:
    metadata, tags = models.ResourceMetadata, models.ResourceTag
    row = _resource_get(session, resource_id)
    pairs = session.execute(
        sa.select(metadata.key, metadata.value).where(
            metadata.resource_id == resource_id
        )
    )
    words = session.scalars(
        sa.select(tags.tag)
        .where(tags.resource_id == resource_id)
        .order_by(tags.tag)
    )
    return row, {key: value for key, value in pairs}, list(words)


def _resource_update(
    session: Any, resource_id: str, expected: str, status: str
) -> None:
    resource = models.Resource
    result = session.execute(
        sa.update(resource)
        .where(
            resource.id == resource_id,
            resource.deleted == '',
            resource.status == expected,
        )
        .values(
            status=status,
            generation=resource.generation + 1,
            operation=new_id(),
            updated_at=clock.utcnow(),
        )
    )
    base.expect_one(result.rowcount)


def _resource_claim(session: Any, resource_id: str, service_id: str) -> Any:
    resource, service = models.Resource, models.Service
    # The service must not be destroyed meanwhile.
    session.scalars(
        sa.select(service.id)
        .where(service.id == service_id, service.deleted == '')
        .with_for_update(read=True)
    ).one()
    row = session.scalars(
        sa.select(resource)
        .where(resource.id == resource_id, resource.deleted == '')
        .with_for_update()
    ).one()
    base.expect_one(row.service_id is None)
    _hold(row, service_id)
    return base.Claim(resource_id, service_id, row.generation)


def _hold(row: models.Resource, service_id: str) -> None:
    row.service_id = service_id
    row.generation += 1
    row.claim_generation = row.generation
    row.operation = new_id()
    row.updated_at = clock.utcnow()


def claim_next(session: Any, service_id: str) -> None:
    """Claim the oldest free resource, which others lock as well."""
    resource = models.Resource
    row = session.scalars(
        sa.select(resource)
        .where(resource.service_id.is_(None), resource.deleted == '')
        .order_by(resource.created_at)
        .limit(1)
        .with_for_update()
    ).one()
    _hold(row, service_id)


def _resource_release(session: Any, claim: base.Claim) -> None:
    resource = models.Resource
    result = session.execute(
        sa.update(resource)
        .where(
            resource.id == claim.resource_id,
            resource.deleted == '',
            resource.service_id == claim.service_id,
            resource.claim_generation == claim.generation,
        )
        .values(
            service_id=None,
            claim_generation=None,
            generation=resource.generation + 1,
            operation=new_id(),
            updated_at=clock.utcnow(),
        )
    )
    base.expect_one(result.rowcount)


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
        if usage.in_use + usage.reserved + 1 > base.LIMIT:
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


def _reading(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that runs a function in a session, to read."""
    return lambda self, *arguments: self.read(function, *arguments)


def _writing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that runs a function in a session, and commits."""
    return lambda self, *arguments: self.write(function, *arguments)


def _run(context: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(context.session, *arguments)


@enginefacade.transaction_context_provider
class Context:
    """The context that a service passes on."""


class OsloStock:
    """The use in its documentation: a decorated function for each call.

    :param url: the URL of the database
    :param options: other arguments of configure()
    """

    name = 'oslo.db'

    service_get = _reading(_service_get)
    service_heartbeat = _writing(_service_heartbeat)
    service_create = _writing(_service_create)
    service_destroy = _writing(_service_destroy)
    service_get_all = _reading(functools.partial(_get_all, models.Service))
    resource_get = _reading(_resource_get)
    resource_details = _reading(_resource_details)
    resource_get_all = _reading(functools.partial(_get_all, models.Resource))
    resource_update = _writing(_resource_update)
    resource_claim = _writing(_resource_claim)
    resource_release = _writing(_resource_release)

    def __init__(self, url: str, **options: Any) -> None:
        self._facade = enginefacade.transaction_context()
        self._facade.configure(connection=url, **options)
        self._context = Context()
        self._read = self._facade.reader(_run)
        self._write = self._facade.writer(_run)

    def engine(self) -> sa.Engine:
        """Return its engine."""
        engine: sa.Engine = self._facade.writer.get_engine()
        return engine

    def close(self) -> None:
        self._facade.dispose_pool()

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that takes a session, to read."""
        return self._read(self._context, function, *arguments)

    def write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that takes a session, and commit."""
        return self._write(self._context, function, *arguments)

    def quota_pair(self) -> None:
        ids = self.write(add_reservations, self.name, base.PAIR)
        self.write(commit_reservations, self.name, ids)


class Retried(OsloStock):
    """The same, with its decorator that repeats a function after a
    deadlock."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        retried = oslo_db_api.wrap_db_retry(
            max_retries=20, retry_on_deadlock=True
        )
        self._write = retried(self._write)

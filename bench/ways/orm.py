"""SQLAlchemy's ORM: what its ways have in common.

The functions take a session that is in a transaction, and use it as the
documentation of SQLAlchemy 2 does. Writes that depend on nothing that was
read are one UPDATE, as careful services write them.
"""

import abc
from collections.abc import Callable
from typing import Any

import quota_ways
import sqlalchemy as sa

from myservice.db import clock
from myservice.db import models
from myservice.db.operation import new_id
from ways import base


class SessionWay(base.Way):
    """A way whose calls run functions in sessions."""

    @abc.abstractmethod
    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that takes a session, to read."""

    @abc.abstractmethod
    def write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that takes a session, and commit."""

    def service_get(self, service_id: str) -> Any:
        return self.read(_service_get, service_id)

    def service_heartbeat(self, service_id: str) -> None:
        self.write(_service_heartbeat, service_id)

    def service_create(self, host: str) -> str:
        made: str = self.write(_service_create, host)
        return made

    def service_destroy(self, service_id: str) -> None:
        self.write(_service_destroy, service_id)

    def service_get_all(self, limit: int | None) -> list[Any]:
        found: list[Any] = self.read(_get_all, models.Service, limit)
        return found

    def resource_get(self, resource_id: str) -> Any:
        return self.read(_resource_get, resource_id)

    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        found: tuple[Any, dict[str, str], list[str]] = self.read(
            _resource_details, resource_id
        )
        return found

    def resource_get_all(self, limit: int | None) -> list[Any]:
        found: list[Any] = self.read(_get_all, models.Resource, limit)
        return found

    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        self.write(_resource_update, resource_id, expected, status)

    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        return self.write(_resource_claim, resource_id, service_id)

    def resource_release(self, claim: Any) -> None:
        self.write(_resource_release, claim)

    def quota_pair(self) -> None:
        ids = self.write(
            quota_ways.add_reservations, self.name, quota_ways.PAIR
        )
        self.write(quota_ways.commit_reservations, self.name, ids)


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
    # For is_up, and what the server has filled in.
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


def _get_all(session: Any, model: Any, limit: int | None) -> list[Any]:
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
    # It must not be destroyed in this moment.
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
    row.service_id = service_id
    row.generation += 1
    row.claim_generation = row.generation
    row.operation = new_id()
    row.updated_at = clock.utcnow()
    return base.Claim(resource_id, service_id, row.generation)


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

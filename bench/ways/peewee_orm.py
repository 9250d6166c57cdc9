"""peewee, in its default autocommit; atomic() where needed."""

import datetime
from typing import Any

import peewee
import quota_ways
import sqlalchemy as sa
from oslo_utils import timeutils

from myservice.db import dialects
from myservice.db.operation import new_id
from ways import base
from ways import peewee_models as models
from ways.peewee_models import Reservation
from ways.peewee_models import Resource
from ways.peewee_models import ResourceMetadata
from ways.peewee_models import ResourceTag
from ways.peewee_models import Service

_NOW = {
    'mysql': 'UTC_TIMESTAMP(6)',
    'postgresql': "(statement_timestamp() AT TIME ZONE 'UTC')",
    'sqlite': "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
}
_AGO = {
    'mysql': f'(UTC_TIMESTAMP(6) - INTERVAL {base.DOWN_TIME} SECOND)',
    'postgresql': "((statement_timestamp() AT TIME ZONE 'UTC') - "
    f"INTERVAL '{base.DOWN_TIME} seconds')",
    'sqlite': "strftime('%Y-%m-%d %H:%M:%f000', 'now', "
    f"'-{base.DOWN_TIME} seconds')",
}
_DAY = datetime.timedelta(days=1)


def _connect(url: sa.URL) -> Any:
    if dialects.backend_of(url) == 'sqlite':
        return peewee.SqliteDatabase(url.database)
    address: Any = {'host': url.host, 'port': url.port, 'user': url.username}
    if dialects.backend_of(url) == 'mysql':
        return peewee.MySQLDatabase(url.database, **address)
    return peewee.PostgresqlDatabase(
        url.database, prefer_psycopg3=True, **address
    )


class Peewee(base.Way):
    """Models bound to one database, on the connection of the thread."""

    name = 'peewee'

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._database = _connect(parsed)
        self._database.bind(models.ALL)
        self._locks = dialects.backend_of(parsed) != 'sqlite'
        self._now = peewee.SQL(_NOW[dialects.backend_of(parsed)])
        self._oldest = peewee.SQL(_AGO[dialects.backend_of(parsed)])

    def close(self) -> None:
        self._database.close()

    def _locked(self, query: Any) -> Any:
        # It refuses to on SQLite, which knows no locks of rows.
        return query.for_update() if self._locks else query

    def _services(self) -> Any:
        last_sign = peewee.fn.COALESCE(
            Service.last_seen_at, Service.created_at
        )
        is_up = (
            (Service.forced_down == False)  # noqa: E712 - it is SQL
            & Service.unregistered_at.is_null()
            & (last_sign >= self._oldest)
        )
        return Service.select(Service, is_up.alias('is_up').converter(bool))

    def service_get(self, service_id: str) -> Any:
        return (
            self._services()
            .where(Service.id == service_id, Service.deleted == '')
            .get()
        )

    def service_heartbeat(self, service_id: str) -> None:
        base.expect_one(
            Service.update(last_seen_at=self._now)
            .where(Service.id == service_id, Service.deleted == '')
            .execute()
        )

    def service_create(self, host: str) -> str:
        made = Service.create(host=host, binary='agent', created_at=self._now)
        # For is_up, and what the server has filled in.
        read: str = self._services().where(Service.id == made.id).get().id
        return read

    def service_destroy(self, service_id: str) -> None:
        with self._database.atomic():
            service = self._locked(
                Service.select().where(
                    Service.id == service_id, Service.deleted == ''
                )
            ).get()
            if (
                Resource.select()
                .where(
                    Resource.service_id == service_id, Resource.deleted == ''
                )
                .count()
            ):
                raise base.NotThereError('it holds resources')
            service.deleted = new_id()
            service.deleted_at = self._now
            service.save(only=[Service.deleted, Service.deleted_at])

    def service_get_all(self, limit: int | None) -> list[Any]:
        found = self._services().where(Service.deleted == '')
        return list(found.order_by(Service.id).limit(limit))

    def resource_get(self, resource_id: str) -> Any:
        return (
            Resource.select()
            .where(Resource.id == resource_id, Resource.deleted == '')
            .get()
        )

    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        pairs: Any = ResourceMetadata.select(
            ResourceMetadata.key, ResourceMetadata.value
        ).where(ResourceMetadata.resource_id == resource_id)
        words: Any = (
            ResourceTag.select(ResourceTag.tag)
            .where(ResourceTag.resource_id == resource_id)
            .order_by(ResourceTag.tag)
        )
        return (
            self.resource_get(resource_id),
            dict(pairs.tuples()),
            [tag for (tag,) in words.tuples()],
        )

    def resource_get_all(self, limit: int | None) -> list[Any]:
        found = Resource.select().where(Resource.deleted == '')
        return list(found.order_by(Resource.id).limit(limit))

    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        base.expect_one(
            Resource.update(
                status=status,
                generation=Resource.generation + 1,
                operation=new_id(),
                updated_at=self._now,
            )
            .where(
                Resource.id == resource_id,
                Resource.deleted == '',
                Resource.status == expected,
            )
            .execute()
        )

    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        with self._database.atomic():
            # It must not be destroyed in this moment.
            self._locked(
                Service.select().where(
                    Service.id == service_id, Service.deleted == ''
                )
            ).get()
            row = self._locked(
                Resource.select().where(
                    Resource.id == resource_id, Resource.deleted == ''
                )
            ).get()
            base.expect_one(row.service_id is None)
            row.service_id = service_id
            row.generation += 1
            row.claim_generation = row.generation
            row.operation = new_id()
            row.updated_at = self._now
            row.save(only=row.dirty_fields)
        return base.Claim(resource_id, service_id, row.generation)

    def resource_release(self, claim: Any) -> None:
        base.expect_one(
            Resource.update(
                service_id=None,
                claim_generation=None,
                generation=Resource.generation + 1,
                operation=new_id(),
                updated_at=self._now,
            )
            .where(
                Resource.id == claim.resource_id,
                Resource.deleted == '',
                Resource.service_id == claim.service_id,
                Resource.claim_generation == claim.generation,
            )
            .execute()
        )

    def quota_pair(self) -> None:
        with self._database.atomic():
            ids = self._reserve()
        with self._database.atomic():
            self._commit(ids)

    def _usages(self, names: Any) -> Any:
        usage = models.QuotaUsage
        return self._locked(
            usage.select()
            .where(usage.project_id == self.name, usage.resource.in_(names))
            .order_by(usage.resource)
        )

    def _reserve(self) -> list[str]:
        now = timeutils.utcnow()
        for usage in self._usages(quota_ways.PAIR):
            if usage.in_use + usage.reserved + 1 > quota_ways.LIMIT:
                raise base.NotThereError('over quota')
            usage.reserved += 1
            usage.updated_at = now
            usage.save(only=usage.dirty_fields)
        made = [
            Reservation(
                project_id=self.name,
                resource=name,
                delta=1,
                expire_at=now + _DAY,
                created_at=now,
            )
            for name in quota_ways.PAIR
        ]
        Reservation.bulk_create(made)
        return [reservation.id for reservation in made]

    def _commit(self, ids: list[str]) -> None:
        now = timeutils.utcnow()
        found = list(
            self._locked(
                Reservation.select()
                .where(Reservation.id.in_(ids))
                .order_by(Reservation.id)
            )
        )
        deltas = {each.resource: each.delta for each in found}
        for usage in self._usages(list(deltas)):
            usage.in_use += deltas[usage.resource]
            usage.reserved -= deltas[usage.resource]
            usage.updated_at = now
            usage.save(only=usage.dirty_fields)
        Reservation.update(state='committed', updated_at=now).where(
            Reservation.id.in_(ids)
        ).execute()

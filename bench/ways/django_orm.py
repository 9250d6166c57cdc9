"""Django's ORM, in its default autocommit; transaction.atomic where needed."""

import datetime
from typing import Any

import pymysql
import quota_ways
import sqlalchemy as sa
from django.db import connections
from django.db import transaction
from django.db.models import F
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.db.models.functions import Now
from django.db.models.lookups import GreaterThanOrEqual
from oslo_utils import timeutils

from myservice.db import dialects
from myservice.db.operation import new_id
from ways import base
from ways import django_models as models

# Django knows no other driver of MariaDB than mysqlclient.
pymysql.install_as_MySQLdb()

_ENGINES = {
    'mysql': 'django.db.backends.mysql',
    'postgresql': 'django.db.backends.postgresql',
    'sqlite': 'django.db.backends.sqlite3',
}
_DAY = datetime.timedelta(days=1)


class Django(base.Way):
    """Managers of models, on the connection of the thread."""

    name = 'Django'

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        connections.settings['default'] = connections.configure_settings(
            {
                'default': {
                    'ENGINE': _ENGINES[dialects.backend_of(parsed)],
                    'NAME': parsed.database,
                    'USER': parsed.username or '',
                    'HOST': parsed.host or '',
                    'PORT': str(parsed.port or ''),
                }
            }
        )['default']
        connections['default'] = connections.create_connection('default')

    def close(self) -> None:
        connections['default'].close()

    def service_get(self, service_id: str) -> Any:
        return _services().get(id=service_id, deleted='')

    def service_heartbeat(self, service_id: str) -> None:
        base.expect_one(
            models.Service.objects.filter(id=service_id, deleted='').update(
                last_seen_at=Now()
            )
        )

    def service_create(self, host: str) -> str:
        made = models.Service.objects.create(
            host=host, binary='agent', created_at=Now()
        )
        # For is_up, and what the server has filled in.
        read: str = _services().get(id=made.id).id
        return read

    def service_destroy(self, service_id: str) -> None:
        with transaction.atomic():
            service = models.Service.objects.select_for_update().get(
                id=service_id, deleted=''
            )
            if models.Resource.objects.filter(
                service_id=service_id, deleted=''
            ).count():
                raise base.NotThereError('it holds resources')
            service.deleted = new_id()
            service.deleted_at = Now()
            service.save(update_fields=['deleted', 'deleted_at'])

    def service_get_all(self, limit: int | None) -> list[Any]:
        found = _services().filter(deleted='').order_by('id')
        return list(found if limit is None else found[:limit])

    def resource_get(self, resource_id: str) -> Any:
        return models.Resource.objects.get(id=resource_id, deleted='')

    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        row = self.resource_get(resource_id)
        pairs = models.ResourceMetadata.objects.filter(resource_id=resource_id)
        words = models.ResourceTag.objects.filter(resource_id=resource_id)
        return (
            row,
            dict(pairs.values_list('key', 'value')),
            list(words.order_by('tag').values_list('tag', flat=True)),
        )

    def resource_get_all(self, limit: int | None) -> list[Any]:
        found = models.Resource.objects.filter(deleted='').order_by('id')
        return list(found if limit is None else found[:limit])

    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        base.expect_one(
            models.Resource.objects.filter(
                id=resource_id, deleted='', status=expected
            ).update(
                status=status,
                generation=F('generation') + 1,
                operation=new_id(),
                updated_at=Now(),
            )
        )

    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        with transaction.atomic():
            # It must not be destroyed in this moment.
            models.Service.objects.select_for_update().get(
                id=service_id, deleted=''
            )
            row = models.Resource.objects.select_for_update().get(
                id=resource_id, deleted=''
            )
            base.expect_one(row.service_id is None)
            row.service_id = service_id
            row.generation += 1
            row.claim_generation = row.generation
            row.operation = new_id()
            row.updated_at = Now()
            row.save()
        return base.Claim(resource_id, service_id, row.generation)

    def resource_release(self, claim: Any) -> None:
        base.expect_one(
            models.Resource.objects.filter(
                id=claim.resource_id,
                deleted='',
                service_id=claim.service_id,
                claim_generation=claim.generation,
            ).update(
                service_id=None,
                claim_generation=None,
                generation=F('generation') + 1,
                operation=new_id(),
                updated_at=Now(),
            )
        )

    def quota_pair(self) -> None:
        with transaction.atomic():
            ids = self._reserve()
        with transaction.atomic():
            self._commit(ids)

    def _usages(self, names: Any) -> Any:
        return (
            models.QuotaUsage.objects.select_for_update()
            .filter(project_id=self.name, resource__in=names)
            .order_by('resource')
        )

    def _reserve(self) -> list[str]:
        now = timeutils.utcnow()
        for usage in self._usages(quota_ways.PAIR):
            if usage.in_use + usage.reserved + 1 > quota_ways.LIMIT:
                raise base.NotThereError('over quota')
            usage.reserved += 1
            usage.updated_at = now
            usage.save(update_fields=['reserved', 'updated_at'])
        made = models.Reservation.objects.bulk_create(
            models.Reservation(
                project_id=self.name,
                resource=name,
                delta=1,
                expire_at=now + _DAY,
                created_at=now,
            )
            for name in quota_ways.PAIR
        )
        return [reservation.id for reservation in made]

    def _commit(self, ids: list[str]) -> None:
        now = timeutils.utcnow()
        found = list(
            models.Reservation.objects.select_for_update()
            .filter(id__in=ids)
            .order_by('id')
        )
        deltas = {each.resource: each.delta for each in found}
        for usage in self._usages(deltas):
            usage.in_use += deltas[usage.resource]
            usage.reserved -= deltas[usage.resource]
            usage.updated_at = now
            usage.save(update_fields=['in_use', 'reserved', 'updated_at'])
        models.Reservation.objects.filter(id__in=ids).update(
            state='committed', updated_at=now
        )


def _services() -> Any:
    oldest = Now() - datetime.timedelta(seconds=base.DOWN_TIME)
    last_sign = Coalesce('last_seen_at', 'created_at')
    return models.Service.objects.annotate(
        is_up=Q(forced_down=False, unregistered_at=None)
        & Q(GreaterThanOrEqual(last_sign, oldest))
    )

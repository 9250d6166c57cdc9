"""The layer: the public functions, in a process that uses no other."""

from typing import Any

import quota_ways
import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice.tests import fixtures
from ways import base


class Layer(base.Way):
    """db.api, as services call it.

    :param url: as for all ways
    :param overrides: options of [database], by name
    """

    name = 'layer'

    def __init__(self, url: str, **overrides: Any) -> None:
        self._database = fixtures.Database(url, **overrides)
        self._database.setUp()
        limits = dict.fromkeys(quota_ways.RESOURCES, quota_ways.LIMIT)
        self._database.conf.set_override(
            'default_limits', limits, group='quota'
        )
        self._context = context.get_admin_context()

    def engine(self) -> sa.Engine:
        """Return the engine that get and heartbeat use."""
        return self._database.engine('autocommit')

    def close(self) -> None:
        self._database.cleanUp()

    def service_get(self, service_id: str) -> Any:
        return db.api.service_get(self._context, service_id)

    def service_heartbeat(self, service_id: str) -> None:
        db.api.service_heartbeat(self._context, service_id)

    def service_create(self, host: str) -> str:
        values = {'host': host, 'binary': 'agent'}
        return db.api.service_create(self._context, values).id

    def service_destroy(self, service_id: str) -> None:
        db.api.service_destroy(self._context, service_id)

    def service_get_all(self, limit: int | None) -> list[Any]:
        found: list[Any] = db.api.service_get_all(self._context, limit=limit)
        return found

    def resource_get(self, resource_id: str) -> Any:
        return db.api.resource_get(self._context, resource_id)

    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        return (
            db.api.resource_get(self._context, resource_id),
            db.api.resource_metadata_get(self._context, resource_id),
            db.api.resource_tags_get(self._context, resource_id),
        )

    def resource_get_all(self, limit: int | None) -> list[Any]:
        found: list[Any] = db.api.resource_get_all(self._context, limit=limit)
        return found

    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        db.api.resource_update(
            self._context,
            resource_id,
            {'status': status},
            expected={'status': expected},
        )

    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        return db.api.resource_claim(self._context, resource_id, service_id)

    def resource_release(self, claim: Any) -> None:
        db.api.resource_release(self._context, claim)

    def quota_pair(self) -> None:
        quota_ways.layer_pair(self._context, self.name)

"""The layer: the public functions, in a process for one database."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import fixtures
from ways import base


def _calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls a function of the layer."""
    return lambda self, *arguments: function(self._context, *arguments)


class Layer:
    """db.api, as services call it.

    :param url: the URL of the database
    :param overrides: options of [database], by name
    """

    name = 'layer'

    service_get = _calling(db.api.service_get)
    service_heartbeat = _calling(db.api.service_heartbeat)
    service_destroy = _calling(db.api.service_destroy)
    resource_get = _calling(db.api.resource_get)
    resource_claim = _calling(db.api.resource_claim)
    resource_release = _calling(db.api.resource_release)

    def __init__(self, url: str, **overrides: Any) -> None:
        self._database = fixtures.Database(url, **overrides)
        self._database.setUp()
        limits = dict.fromkeys(base.PAIR, base.LIMIT)
        self._database.conf.set_override(
            'default_limits', limits, group='quota'
        )
        self._context = context.get_admin_context()

    def engine(self) -> sa.Engine:
        """Return the engine of get and heartbeat."""
        return self._database.engine('autocommit')

    def close(self) -> None:
        self._database.cleanUp()

    def service_create(self, host: str) -> str:
        values = {'host': host, 'binary': 'agent'}
        return db.api.service_create(self._context, values).id

    def service_get_all(self, limit: int | None) -> list[Any]:
        found: list[Any] = db.api.service_get_all(self._context, limit=limit)
        return found

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

    def quota_pair(self) -> None:
        pair(self._context, self.name)


def pair(ctx: context.RequestContext, project_id: str) -> None:
    """Reserve 1 of each of two resources, and commit."""
    ids = db.api.quota_reserve(ctx, dict.fromkeys(base.PAIR, 1), project_id)
    db.api.reservation_commit(ctx, ids, project_id)

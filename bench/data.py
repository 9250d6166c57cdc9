"""The rows that the jobs use."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from myservice.db import models
from myservice.db.operation import new_id
from myservice.db.sql import dialects

#: metadata and tags of a resource
DETAILS = 3

STATUSES = ('available', 'busy')

_BATCH = 5000


@dataclasses.dataclass
class Data:
    """The ids of the rows.

    :param services: the services, by id
    :param resources: the resources, by id
    :param statuses: of the resources
    """

    services: list[str]
    resources: list[str]
    statuses: dict[str, int]

    def flip(self, resource_id: str) -> tuple[str, str, str]:
        """Return a resource, its status, and the status that it gets next."""
        now = self.statuses[resource_id]
        self.statuses[resource_id] = 1 - now
        return resource_id, STATUSES[now], STATUSES[1 - now]


def create_tables(url: str) -> None:
    """Create all tables again."""
    made = sa.create_engine(url)
    models.Base.metadata.drop_all(made)
    models.Base.metadata.create_all(made)
    made.dispose()


def fill(url: str, services: int, resources: int) -> Data:
    """Insert rows, and return their ids."""
    data = Data(_ids(services), _ids(resources), {})
    data.statuses = dict.fromkeys(data.resources, 0)
    made = sa.create_engine(url)
    with made.begin() as connection:
        for model, rows in (
            (models.Service, map(_service, data.services)),
            (models.Resource, map(_resource, data.resources)),
            (models.ResourceMetadata, _metadata(data.resources)),
            (models.ResourceTag, _tags(data.resources)),
        ):
            _insert(connection, model, list(rows))
    analyse(made)
    made.dispose()
    return data


def add_services(url: str, count: int) -> list[str]:
    """Insert more services, and return the ids of the new ones."""
    made = sa.create_engine(url)
    found = []
    for first in range(0, count, _BATCH):
        ids = _ids(min(_BATCH, count - first))
        with made.begin() as connection:
            _insert(connection, models.Service, [*map(_service, ids)])
        found += ids
    analyse(made)
    made.dispose()
    return found


def add_resources(url: str, service_id: str | None, count: int) -> None:
    """Insert resources, held by a service or free."""
    made = sa.create_engine(url)
    rows = [
        _resource(each) | {'service_id': service_id} for each in _ids(count)
    ]
    with made.begin() as connection:
        _insert(connection, models.Resource, rows)
    made.dispose()


def _insert(connection: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), _BATCH):
        connection.execute(
            sa.insert(model.__table__), rows[first : first + _BATCH]
        )


def analyse(engine: sa.Engine) -> None:
    """Let the server collect statistics for its plans."""
    table = 'TABLE ' if dialects.backend_of(engine.dialect) == 'mysql' else ''
    with engine.connect() as connection:
        for name in models.Base.metadata.tables:
            connection.exec_driver_sql(f'ANALYZE {table}{name}')
        connection.commit()


def _ids(count: int) -> list[str]:
    return sorted(new_id() for _ in range(count))


def _service(service_id: str) -> dict[str, Any]:
    return {
        'id': service_id,
        'host': f'host-{service_id}',
        'binary': 'agent',
        'topic': 'agents',
        'availability_zone': 'zone-1',
    }


def _resource(resource_id: str) -> dict[str, Any]:
    return {
        'id': resource_id,
        'project_id': 'project',
        'name': f'name-{resource_id}',
        'kind': 'volume',
        'size': 10,
        'status': STATUSES[0],
    }


def _metadata(resources: list[str]) -> Iterator[dict[str, Any]]:
    for resource_id in resources:
        for number in range(DETAILS):
            yield {
                'resource_id': resource_id,
                'key': f'key-{number}',
                'value': f'value-{number}',
            }


def _tags(resources: list[str]) -> Iterator[dict[str, Any]]:
    for resource_id in resources:
        for number in range(DETAILS):
            yield {'resource_id': resource_id, 'tag': f'tag-{number}'}

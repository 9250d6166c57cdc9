"""The jobs that calls.py measures, and their arguments."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from data import Data

from myservice.db.operation import new_id

Arguments = list[tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Job:
    """Calls that are measured, one method after the other.

    :param name: the name for --only
    :param steps: method of a way to its name in tables; a method gets the
        result of the one before it
    :param arguments: returns the arguments of some calls of the first method
    :param part: how many calls a round has, as a part of --calls
    """

    name: str
    steps: dict[str, str]
    arguments: Callable[[Data, int], Arguments]
    part: float = 1.0


def _services(data: Data, count: int) -> Arguments:
    return [(each,) for each in _some(data.services, count)]


def _resources(data: Data, count: int) -> Arguments:
    return [(each,) for each in _some(data.resources, count)]


def _some(ids: list[str], count: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(ids), count))


def _claims(data: Data, count: int) -> Arguments:
    # Each of them can be claimed only once.
    return [
        (resource_id, data.services[0])
        for resource_id in data.resources[:count]
    ]


JOBS = [
    Job('get', {'service_get': 'service_get'}, _services),
    Job('heartbeat', {'service_heartbeat': 'service_heartbeat'}, _services),
    Job(
        'create_destroy',
        {
            'service_create': 'service_create',
            'service_destroy': 'service_destroy',
        },
        lambda data, count: [(f'new-{new_id()}',) for _ in range(count)],
        0.5,
    ),
    Job('resource_get', {'resource_get': 'resource_get'}, _resources),
    Job(
        'details',
        {'resource_details': 'resource_get, metadata and tags'},
        _resources,
        0.5,
    ),
    Job(
        'compare_and_swap',
        {'resource_update': 'resource_update, if as expected'},
        lambda data, count: [
            data.flip(each) for each in data.resources[:count]
        ],
    ),
    Job(
        'claim',
        {
            'resource_claim': 'resource_claim',
            'resource_release': 'resource_release',
        },
        _claims,
    ),
    Job(
        'reserve_commit',
        {'quota_pair': 'quota_reserve, reservation_commit'},
        lambda data, count: [()] * count,
        0.4,
    ),
    *(
        Job(
            name,
            {method: f'{method}, {"all" if limit is None else "first 100"}'},
            lambda data, count, limit=limit: [(limit,)] * count,
            part,
        )
        for name, method, limit, part in (
            ('list_page', 'service_get_all', 100, 0.1),
            ('resource_page', 'resource_get_all', 100, 0.1),
            ('list_10k', 'service_get_all', None, 0.0),
            ('resource_10k', 'resource_get_all', None, 0.0),
        )
    ),
]

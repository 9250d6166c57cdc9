"""Every public call that takes a list, with one of any length.

A new argument that is a list needs a line here, or one in SHORT. As a program
it prints how long each call takes with values that match nothing::

    python -m myservice.tests.long_lists
    python -m myservice.servers mariadb -- \\
        python -m myservice.tests.long_lists
"""

import time
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.tests import factories

#: more than a statement of PostgreSQL has parameters
LENGTH = 100_000

#: function and argument of lists that are always short: their members are
#: columns of a table, or resources that the operator has configured
SHORT = {
    *((name, 'sort_keys') for name in db.api.__all__),
    *((name, 'sort_dirs') for name in db.api.__all__),
    ('quota_reserve', 'deltas'),
    ('service_create', 'values'),
    ('service_register', 'values'),
    ('service_update', 'values'),
    ('resource_update', 'values'),
}


class World:
    """The rows that the lists find: one of each kind."""

    def __init__(self) -> None:
        self.admin = context.get_admin_context()
        self.user = context.RequestContext(project_id='p', overwrite=False)
        self.service = factories.create_service()
        self.resource = db.api.resource_create(
            self.user,
            {'name': 'known', 'metadata': {'known': 'v'}, 'tags': ['known']},
        )
        (self.reservation,) = db.api.quota_reserve(self.user, {'resources': 1})
        db.api.quota_create(self.admin, 'p', 'resources', -1)
        db.api.quota_class_create(self.admin, 'c', 'resources', 5)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the resource."""
        return db.api.resource_metadata_get(self.user, self.resource.id)


class Case(NamedTuple):
    """A call with a list.

    :param function: its name in db.api
    :param argument: the argument that is a list, or has one in it
    :param call: makes the call with values, and returns its outcome
    :param known: returns a value that matches something
    :param nothing: the outcome for values that match nothing
    :param found: the outcome if the known value is among them
    """

    function: str
    argument: str
    call: Callable[[World, list[Any]], Any]
    known: Callable[[World], Any]
    nothing: Any
    found: Any


def _listed(name: str, key: str) -> Callable[[World, list[Any]], Any]:
    """Return how many rows a function lists with a filter."""

    def call(world: World, values: list[Any]) -> int:
        return len(getattr(db.api, name)(world.admin, filters={key: values}))

    return call


def _counted(name: str, key: str) -> Callable[[World, list[Any]], Any]:
    """Return how many rows a function counts with a filter."""

    def call(world: World, values: list[Any]) -> int:
        number: int = getattr(db.api, name)(world.admin, {key: values})
        return number

    return call


def _without(world: World, values: list[Any]) -> int:
    wanted = {'name': db.api.Not(values)}
    return len(db.api.resource_get_all(world.user, wanted))


def _claimed(key: str) -> Callable[[World, list[Any]], Any]:
    def call(world: World, values: list[Any]) -> int:
        claims = db.api.resource_claim_next(
            world.admin, world.service.id, {key: values}
        )
        for claim in claims:
            db.api.resource_release(world.admin, claim)
        return len(claims)

    return call


def _updated(wanted: Callable[[list[Any]], Any]) -> Any:
    def call(world: World, values: list[Any]) -> bool:
        expected = {'name': wanted(values)}
        try:
            db.api.resource_update(
                world.user, world.resource.id, {'status': 's'}, expected
            )
        except exception.ResourceConflict as error:
            assert error.expected == expected
            return False
        return True

    return call


def _ended(name: str) -> Callable[[World, list[Any]], Any]:
    def call(world: World, values: list[Any]) -> int:
        # If one is unknown, none ends; the error names all unknown ones.
        try:
            getattr(db.api, name)(world.user, values)
        except exception.ReservationNotFound as error:
            return len(values) - len(error.reservation_ids)
        raise AssertionError('unknown reservations have ended')

    return call


def _of_many(name: str) -> Callable[[World, list[Any]], Any]:
    def call(world: World, values: list[Any]) -> int:
        found = getattr(db.api, name)(world.user, values)
        assert len(found) == len(values)
        return sum(map(bool, found.values()))

    return call


def _metadata_after(name: str, value: str) -> Any:
    def call(world: World, values: list[Any]) -> str | None:
        before = world.metadata()
        wanted = dict.fromkeys(values, value)
        function = getattr(db.api, name)
        function(world.user, world.resource.id, wanted)
        kept = before if name == 'resource_metadata_update' else {}
        assert world.metadata() == kept | wanted
        db.api.resource_metadata_set(world.user, world.resource.id, before)
        return wanted.get('known')

    return call


def _deleted(world: World, values: list[Any]) -> bool:
    before = world.metadata()
    db.api.resource_metadata_delete(world.user, world.resource.id, values)
    after = world.metadata()
    db.api.resource_metadata_set(world.user, world.resource.id, before)
    return after != before


def _tagged(world: World, values: list[Any]) -> bool:
    resource_id = world.resource.id
    db.api.resource_tags_set(world.user, resource_id, values)
    tags = db.api.resource_tags_get(world.user, resource_id)
    db.api.resource_tags_set(world.user, resource_id, ['known'])
    assert tags == sorted(values)
    return 'known' in tags


def _tags_after(name: str) -> Any:
    def call(world: World, values: list[Any]) -> list[str]:
        resource_id = world.resource.id
        getattr(db.api, name)(world.user, resource_id, values)
        tags = db.api.resource_tags_get(world.user, resource_id)
        db.api.resource_tags_set(world.user, resource_id, ['known'])
        if name == 'resource_tags_add':
            assert tags == sorted({'known', *values})
        return sorted(set(tags) - set(values))

    return call


def _created(world: World, values: list[Any]) -> bool:
    metadata = dict.fromkeys(values, 'v')
    made = db.api.resource_create(
        world.user, {'tags': values, 'metadata': metadata}
    )
    tags = db.api.resource_tags_get(world.user, made.id)
    assert tags == sorted(values)
    assert db.api.resource_metadata_get(world.user, made.id) == metadata
    db.api.resource_tags_set(world.user, made.id, [])
    db.api.resource_metadata_set(world.user, made.id, {})
    db.api.resource_destroy(world.user, made.id)
    return 'known' in tags


def _beaten(world: World, values: list[Any]) -> int:
    registration = world.service.registration
    pairs = [(value, registration) for value in values]
    return db.api.service_heartbeat_many(world.admin, pairs)


def _by_tags(name: str) -> Callable[[World, list[Any]], Any]:
    def call(world: World, values: list[Any]) -> int:
        return len(db.api.resource_get_all(world.user, {name: values}))

    return call


def _all_metadata(world: World, values: list[Any]) -> int:
    wanted = dict.fromkeys(values, 'v')
    return len(db.api.resource_get_all(world.user, {'metadata': wanted}))


def _got_many(name: str) -> Callable[[World, list[Any]], Any]:
    """Return how many of some ids a function finds."""

    def call(world: World, values: list[Any]) -> int:
        try:
            return len(getattr(db.api, name)(world.admin, values))
        except exception.ResourcesNotFound as error:
            return len(set(values)) - len(error.resource_ids)
        except exception.ServicesNotFound as error:
            return len(set(values)) - len(error.service_ids)

    return call


CASES = [
    Case(
        'service_get_many',
        'service_ids',
        _got_many('service_get_many'),
        lambda world: world.service.id,
        nothing=0,
        found=1,
    ),
    Case(
        'resource_get_many',
        'resource_ids',
        _got_many('resource_get_many'),
        lambda world: world.resource.id,
        nothing=0,
        found=1,
    ),
    Case(
        'service_heartbeat_many',
        'service_ids',
        lambda world, values: db.api.service_heartbeat_many(
            world.admin, values
        ),
        lambda world: world.service.id,
        nothing=0,
        found=1,
    ),
    Case(
        'service_heartbeat_many',
        'service_ids',
        _beaten,
        lambda world: world.service.id,
        nothing=0,
        found=1,
    ),
    *(
        Case(name, 'filters', _listed(name, key), known, nothing=0, found=1)
        for name, key, known in (
            ('service_get_all', 'host', lambda world: world.service.host),
            ('resource_get_all', 'id', lambda world: world.resource.id),
            ('resource_get_all', 'name', lambda world: 'known'),
            ('quota_get_all', 'resource', lambda world: 'resources'),
            ('quota_class_get_all', 'resource', lambda world: 'resources'),
        )
    ),
    *(
        Case(name, 'filters', _counted(name, key), known, nothing=0, found=1)
        for name, key, known in (
            ('service_count', 'host', lambda world: world.service.host),
            ('resource_count', 'name', lambda world: 'known'),
            ('resource_count', 'tags-any', lambda world: 'known'),
        )
    ),
    Case(
        'resource_get_all',
        'filters',
        _without,
        lambda world: 'known',
        nothing=1,
        found=0,
    ),
    *(
        Case(
            'resource_get_all',
            'filters',
            call,
            lambda world: 'known',
            nothing=0,
            found=0,
        )
        # Only resources with all of them are found.
        for call in (_by_tags('tags'), _all_metadata)
    ),
    *(
        Case(
            'resource_get_all',
            'filters',
            _by_tags(name),
            lambda world: 'known',
            nothing=nothing,
            found=found,
        )
        for name, nothing, found in (
            ('tags-any', 0, 1),
            ('not-tags', 1, 1),
            ('not-tags-any', 1, 0),
        )
    ),
    Case(
        'resource_claim_next',
        'filters',
        _claimed('name'),
        lambda world: 'known',
        nothing=0,
        found=1,
    ),
    *(
        Case(
            'resource_claim_next',
            'filters',
            _claimed(name),
            lambda world: 'known',
            nothing=nothing,
            found=found,
        )
        for name, nothing, found in (
            ('tags', 0, 0),
            ('tags-any', 0, 1),
            ('not-tags', 1, 1),
            ('not-tags-any', 1, 0),
        )
    ),
    Case(
        'resource_update',
        'expected',
        _updated(tuple),
        lambda world: 'known',
        nothing=False,
        found=True,
    ),
    Case(
        'resource_update',
        'expected',
        _updated(db.api.Not),
        lambda world: 'known',
        nothing=True,
        found=False,
    ),
    *(
        Case(
            name,
            'reservations',
            _ended(name),
            lambda world: world.reservation,
            nothing=0,
            found=1,
        )
        for name in ('reservation_commit', 'reservation_rollback')
    ),
    *(
        Case(
            name,
            'resource_ids',
            _of_many(name),
            lambda world: world.resource.id,
            nothing=0,
            found=1,
        )
        for name in ('resource_metadata_get_many', 'resource_tags_get_many')
    ),
    *(
        Case(
            name,
            'metadata',
            _metadata_after(name, 'new'),
            lambda world: 'known',
            nothing=None,
            found='new',
        )
        for name in ('resource_metadata_set', 'resource_metadata_update')
    ),
    Case(
        'resource_metadata_delete',
        'keys',
        _deleted,
        lambda world: 'known',
        nothing=False,
        found=True,
    ),
    Case(
        'resource_tags_set',
        'tags',
        _tagged,
        lambda world: 'known',
        nothing=False,
        found=True,
    ),
    *(
        Case(
            name,
            'tags',
            _tags_after(name),
            lambda world: 'known',
            nothing=['known'],
            found=[],
        )
        for name in ('resource_tags_add', 'resource_tags_remove')
    ),
    Case(
        'resource_create',
        'values',
        _created,
        lambda world: 'known',
        nothing=False,
        found=True,
    ),
]


def main() -> None:
    """Print the seconds of each call, when it is made the second time."""
    values = [f'unknown {each}' for each in range(LENGTH)]
    with fixtures.Database():
        world = World()
        for case in CASES:
            case.call(world, values)
            begun = time.perf_counter()
            case.call(world, values)
            taken = time.perf_counter() - begun
            print(f'{taken:6.3f} {case.function}, {case.argument}')


if __name__ == '__main__':
    main()

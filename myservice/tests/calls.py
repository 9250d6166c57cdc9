"""An example call of every public function, by the names of its arguments.

Some tests call all functions (the budgets of round trips, the fault matrix).
They also call a new function, without a line for it, as long as the names of
its arguments are known here.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from myservice import context
from myservice import db
from myservice.tests import factories

# What db.api offers for annotations alone.
TYPES = {
    'Session',
    'AnySession',
    'Row',
    'ServiceRow',
    'QuotaRow',
    'QuotaClassRow',
    'ResourceRow',
}

# Other public names of db.api, which are not calls.
NOT_CALLS = {
    'configure',
    'dispose',
    'get_engine',
    'Engines',
    'statistics',
    'get_session',
    'transaction',
    'savepoint',
    'atomic',
    'quota_counter_register',
    'quota_get_defaults',
    'PROJECT',
    'DATABASE_ERRORS',
    'Claim',
    'Contains',
    'Not',
    'Range',
    'StartsWith',
    *TYPES,
}


class World:
    """The rows that the arguments of example calls name.

    :param owner: the name of the project, and of the quota class
    :param new: the text that calls write
    """

    def __init__(self, owner: str = 'owner', new: str = 'new') -> None:
        self.new = new
        self.service = factories.create_service(version=1)
        self.other_service = factories.create_service()
        self.project_id = self.class_name = owner
        admin = context.get_admin_context()
        db.api.quota_create(admin, self.project_id, 'resources', 50)
        db.api.quota_class_create(admin, self.class_name, 'resources', 60)
        self.reservations = db.api.quota_reserve(
            admin, {'resources': 1, 'gigabytes': 2}, self.project_id
        )
        db.api.quota_reserve(
            admin, {'gigabytes': 3}, self.project_id, expire=-1
        )
        self.resource, self.claimed = (
            db.api.resource_create(
                admin,
                {
                    'project_id': self.project_id,
                    'size': 1,
                    'metadata': {'old': 'value'},
                    'tags': ['old'],
                },
            )
            for _ in range(2)
        )
        # Its holder is down, so that there is a claim to take over.
        self.claim = db.api.resource_claim(
            admin, self.claimed.id, self.other_service.id
        )
        db.api.service_update(
            admin, self.other_service.id, {'forced_down': True}
        )


def names() -> list[str]:
    """Return the public functions that are calls."""
    return [name for name in db.api.__all__ if name not in NOT_CALLS]


def writes(name: str) -> bool:
    """Return whether a public function writes: its session is not
    read-only."""
    source = textwrap.dedent(inspect.getsource(getattr(db.api, name)))
    return not any(
        isinstance(part, ast.keyword) and part.arg == 'read_only'
        for part in ast.walk(ast.parse(source))
        if name != 'run_in_transaction'
    )


def example(name: str, world: World) -> Callable[[], Any]:
    """Return a call of a public function, with suitable arguments.

    :param name: the name of the function in db.api
    :param world: the rows that the arguments name
    """
    function = getattr(db.api, name)
    arguments = [
        ARGUMENTS[parameter.name](name, world)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return lambda: function(*arguments)


def _values(name: str, world: World) -> dict[str, Any]:
    if name.startswith('resource'):
        return {'name': world.new, 'status': 'new'}
    if name.endswith('_update'):
        return {'version': 2, 'disabled': True}
    return {'host': world.new, 'binary': 'new', 'topic': world.new}


def _two_writes(name: str, world: World) -> Callable[..., None]:
    def create_and_update(ctx: context.RequestContext) -> None:
        made = db.api.service_create(ctx, {'host': 'new', 'binary': 'new'})
        db.api.service_update(ctx, made.id, {'version': 2})
        db.api.service_update(ctx, world.service.id, {'version': 2})

    return create_and_update


ARGUMENTS: dict[str, Callable[[str, World], Any]] = {
    'context': lambda name, world: context.RequestContext(
        project_id=world.project_id, is_admin=True, overwrite=False
    ),
    'values': _values,
    'function': _two_writes,
    'service_id': lambda name, world: world.service.id,
    'service_ids': lambda name, world: [
        world.service.id,
        world.other_service.id if name == 'service_get_many' else 'unknown',
    ],
    'resource_id': lambda name, world: world.resource.id,
    'resource_ids': lambda name, world: [
        world.resource.id,
        world.claimed.id if name == 'resource_get_many' else 'unknown',
    ],
    'metadata': lambda name, world: {world.new: 'value'},
    'keys': lambda name, world: ['old', 'unknown'],
    'tag': lambda name, world: (
        'old' if name.endswith('_remove') else world.new
    ),
    'tags': lambda name, world: (
        ['old', 'unknown']
        if name.endswith('_remove')
        else [world.new, 'newer']
    ),
    'claim': lambda name, world: world.claim,
    'project_id': lambda name, world: world.project_id,
    'class_name': lambda name, world: world.class_name,
    # Functions that create something need a name that is not there yet.
    'resource': lambda name, world: (
        'gigabytes' if name.endswith('_create') else 'resources'
    ),
    'limit': lambda name, world: 70,
    'deltas': lambda name, world: {'resources': 1, 'gigabytes': 5},
    'reservations': lambda name, world: world.reservations,
    'host': lambda name, world: world.service.host,
    'binary': lambda name, world: world.service.binary,
}

"""Whatever is called in whatever order, quotas stay what a model says.

Hypothesis makes up sequences of calls and shortens one that fails. The model
is a few dicts; after each call the database must agree with them.
"""

import collections
import contextlib
import copy
import dataclasses
import itertools
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import fixtures as plain_fixtures
import hypothesis
import sqlalchemy as sa
from hypothesis import configuration
from hypothesis import stateful
from hypothesis import strategies

from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.quotas import counters
from myservice.tests import base

Key = tuple[str, str]
Refusal = (
    type[exception.ReservationNotFound] | type[exception.ReservationExpired]
)

SERVICES: Any = models.Service.__table__

DEFAULTS = {'resources': 10, 'gigabytes': 100}
SIZES = {'resources': 1, 'gigabytes': 10}
PROJECTS = 2

# What a project may ask for, in these sizes.
AMOUNTS = (1, 2, 4, 10, 11, 0, -1, -2, -11)

_numbers = itertools.count(1)


def deltas() -> strategies.SearchStrategy[dict[str, int]]:
    """One or two resources, in either order, and how much of each."""
    names = strategies.lists(
        strategies.sampled_from(sorted(SIZES)),
        min_size=1,
        max_size=2,
        unique=True,
    )
    amounts = strategies.sampled_from(AMOUNTS)
    return strategies.builds(
        lambda names, *amounts: {
            name: SIZES[name] * amount
            for name, amount in zip(names, amounts, strict=False)
        },
        names,
        amounts,
        amounts,
    )


RESOURCES = strategies.sampled_from(sorted(SIZES))
NUMBERS = strategies.integers(0, PROJECTS - 1)
# What an administrator may set, in these sizes; None is to unset it.
LIMITS = strategies.sampled_from([None, 0, 3, 10, 12, -1])
# A call alone, as a part of a transaction, or of one that is rolled back.
MODES = strategies.sampled_from(['alone', 'joined', 'undone'])
ENDS = strategies.sampled_from(['commit', 'rollback'])


class Undone(Exception):
    """Rolls a transaction back."""


@dataclasses.dataclass(frozen=True)
class Held:
    """A reservation that has not ended."""

    project: str
    resource: str
    delta: int
    overdue: bool


class World:
    """What the database ought to say."""

    def __init__(self) -> None:
        # in_use has a key for each usage that has a row.
        self.in_use: dict[Key, int] = {}
        self.held: dict[str, Held] = {}
        self.expired: dict[str, str] = {}  # id to project
        self.own: dict[Key, int] = {}
        self.of_class: dict[str, int] = {}
        # The services that are really there, and how much each of them is.
        self.services: dict[Key, dict[str, int]] = collections.defaultdict(
            dict
        )

    def counted(self, key: Key) -> int:
        return sum(self.services[key].values())

    def limit(self, key: Key) -> int:
        _, resource = key
        of_class = self.of_class.get(resource, DEFAULTS[resource])
        return self.own.get(key, of_class)

    def reserved(self, key: Key, *, overdue: bool = True) -> int:
        return sum(
            max(held.delta, 0)
            for held in self.held.values()
            if key == (held.project, held.resource)
            if overdue or not held.overdue
        )

    def usages(self, project: str) -> dict[str, dict[str, int]]:
        return {
            name: {
                'limit': self.limit((project, name)),
                'in_use': self._in_use((project, name)),
                'reserved': self.reserved((project, name)),
            }
            for name in DEFAULTS
        }

    def _in_use(self, key: Key) -> int:
        return self.in_use.get(key, self.counted(key))

    def overs(
        self, project: str, deltas: Mapping[str, int], *, overdue: bool = False
    ) -> list[str]:
        """Return for which resources the limit stands in the way.

        :param overdue: whether reservations that are overdue count
        """
        return [
            name
            for name, delta in sorted(deltas.items())
            if delta >= 0
            if self.limit((project, name)) != -1
            if self._in_use((project, name))
            + self.reserved((project, name), overdue=overdue)
            + delta
            > self.limit((project, name))
        ]

    def reserve(
        self, project: str, deltas: Mapping[str, int], made: dict[str, Held]
    ) -> None:
        keys = {(project, name) for name in deltas}
        missing = keys - self.in_use.keys()
        if missing or self.overs(project, deltas, overdue=True):
            # It did not fit at once, so what is overdue was given back.
            self.expire(keys)
        for key in missing:
            self.in_use[key] = self.counted(key)
        self.held |= made

    def expire(self, keys: set[Key] | None = None) -> int:
        """End what is overdue, of some usages or of all."""
        overdue = {
            row_id: held.project
            for row_id, held in self.held.items()
            if held.overdue
            if keys is None or (held.project, held.resource) in keys
        }
        self.expired |= overdue
        for row_id in overdue:
            del self.held[row_id]
        return len(overdue)

    def refusal(
        self, project: str, ids: set[str]
    ) -> tuple[Refusal, list[str]] | None:
        """Return why reservations cannot be ended, and which, or None."""
        theirs = {
            row_id
            for row_id, held in self.held.items()
            if held.project == project
        }
        expired = {i for i in theirs if self.held[i].overdue}
        expired |= {i for i in self.expired if self.expired[i] == project}
        if missing := ids - theirs - expired:
            return exception.ReservationNotFound, sorted(missing)
        if late := ids & expired:
            return exception.ReservationExpired, sorted(late)
        return None

    def end(self, ids: set[str]) -> dict[Key, int]:
        """End reservations, and return by how much each usage changes."""
        changes: dict[Key, int] = collections.Counter()
        for row_id in ids:
            held = self.held.pop(row_id)
            changes[held.project, held.resource] += held.delta
        return changes

    def use(self, changes: Mapping[Key, int]) -> None:
        for key, change in changes.items():
            self.in_use[key] = max(self.in_use[key] + change, 0)

    def differences(self, project: str) -> dict[str, Any]:
        return {
            name: {
                'in_use': {
                    'recorded': self.in_use[project, name],
                    'counted': self.counted((project, name)),
                }
            }
            for name in sorted(DEFAULTS)
            if (project, name) in self.in_use
            if self.in_use[project, name] != self.counted((project, name))
        }

    def sync(self, project: str) -> None:
        for name in DEFAULTS:
            key = (project, name)
            if key in self.in_use:
                self.in_use[key] = self.counted(key)


class Machine(stateful.RuleBasedStateMachine):
    """Calls, and what the model says of them.

    An example has projects of its own; what is common to all projects is put
    back at its end.
    """

    reservations = stateful.Bundle('reservations')

    def __init__(self, test: base.DatabaseTestCase) -> None:
        super().__init__()
        self.test = test
        self.context = test.context
        self.world = World()
        number = next(_numbers)
        self.projects = [f'p{number}-{i}' for i in range(PROJECTS)]

    def teardown(self) -> None:
        for resource in self.world.of_class:
            db.api.quota_class_destroy(self.context, 'default', resource)
        db.api.reservation_expire(self.context)

    @contextlib.contextmanager
    def within(self, mode: str) -> Iterator[None]:
        """Run the block in a transaction, or as it is."""
        if mode == 'alone':
            yield
            return
        before = copy.deepcopy(self.world)
        with contextlib.suppress(Undone), db.api.transaction(self.context):
            yield
            if mode == 'undone':
                self.world = before
                raise Undone()

    @stateful.rule(
        target=reservations, number=NUMBERS, deltas=deltas(), mode=MODES
    )
    def reserve(self, number: int, deltas: dict[str, int], mode: str) -> Any:
        with self.within(mode):
            ids = self.try_reserve(number, deltas)
        return stateful.multiple(*ids)

    @stateful.rule(
        target=reservations, number=NUMBERS, deltas=deltas(), mode=MODES
    )
    def reserve_overdue(
        self, number: int, deltas: dict[str, int], mode: str
    ) -> Any:
        with self.within(mode):
            ids = self.try_reserve(number, deltas, overdue=True)
        return stateful.multiple(*ids)

    @stateful.rule(
        target=reservations, number=NUMBERS, deltas=deltas(), mode=MODES
    )
    def reserve_and_commit(
        self, number: int, deltas: dict[str, int], mode: str
    ) -> Any:
        with self.within('joined' if mode == 'alone' else mode):
            ids = self.try_reserve(number, deltas)
            self.end('commit', self.projects[number], ids)
        return stateful.multiple(*ids)

    def try_reserve(
        self, number: int, deltas: dict[str, int], overdue: bool = False
    ) -> list[str]:
        project = self.projects[number]
        expire = -1 if overdue else None
        overs = self.world.overs(project, deltas)
        if overs:
            refusal = self.test.assertRaises(
                exception.OverQuota,
                db.api.quota_reserve,
                self.context,
                deltas,
                project,
                expire,
            )
            self.test.assertEqual(overs, refusal.overs)
            return []
        ids = db.api.quota_reserve(self.context, deltas, project, expire)
        made = {
            row_id: Held(project, name, delta, overdue)
            for row_id, (name, delta) in zip(ids, deltas.items(), strict=True)
        }
        self.world.reserve(project, deltas, made)
        self.check_limits(project, deltas)
        return ids

    def check_limits(self, project: str, deltas: dict[str, int]) -> None:
        """Check that what has just been reserved is within the limits."""
        usages = db.api.quota_usage_get_all(self.context, project)
        for name, delta in deltas.items():
            usage = usages[name]
            if delta >= 0 and usage['limit'] != -1:
                self.test.assertLessEqual(
                    usage['in_use'] + usage['reserved'], usage['limit']
                )

    @stateful.rule(
        how=ENDS,
        ids=strategies.lists(reservations, min_size=1, max_size=3),
        number=NUMBERS,
        mode=MODES,
    )
    def end_any(
        self, how: str, ids: list[str], number: int, mode: str
    ) -> None:
        """End what was ended, is overdue, not of the project, or all right."""
        with self.within(mode):
            self.end(how, self.projects[number], ids)

    @stateful.precondition(lambda self: self.world.held)
    @stateful.rule(
        how=ENDS,
        first=strategies.integers(0, 20),
        count=strategies.integers(1, 4),
        overdue=strategies.sampled_from([False, False, False, True]),
        unknown=strategies.sampled_from([False, False, False, True]),
        mode=MODES,
    )
    def end_some(
        self,
        how: str,
        first: int,
        count: int,
        overdue: bool,
        unknown: bool,
        mode: str,
    ) -> None:
        """End several reservations of a project, most often live ones."""
        held = list(self.world.held.values())
        project = held[first % len(held)].project
        ids = [
            row_id
            for row_id, held in self.world.held.items()
            if held.project == project
            if overdue or not held.overdue
        ]
        ids = ids[first % len(ids) :][:count] if ids else []
        ids += [str(uuid.uuid4())] if unknown else []
        with self.within(mode):
            self.end(how, project, ids)

    def end(self, how: str, project: str, ids: list[str]) -> None:
        function = {
            'commit': db.api.reservation_commit,
            'rollback': db.api.reservation_rollback,
        }[how]
        refused = self.world.refusal(project, set(ids))
        if refused is not None:
            kind, which = refused
            refusal = self.test.assertRaises(
                kind, function, self.context, ids, project
            )
            self.test.assertEqual(which, refusal.reservation_ids)
            return
        changes = self.world.end(set(ids))
        if how == 'rollback':
            function(self.context, ids, project)
            return
        # What is counted and what is in use change in one transaction.
        with db.api.transaction(self.context):
            for key, change in changes.items():
                self.change_services(key, change)
            function(self.context, ids, project)
        self.world.use(changes)

    def change_services(self, key: Key, change: int) -> None:
        """Create services, or destroy them as far as there are any."""
        project, resource = key
        services = self.world.services[key]
        change = max(change, -self.world.counted(key))
        if resource == 'gigabytes':
            made = {str(uuid.uuid4()): change} if change else {}
            gone: list[str] = []
        else:
            made = {str(uuid.uuid4()): 1 for _ in range(change)}
            gone = list(services)[: max(-change, 0)]
        with db.api.transaction(self.context) as session:
            if made:
                values = {'binary': resource, 'topic': project}
                session.execute(
                    sa.insert(SERVICES),
                    [
                        {'id': i, 'host': i, 'version': made[i], **values}
                        for i in made
                    ],
                )
            if gone:
                session.execute(
                    sa.delete(SERVICES).where(SERVICES.c.id.in_(gone))
                )
        services |= made
        for row_id in gone:
            del services[row_id]

    def differs(self) -> bool:
        return any(map(self.world.differences, self.projects))

    @stateful.precondition(lambda self: not self.differs())
    @stateful.rule(
        number=NUMBERS,
        resource=RESOURCES,
        change=strategies.sampled_from([-1, 1]),
    )
    def change_behind_our_back(
        self, number: int, resource: str, change: int
    ) -> None:
        key = (self.projects[number], resource)
        self.change_services(key, change * SIZES[resource])

    @stateful.precondition(differs)
    @stateful.rule(number=NUMBERS, mode=MODES)
    def sync(self, number: int, mode: str) -> None:
        project = self.projects[number]
        with self.within(mode):
            self.test.assertEqual(
                self.world.differences(project),
                db.api.quota_usage_sync(self.context, project),
            )
            self.world.sync(project)

    @stateful.precondition(
        lambda self: any(held.overdue for held in self.world.held.values())
    )
    @stateful.rule(batch_size=strategies.sampled_from([1, 200]), mode=MODES)
    def expire(self, batch_size: int, mode: str) -> None:
        with self.within(mode):
            self.test.assertEqual(
                self.world.expire(),
                db.api.reservation_expire(self.context, batch_size),
            )

    @stateful.rule(number=NUMBERS, resource=RESOURCES, limit=LIMITS)
    def limit_project(
        self, number: int, resource: str, limit: int | None
    ) -> None:
        key = (self.projects[number], resource)
        if limit is None:
            if self.world.own.pop(key, None) is not None:
                db.api.quota_destroy(self.context, *key)
            return
        limit = limit * SIZES[resource] if limit > 0 else limit
        call = (
            db.api.quota_update
            if key in self.world.own
            else db.api.quota_create
        )
        call(self.context, *key, limit)
        self.world.own[key] = limit

    @stateful.rule(resource=RESOURCES, limit=LIMITS)
    def limit_class(self, resource: str, limit: int | None) -> None:
        if limit is None:
            if self.world.of_class.pop(resource, None) is not None:
                db.api.quota_class_destroy(self.context, 'default', resource)
            return
        limit = limit * SIZES[resource] if limit > 0 else limit
        call = (
            db.api.quota_class_update
            if resource in self.world.of_class
            else db.api.quota_class_create
        )
        call(self.context, 'default', resource, limit)
        self.world.of_class[resource] = limit

    @stateful.invariant()
    def usages_are_those_of_the_model(self) -> None:
        for project in self.projects:
            self.test.assertEqual(
                self.world.usages(project),
                db.api.quota_usage_get_all(self.context, project),
            )

    @stateful.invariant()
    def only_what_was_done_behind_our_back_differs(self) -> None:
        for project in self.projects:
            self.test.assertEqual(
                self.world.differences(project),
                db.api.quota_usage_check(self.context, project),
            )


class TestQuotas(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        # It would make a directory in the current one.
        home = self.useFixture(plain_fixtures.TempDir()).path
        configuration.set_hypothesis_home_dir(home)
        self.addCleanup(configuration.set_hypothesis_home_dir, None)
        self.database.conf.set_override(
            'default_limits', DEFAULTS, group='quota'
        )
        numbers = {
            'resources': sa.func.count(),
            'gigabytes': sa.func.sum(SERVICES.c.version),
        }
        self.useFixture(
            fixtures.QuotaCounters(
                **{
                    resource: sa.select(number).where(
                        SERVICES.c.topic == counters.PROJECT,
                        SERVICES.c.binary == resource,
                    )
                    for resource, number in numbers.items()
                }
            )
        )

    def test_no_sequence_of_calls_makes_them_drift(self) -> None:
        stateful.run_state_machine_as_test(
            lambda: Machine(self),
            settings=hypothesis.settings(
                max_examples=60 if self.backend == 'sqlite' else 30,
                stateful_step_count=40,
                derandomize=True,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )

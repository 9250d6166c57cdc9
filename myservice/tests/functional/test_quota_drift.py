"""Quotas do not drift, whoever does what at the same time.

As a program it is one of the processes of a test::

    python -m myservice.tests.functional.test_quota_drift URL PROJECTS SEED N

makes N random calls with quotas of some projects, and prints what it knows
of them to have got.
"""

import collections
import functools
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception
from testtools import content

from myservice import conf
from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice import servers
from myservice.db import models
from myservice.db.engine import engines
from myservice.db.engine import purpose
from myservice.db.quotas import counters
from myservice.db.quotas import enforcement
from myservice.tests import proxy
from myservice.tests.functional import base

SERVICES: Any = models.Service.__table__
RESERVATIONS: Any = models.Reservation.__table__
USAGES: Any = models.QuotaUsage.__table__

FORMS: tuple[purpose.Purpose, ...] = ('autocommit', 'transaction')
RESOURCES = ('resources', 'gigabytes')

THREADS = 16
CALLS = 200

PROCESSES = 8
LOST = 0.05
# How many random operations each process makes; 500 is a thorough run.
OPERATIONS = int(os.environ.get('MYSERVICE_DRIFT_OPERATIONS', '150'))


def counting(*resources: str) -> fixtures.QuotaCounters:
    """Count services: their number, and the sum of their versions.

    :param resources: those that are counted; others are not
    """
    numbers: dict[str, Any] = {
        'resources': sa.func.count(),
        'gigabytes': sa.func.sum(SERVICES.c.version),
    }
    return fixtures.QuotaCounters(
        **{
            resource: sa.select(numbers[resource]).where(
                SERVICES.c.topic == counters.PROJECT,
                SERVICES.c.deleted == '',
            )
            for resource in resources
        }
    )


class Worker:
    """Makes random calls, and keeps account of what they have got.

    What it uses are volumes, which are services whose version is their size:
    they come and go in the transaction of the commit.

    :param projects: whose quotas it uses
    :param seed: of what it does
    """

    def __init__(self, projects: list[str], seed: int) -> None:
        self.context = context.get_admin_context()
        self.projects = projects
        self.chance = random.Random(seed)
        #: what is certainly in use, by project and resource
        self.used: collections.Counter[tuple[str, str]] = collections.Counter()
        #: what may be in use besides
        self.uncertain: list[tuple[str, dict[str, int]]] = []
        #: what has happened how often
        self.done: collections.Counter[str] = collections.Counter()
        self.volumes: list[tuple[str, str, int]] = []
        self.held: list[tuple[str, dict[str, int], list[str]]] = []

    def run(self, weights: Mapping[str, int], count: int) -> None:
        """Do so many random things, of the given names and weights."""
        names = list(weights)
        chosen = self.chance.choices(names, list(weights.values()), k=count)
        for name in chosen:
            project = self.chance.choice(self.projects)
            try:
                getattr(self, name)(project)
                self.done[name] += 1
            except exception.OverQuota:
                self.done[f'{name}: over quota'] += 1

    def change(
        self, project: str, deltas: Mapping[str, int], function: Any
    ) -> Any:
        """Call what changes the use by so much, and write down that it did.

        :returns: the result; None when nobody knows whether it did
        """
        try:
            result = function()
        except exception.CommitUnknown:
            self.uncertain.append((project, dict(deltas)))
            return None
        for resource, delta in deltas.items():
            self.used[project, resource] += delta
        return result

    def shuffled(self, deltas: dict[str, int]) -> dict[str, int]:
        names = list(deltas)
        self.chance.shuffle(names)
        return {name: deltas[name] for name in names}

    def of_volume(self) -> dict[str, int]:
        size = self.chance.randrange(1, 12)
        return self.shuffled({'resources': 1, 'gigabytes': size})

    def together(self, function: Any) -> Any:
        """Run a function in a transaction, of either kind."""
        if self.chance.random() < 0.5:
            try:
                with db.api.transaction(self.context):
                    return function()
            except db_exception.DBDeadlock:
                # It has to be repeated as a whole.
                self.done['not repeated'] += 1
        return db.api.run_in_transaction(self.context, lambda _: function())

    def make(
        self, project: str, deltas: dict[str, int], ids: list[str]
    ) -> str:
        values = {
            'host': str(uuid.uuid4()),
            'binary': 'volume',
            'topic': project,
            'version': deltas['gigabytes'],
        }
        made = db.api.service_create(self.context, values)
        db.api.reservation_commit(self.context, ids, project)
        return str(made.id)

    def made(self, project: str, deltas: dict[str, int], work: Any) -> None:
        volume = self.change(project, deltas, lambda: self.together(work))
        if volume is not None:
            self.volumes.append((project, volume, deltas['gigabytes']))

    def create(self, project: str) -> None:
        """Reserve, make and commit a volume in one transaction."""
        deltas = self.of_volume()

        def work() -> str:
            ids = db.api.quota_reserve(self.context, deltas, project)
            return self.make(project, deltas, ids)

        self.made(project, deltas, work)

    def hold(self, project: str) -> None:
        """Reserve a volume, for later."""
        deltas = self.of_volume()
        ids = db.api.quota_reserve(self.context, deltas, project)
        self.held.append((project, deltas, ids))

    def finish(self, _: str) -> None:
        """Make a volume that was reserved earlier, or give it back."""
        if not self.held:
            return
        project, deltas, ids = self.held.pop(0)
        if self.chance.random() < 0.5:
            db.api.reservation_rollback(self.context, ids, project)
        else:
            self.made(project, deltas, lambda: self.make(project, deltas, ids))

    def extend(self, _: str) -> None:
        """Make a volume of our own larger, or smaller."""
        if not self.volumes:
            return
        project, volume, size = self.volumes.pop(0)
        change = self.chance.randrange(1 - size, 12)
        deltas = {'gigabytes': change}

        def work() -> int:
            ids = db.api.quota_reserve(self.context, deltas, project)
            values = {'version': size + change}
            db.api.service_update(self.context, volume, values)
            db.api.reservation_commit(self.context, ids, project)
            return size + change

        try:
            new = self.change(project, deltas, lambda: self.together(work))
        except exception.OverQuota:
            self.volumes.append((project, volume, size))
            raise
        if new is not None:
            self.volumes.append((project, volume, new))

    def destroy(self, _: str) -> None:
        """Destroy a volume of our own, and give back what it used."""
        if not self.volumes:
            return
        project, volume, size = self.volumes.pop(0)
        deltas = self.shuffled({'resources': -1, 'gigabytes': -size})

        def work() -> None:
            db.api.service_destroy(self.context, volume)
            ids = db.api.quota_reserve(self.context, deltas, project)
            db.api.reservation_commit(self.context, ids, project)

        self.change(project, deltas, lambda: self.together(work))

    def abandon(self, project: str) -> None:
        """Reserve what is overdue at once."""
        db.api.quota_reserve(self.context, self.of_volume(), project, -1)

    def hurry(self, project: str) -> None:
        """Make a volume at about the moment at which it expires."""
        deltas = self.of_volume()
        seconds = self.chance.uniform(0.01, 0.1)
        ids = db.api.quota_reserve(self.context, deltas, project, seconds)
        time.sleep(seconds * self.chance.uniform(0, 1.1))
        try:
            self.made(project, deltas, lambda: self.make(project, deltas, ids))
        except exception.ReservationExpired:
            self.done['hurry: too late'] += 1

    def expire(self, _: str) -> None:
        batch_size = self.chance.choice([1, 3, 200])
        ended = db.api.reservation_expire(self.context, batch_size)
        self.done['expired'] += ended

    def check(self, project: str) -> None:
        """What others are doing right now is no difference."""
        self.expect_none(db.api.quota_usage_check(self.context, project))

    def sync(self, project: str) -> None:
        self.expect_none(db.api.quota_usage_sync(self.context, project))

    def expect_none(self, differences: dict[str, Any]) -> None:
        if differences:
            raise AssertionError(f'the usages differ: {differences}')

    def limit(self, _: str) -> None:
        """Change a limit of any project but the first."""
        project = self.chance.choice(self.projects[1:])
        resource = self.chance.choice(RESOURCES)
        new = self.chance.choice([-1, 0, 5, 10, 50])
        calls: list[Any] = [
            lambda: db.api.quota_create(self.context, project, resource, new),
            lambda: db.api.quota_update(self.context, project, resource, new),
            lambda: db.api.quota_destroy(self.context, project, resource),
            lambda: db.api.quota_class_create(
                self.context, 'default', resource, new
            ),
            lambda: db.api.quota_class_destroy(
                self.context, 'default', resource
            ),
        ]
        try:
            self.chance.choice(calls)()
        except (
            exception.QuotaNotFound,
            exception.QuotaExists,
            exception.QuotaClassNotFound,
            exception.QuotaClassExists,
        ):
            self.done['limit: not now'] += 1


class LossyWorker(Worker):
    """One whose connections get lost: it needs ``run_in_transaction``.

    Volumes count as gigabytes only. What it uses of resources is nowhere
    counted, and so can come and go in calls of their own.
    """

    def __init__(self, projects: list[str], seed: int) -> None:
        super().__init__(projects, seed)
        self.loose: collections.Counter[str] = collections.Counter()

    def together(self, function: Any) -> Any:
        return db.api.run_in_transaction(self.context, lambda _: function())

    def take(self, project: str) -> None:
        """Reserve and commit in two calls, or give back in the second."""
        number = self.chance.randrange(1, 3)
        deltas = {'resources': number}
        ids = self.reserve(deltas, project)
        if ids is None:
            return
        if self.chance.random() < 0.3:
            self.ended(db.api.reservation_rollback, ids, project, {})
        elif self.ended(db.api.reservation_commit, ids, project, deltas):
            self.loose[project] += number

    def give(self, project: str) -> None:
        """Give back what we have certainly taken."""
        number = min(self.loose[project], self.chance.randrange(1, 3))
        if number == 0:
            return
        deltas = {'resources': -number}
        ids = self.reserve(deltas, project)
        if ids is not None:
            # Perhaps, if nobody knows.
            self.loose[project] -= number
            if not self.ended(db.api.reservation_commit, ids, project, deltas):
                self.done['give: unknown'] += 1

    def reserve(
        self, deltas: dict[str, int], project: str
    ) -> list[str] | None:
        try:
            return db.api.quota_reserve(self.context, deltas, project)
        except exception.CommitUnknown:
            # The parent gives back whatever is left.
            self.done['reserve: unknown'] += 1
            return None

    def ended(
        self,
        function: Any,
        ids: list[str],
        project: str,
        deltas: dict[str, int],
    ) -> bool:
        def end() -> bool:
            function(self.context, ids, project)
            return True

        return bool(self.change(project, deltas, end))

    def hold(self, project: str) -> None:
        deltas = self.of_volume()
        ids = self.reserve(deltas, project)
        if ids is not None:
            self.held.append((project, deltas, ids))

    def finish(self, _: str) -> None:
        if not self.held:
            return
        project, deltas, ids = self.held.pop(0)
        if self.chance.random() < 0.5:
            self.ended(db.api.reservation_rollback, ids, project, {})
        else:
            self.made(project, deltas, lambda: self.make(project, deltas, ids))

    def abandon(self, project: str) -> None:
        try:
            super().abandon(project)
        except exception.CommitUnknown:
            self.done['reserve: unknown'] += 1

    def expire(self, project: str) -> None:
        try:
            super().expire(project)
        except exception.CommitUnknown:
            self.done['expire: unknown'] += 1

    def account(self) -> dict[str, Any]:
        after = db.api.statistics()
        return {
            'used': [[*key, number] for key, number in self.used.items()],
            'uncertain': self.uncertain,
            'done': self.done,
            'retries': after.retries,
            'resolved': after.in_doubt_resolved,
            'unresolved': after.in_doubt_unresolved,
        }


class DriftTestCase(base.ServerTestCase):
    """What is the same on both servers."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(counting())
        self.database.configure(max_pool_size=THREADS * 2)

    def limit_class(self, resources: int, gigabytes: int) -> None:
        for name, limit in (
            ('resources', resources),
            ('gigabytes', gigabytes),
        ):
            db.api.quota_class_create(self.context, 'default', name, limit)

    def count_given_way(self) -> list[None]:
        """Count how often a reserve has not waited for those who end.

        It raises DBDeadlock in order to be repeated, because a deadlock is
        what it would become: the only DBDeadlock that there may be.
        """
        given_way: list[None] = []
        give_back = enforcement._give_back_overdue

        def counted(*args: Any, **kwargs: Any) -> None:
            try:
                give_back(*args, **kwargs)
            except db_exception.DBDeadlock as error:
                if error.__cause__ is None:
                    given_way.append(None)
                raise

        self.useFixture(
            plain_fixtures.MockPatchObject(
                enforcement, '_give_back_overdue', counted
            )
        )
        return given_way

    def deadlocks(self) -> int:
        """Return how many deadlocks the server has found."""
        if self.backend == 'postgresql':
            # A connection tells what it has seen when it is closed.
            self.database.configure()
            time.sleep(1.5)
            statement = (
                'SELECT 1, deadlocks FROM pg_stat_database '
                'WHERE datname = current_database()'
            )
        else:
            statement = "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"
        with self.database.engine().connect() as connection:
            return int(connection.execute(sa.text(statement)).one()[1])

    def begin_counting(self) -> None:
        self.given_way = self.count_given_way()
        self.deadlocks_before = self.deadlocks()
        self.retries_before = db.api.statistics().retries

    def check_no_deadlock(self, not_repeated: int = 0) -> str:
        """Check that nobody has deadlocked, or had to try again for nothing.

        :param not_repeated: how many DBDeadlock the layer has not repeated
        :returns: figures, for a person to read
        """
        retries = collections.Counter(db.api.statistics().retries)
        retries.subtract(self.retries_before)
        deadlocks = self.deadlocks() - self.deadlocks_before
        figures = (
            f'{type(self).__name__}: retries {dict(+retries)}, '
            f'{len(self.given_way)} gave way, {deadlocks} deadlocks'
        )
        if deadlocks:
            self.add_server_log()
        # Once in some ten thousand commands MariaDB's SKIP LOCKED waits for a
        # row that was free when it looked. It costs a second attempt.
        rare = 2 if self.backend == 'mysql' else 0
        self.assertLessEqual(deadlocks, rare, figures)
        repeated = len(self.given_way) + deadlocks
        retries['DBDeadlock'] += not_repeated - repeated
        self.assertEqual({}, dict(+retries), figures)
        return figures

    def add_server_log(self) -> None:
        """Show which statements the server says have deadlocked."""
        log = (self.server.directory / 'log').read_text(errors='replace')
        self.addDetail('server log', content.text_content(log[-20000:]))

    def check_all_given_back(self, project: str) -> None:
        """End what is live, and check that the counters agree."""
        with self.database.engine().connect() as connection:
            live = connection.scalars(
                sa.select(RESERVATIONS.c.id).where(
                    RESERVATIONS.c.project_id == project,
                    RESERVATIONS.c.state == models.Reservation.RESERVED,
                )
            ).all()
        db.api.reservation_rollback(self.context, list(live), project)
        usages = db.api.quota_usage_get_all(self.context, project)
        self.assertEqual(
            [0, 0], [usages[name]['reserved'] for name in RESOURCES]
        )
        self.assertEqual({}, db.api.quota_usage_check(self.context, project))

    def check_threads(self, *, limit: int = 0) -> None:
        """Threads do all there is, and nobody needs a second attempt.

        :param limit: how often limits change; create has 20
        """
        self.useFixture(counting(*RESOURCES))
        self.limit_class(resources=15, gigabytes=70)
        projects = ['constant', 'p1', 'p2']
        limits = {'resources': 12, 'gigabytes': 60}
        for name, most in limits.items():
            db.api.quota_create(self.context, 'constant', name, most)
        workers = [Worker(projects, seed) for seed in range(THREADS)]
        weights = {
            'create': 20,
            'hold': 15,
            'finish': 15,
            'extend': 10,
            'destroy': 20,
            'abandon': 5,
            'hurry': 5,
            'expire': 3,
            'check': 3,
            'sync': 2,
            'limit': limit,
        }
        self.begin_counting()
        seen = {name: 0 for name in limits}
        over = threading.Event()

        def sample() -> None:
            ctx = context.get_admin_context()
            while not over.is_set():
                usages = db.api.quota_usage_get_all(ctx, 'constant')
                for name, usage in usages.items():
                    total = usage['in_use'] + usage['reserved']
                    seen[name] = max(seen[name], total)
                time.sleep(0.002)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            results = self.in_threads(
                THREADS, lambda i: workers[i].run(weights, CALLS)
            )
        finally:
            over.set()
            sampler.join()
        self.assertEqual([None] * THREADS, results)
        done = sum((worker.done for worker in workers), collections.Counter())
        self.assertEqual(limits, seen)
        self.assertEqual([], [w.uncertain for w in workers if w.uncertain])
        # After the last one there is nothing that is not yet overdue.
        time.sleep(0.2)
        db.api.reservation_expire(self.context)
        for project in projects:
            self.check_all_given_back(project)
            usages = db.api.quota_usage_get_all(self.context, project)
            for name in RESOURCES:
                self.assertEqual(
                    sum(worker.used[project, name] for worker in workers),
                    usages[name]['in_use'],
                )
        figures = self.check_no_deadlock(done['not repeated'])
        print(figures, dict(done))

    def check_processes(self) -> None:
        """Processes whose connections get lost all the time."""
        projects = ['p1', 'p2']
        self.limit_class(resources=60, gigabytes=200)
        between = self.useFixture(proxy.FaultProxy(self.database.connection))
        chance = random.Random(1)
        actions: list[proxy.Action] = [
            proxy.DropBefore(),
            proxy.DropAfter(),
            proxy.DropMiddle(),
        ]

        def decide(command: proxy.Command) -> proxy.Action | None:
            if chance.random() < LOST:
                return chance.choice(actions)
            return None

        def run(number: int) -> Any:
            child = subprocess.Popen(
                [
                    sys.executable,
                    '-m',
                    'myservice.tests.functional.test_quota_drift',
                    between.url,
                    ','.join(projects),
                    str(number),
                    str(OPERATIONS),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
            self.addCleanup(child.wait)
            self.addCleanup(child.kill)
            assert child.stdout is not None
            self.assertEqual('ready\n', child.stdout.readline())
            ready.wait(60)
            between.decide = decide
            return json.loads(child.communicate('go\n')[0])

        ready = threading.Barrier(PROCESSES)
        log = self.useFixture(plain_fixtures.TempDir()).join('log')
        started = time.monotonic()
        with open(log, 'a+') as file:
            accounts = self.in_threads(PROCESSES, run)
            file.seek(0)
            errors = file.read()
        self.assertEqual(
            [],
            [error for error in accounts if not isinstance(error, dict)],
            errors[-5000:],
        )
        uncertain = [
            (project, deltas)
            for account in accounts
            for project, deltas in account['uncertain']
        ]
        total: collections.Counter[str] = collections.Counter()
        for account in accounts:
            total.update(account['done'])
            total.update(account['retries'])
            for name in ('resolved', 'unresolved'):
                total[name] += account[name]
        print(
            f'{type(self).__name__}: {len(between.commands)} commands in '
            f'{time.monotonic() - started:.1f} s, uncertain {uncertain}, '
            f'{dict(total)}'
        )
        self.useFixture(counting('gigabytes'))
        db.api.reservation_expire(self.context)
        for project in projects:
            self.check_all_given_back(project)
            usages = db.api.quota_usage_get_all(self.context, project)
            for name in RESOURCES:
                known = sum(
                    number
                    for account in accounts
                    for *key, number in account['used']
                    if key == [project, name]
                )
                perhaps = [
                    deltas.get(name, 0)
                    for other, deltas in uncertain
                    if other == project
                ]
                least = known + sum(min(delta, 0) for delta in perhaps)
                most = known + sum(max(delta, 0) for delta in perhaps)
                self.assertIn(usages[name]['in_use'], range(least, most + 1))
        self.assertTrue(total['resolved'] > 0, total)

    def check_first_use_of_parts(self) -> None:
        """Let the usages of a project come one by one, while others look."""
        parts = ({'gigabytes': 1}, {'resources': 1})
        deltas: list[dict[str, int]] = [*parts, parts[0] | parts[1]]
        for number in range(200):
            project = f'part {number}'
            results = self.in_threads(
                6,
                lambda caller, project=project: db.api.quota_reserve(
                    context.get_admin_context(), deltas[caller % 3], project
                ),
            )
            self.assertEqual([list] * 6, [type(r) for r in results], results)
            self.assertEqual(
                {}, db.api.quota_usage_check(self.context, project), number
            )

    def check_first_use(self, limit: int) -> None:
        """Many reserve at once what has no usage yet."""
        projects = [f'p{number}' for number in range(20)]
        self.limit_class(resources=limit, gigabytes=1000)
        self.begin_counting()

        def reserve(number: int, project: str) -> Any:
            deltas = {'resources': 1, 'gigabytes': 10}
            if number % 2:
                deltas = dict(reversed(deltas.items()))
            ctx = context.get_admin_context()
            try:
                return db.api.quota_reserve(ctx, deltas, project)
            except exception.OverQuota as error:
                return error.overs

        self.in_threads(32, lambda i: reserve(i, f'warm-{i}'))
        for project in projects:
            results = self.in_threads(
                32, functools.partial(reserve, project=project)
            )
            errors = [r for r in results if not isinstance(r, list)]
            self.assertEqual([], errors)
            refused = [r for r in results if set(r) <= set(RESOURCES)]
            self.assertEqual([['resources']] * (32 - limit), refused)
            ids = [i for r in results if r not in refused for i in r]
            self.assertEqual(2 * limit, len(set(ids)))
            usages = db.api.quota_usage_get_all(self.context, project)
            self.assertEqual(
                [(0, limit), (0, 10 * limit)],
                [
                    (usages[name]['in_use'], usages[name]['reserved'])
                    for name in RESOURCES
                ],
            )
            self.assertEqual(
                {}, db.api.quota_usage_check(self.context, project)
            )
        with self.database.engine().connect() as connection:
            rows = connection.execute(
                sa.select(USAGES.c.project_id, USAGES.c.resource).where(
                    USAGES.c.project_id.in_(projects)
                )
            ).all()
        self.assertEqual(
            sorted((p, name) for p in projects for name in RESOURCES),
            sorted(map(tuple, rows)),
        )
        print(self.check_no_deadlock())

    def check_overdue_race(self) -> None:
        """Some commit what expires in this moment, others want it."""
        self.limit_class(resources=10, gigabytes=10)
        outcomes: collections.Counter[str] = collections.Counter()
        self.begin_counting()

        def rounds(lane: int) -> None:
            for number in range(15):
                outcomes[self.race(f'p{lane}-{number}')] += 1

        self.assertEqual([None] * 4, self.in_threads(4, rounds))
        print(self.check_no_deadlock(), dict(outcomes))

    def race(self, project: str) -> str:
        race = Race(project)
        calls = [race.commit, race.take, race.take, race.sample, race.expire]
        results = self.in_threads(len(calls), lambda i: calls[i]())
        for error in results:
            if not isinstance(error, bool):
                raise error
        committed, taken = results[0], sum(results[1:3])
        self.assertLessEqual(committed + taken, 1, results)
        self.assertLessEqual(max(race.totals), 10)
        db.api.reservation_expire(self.context)
        usages = db.api.quota_usage_get_all(self.context, project)
        self.assertEqual(
            (10 * committed, 10 * taken),
            (usages['resources']['in_use'], usages['resources']['reserved']),
        )
        self.assertEqual({}, db.api.quota_usage_check(self.context, project))
        return 'committed' if committed else f'taken by {taken}'


class Race:
    """All of a project's quota, which expires in 0.3 seconds.

    Its methods are called at once, by a thread each.
    """

    deltas = {'resources': 10}

    def __init__(self, project: str) -> None:
        self.project = project
        self.started = time.monotonic()
        self.ids = db.api.quota_reserve(
            context.get_admin_context(), self.deltas, project, 0.3
        )
        self.totals: list[int] = []

    def wait(self, seconds: float) -> context.RequestContext:
        time.sleep(max(0, self.started + seconds - time.monotonic()))
        return context.get_admin_context()

    def is_on(self) -> bool:
        return time.monotonic() < self.started + 0.4

    def commit(self) -> bool:
        ctx = self.wait(random.uniform(0.27, 0.33))
        try:
            db.api.reservation_commit(ctx, self.ids, self.project)
        except exception.ReservationExpired:
            return False
        return True

    def take(self) -> bool:
        ctx = self.wait(random.uniform(0.27, 0.32))
        while self.is_on():
            try:
                db.api.quota_reserve(ctx, self.deltas, self.project)
                return True
            except exception.OverQuota:
                pass
        return False

    def sample(self) -> bool:
        ctx = self.wait(0.26)
        while self.is_on() or not self.totals:
            usages = db.api.quota_usage_get_all(ctx, self.project)
            usage = usages['resources']
            self.totals.append(usage['in_use'] + usage['reserved'])
        return False

    def expire(self) -> bool:
        ctx = self.wait(random.uniform(0.29, 0.32))
        db.api.reservation_expire(ctx)
        return False


class TestMariaDB(DriftTestCase):
    server_class = servers.MariaDB
    settings = {'innodb_print_all_deadlocks': 'ON'}

    def test_threads_do_not_make_them_drift(self) -> None:
        self.check_threads()

    def test_threads_do_not_while_limits_change(self) -> None:
        self.check_threads(limit=4)

    def test_processes_with_bad_connections_do_not(self) -> None:
        self.check_processes()

    def test_first_uses_add_one_usage_and_never_pass_a_limit(self) -> None:
        self.check_first_use(limit=10)

    def test_first_uses_of_parts_do_not_make_them_drift(self) -> None:
        self.check_first_use_of_parts()

    def test_first_uses_are_not_refused_where_all_of_them_fit(self) -> None:
        self.check_first_use(limit=32)

    def test_what_expires_is_committed_or_taken_and_never_both(self) -> None:
        self.check_overdue_race()


class TestMariaDBSnapshotIsolation(DriftTestCase):
    server_class = servers.MariaDB
    settings = {
        'innodb_snapshot_isolation': 'ON',
        'innodb_print_all_deadlocks': 'ON',
    }

    def test_threads_do_not_make_them_drift(self) -> None:
        self.check_threads()

    def test_threads_do_not_while_limits_change(self) -> None:
        self.check_threads(limit=4)


class TestPostgreSQL(DriftTestCase):
    server_class = servers.PostgreSQL

    def test_threads_do_not_make_them_drift(self) -> None:
        self.check_threads()

    def test_threads_do_not_while_limits_change(self) -> None:
        self.check_threads(limit=4)

    def test_processes_with_bad_connections_do_not(self) -> None:
        self.check_processes()

    def test_first_uses_add_one_usage_and_never_pass_a_limit(self) -> None:
        self.check_first_use(limit=10)

    def test_first_uses_of_parts_do_not_make_them_drift(self) -> None:
        self.check_first_use_of_parts()

    def test_first_uses_are_not_refused_where_all_of_them_fit(self) -> None:
        self.check_first_use(limit=32)

    def test_what_expires_is_committed_or_taken_and_never_both(self) -> None:
        self.check_overdue_race()


def main() -> None:
    url, projects, seed, count = sys.argv[1:]
    conf.CONF([], project='myservice', default_config_files=[])
    conf.CONF.set_override('connection', url, 'database')
    counting('gigabytes').setUp()
    # An engine learns about its server once, by its first connection.
    for form in FORMS:
        engines.get_engines().get_engine(form).connect().close()
    print('ready', flush=True)
    sys.stdin.readline()
    worker = LossyWorker(projects.split(','), int(seed))
    weights = {
        'create': 20,
        'hold': 10,
        'finish': 10,
        'extend': 10,
        'destroy': 15,
        'take': 15,
        'give': 10,
        'abandon': 4,
        'expire': 2,
        'check': 4,
    }
    worker.run(weights, int(count))
    json.dump(worker.account(), sys.stdout)


if __name__ == '__main__':
    main()

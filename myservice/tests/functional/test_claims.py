"""Claims under fire: threads, processes, deaths and second lives."""

import collections
import concurrent.futures
import contextlib
import datetime
import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from myservice import conf
from myservice import context
from myservice import db
from myservice import exception
from myservice import servers
from myservice.db import models
from myservice.db.operation import new_id
from myservice.tests import factories
from myservice.tests.functional import base

RESOURCES: Any = models.Resource.__table__
SERVICES: Any = models.Service.__table__

ROUNDS = int(os.environ.get('MYSERVICE_CLAIM_ROUNDS', '60'))

# SQLite tells milliseconds only, and cuts off the rest.
_RESOLUTION = 0.001

_SPAWN = multiprocessing.get_context('spawn')


def connect(connection: str) -> None:
    """Let the layer use a database, in a process of its own."""
    conf.CONF([], project='myservice', default_config_files=[])
    conf.CONF.set_override('connection', connection, 'database')


def connect_and_meet(connection: str, barrier: Any) -> None:
    """Connect, and wait until all processes have."""
    connect(connection)
    db.api.service_get_all(context.get_admin_context())
    barrier.wait(60)


def claim_each(service_id: str, resource_ids: list[str]) -> list[db.api.Claim]:
    """Claim resources one by one, unless somebody else has them."""
    ctx = context.get_admin_context()
    claims = []
    for resource_id in resource_ids:
        with contextlib.suppress(exception.ResourceClaimed):
            claims.append(db.api.resource_claim(ctx, resource_id, service_id))
    return claims


def claim_all_there_are(service_id: str) -> list[db.api.Claim]:
    """Claim the next resource until none is free."""
    ctx = context.get_admin_context()
    claims: list[db.api.Claim] = []
    while True:
        found = db.api.resource_claim_next(ctx, service_id)
        claims += found
        # What others are about to claim is passed by, and may yet be free.
        if not found and not db.api.resource_get_all(
            ctx, {'is_claimed': False}, limit=1
        ):
            return claims


def claim_and_stop(
    connection: str, service_id: str, count: int, pipe: Any
) -> None:
    """Claim, stop in the middle of the work, and go on when woken up."""
    connect(connection)
    ctx = context.get_admin_context()
    claims = db.api.resource_claim_next(ctx, service_id, limit=count)
    pipe.send(claims)
    os.kill(os.getpid(), signal.SIGSTOP)
    pipe.send(
        [
            [
                outcome(
                    db.api.resource_update,
                    ctx,
                    claim.resource_id,
                    {'status': 'available'},
                    claim=claim,
                ),
                outcome(db.api.resource_release, ctx, claim),
                outcome(
                    db.api.resource_destroy,
                    ctx,
                    claim.resource_id,
                    claim=claim,
                ),
            ]
            for claim in claims
        ]
    )


def outcome(
    function: Callable[..., Any], *arguments: Any, **options: Any
) -> str:
    """Call a function, and return the class of its error, or ''."""
    try:
        function(*arguments, **options)
    except Exception as error:
        return type(error).__name__
    return ''


class ClaimsTestCase(base.ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        # What it costs to open connections is not what is tested.
        self.database.configure(max_pool_size=32)

    def make_resources(self, count: int) -> list[str]:
        """Insert free resources, and return their ids, oldest first."""
        start = datetime.datetime(2026, 1, 1)
        rows = [
            {
                'id': new_id(),
                'project_id': 'p',
                'created_at': start + datetime.timedelta(seconds=number),
            }
            for number in range(count)
        ]
        with self.database.engine().begin() as connection:
            connection.execute(sa.insert(RESOURCES), rows)
        return [str(row['id']) for row in rows]

    def rows(self) -> dict[str, Any]:
        """Return the resources by id, also destroyed ones."""
        with self.database.engine().connect() as connection:
            found = connection.execute(sa.select(RESOURCES)).all()
        return {row.id: row for row in found}

    def make_services(self, count: int) -> list[str]:
        """Create services, and return their ids."""
        return [factories.create_service().id for _ in range(count)]

    def let_be_down(self, service_ids: list[str]) -> None:
        """Let services not have beaten for an hour."""
        long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
            hours=1
        )
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(SERVICES)
                .where(SERVICES.c.id.in_(service_ids))
                .values(last_seen_at=long_ago.replace(tzinfo=None))
            )

    def assert_no_errors(self, results: list[Any]) -> None:
        """Fail if a thread has ended with an error."""
        errors = [each for each in results if isinstance(each, Exception)]
        self.assertEqual([], errors)

    def assert_held(self, claims: list[db.api.Claim]) -> None:
        """Fail unless the rows say what the claims say."""
        rows = self.rows()
        for claim in claims:
            row = rows[claim.resource_id]
            self.assertEqual(
                (claim.service_id, claim.generation),
                (row.service_id, row.claim_generation),
            )

    def in_parallel(self, count: int) -> concurrent.futures.Executor:
        """Return as many processes, which start to work at once."""
        barrier = _SPAWN.Barrier(count)
        return concurrent.futures.ProcessPoolExecutor(
            count,
            mp_context=_SPAWN,
            initializer=connect_and_meet,
            initargs=(self.database.connection, barrier),
        )

    @contextlib.contextmanager
    def retries(self, name: str) -> Iterator[None]:
        """Print which attempts were repeated in this block."""
        before = collections.Counter(db.api.statistics().retries)
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        after = collections.Counter(db.api.statistics().retries)
        print(
            f'{type(self).__name__} {name}: {seconds:.1f} s, '
            f'retries {dict(after - before)}'
        )


class Once(ClaimsTestCase):
    """Many want the same thousand resources."""

    resources = int(os.environ.get('MYSERVICE_CLAIM_RESOURCES', '300'))
    threads = 32
    processes = 4

    def assert_each_once(self, found: list[list[db.api.Claim]]) -> None:
        """Fail unless each resource was claimed by one, and once."""
        claims = [claim for of_one in found for claim in of_one]
        ids = {claim.resource_id for claim in claims}
        self.assertEqual(
            (self.resources, self.resources), (len(claims), len(ids))
        )
        self.assertEqual({1}, {claim.generation for claim in claims})
        self.assert_held(claims)

    def test_threads_claim_each_resource_once(self) -> None:
        ids = self.make_resources(self.resources)
        services = self.make_services(self.threads)
        taken: set[str] = set()

        def work(number: int) -> list[db.api.Claim]:
            claims = []
            for resource_id in ids:
                # Who comes late would only be told so, at length.
                if resource_id not in taken:
                    claims += claim_each(services[number], [resource_id])
                    taken.add(resource_id)
            return claims

        with self.retries('threads, resource_claim'):
            found = self.in_threads(self.threads, work)
        self.assert_no_errors(found)
        self.assert_each_once(found)

    def test_threads_claim_each_next_resource_once(self) -> None:
        self.make_resources(self.resources)
        services = self.make_services(self.threads)
        with self.retries('threads, resource_claim_next'):
            found = self.in_threads(
                self.threads,
                lambda number: claim_all_there_are(services[number]),
            )
        self.assert_no_errors(found)
        self.assert_each_once(found)

    def test_processes_claim_each_resource_once(self) -> None:
        ids = self.make_resources(self.resources)
        services = self.make_services(self.processes)
        with self.retries('processes, resource_claim'):
            with self.in_parallel(self.processes) as pool:
                ends = [
                    pool.submit(claim_each, service, ids)
                    for service in services
                ]
        self.assert_each_once([end.result() for end in ends])

    def test_processes_claim_each_next_resource_once(self) -> None:
        self.make_resources(self.resources)
        services = self.make_services(self.processes)
        with self.retries('processes, resource_claim_next'):
            with self.in_parallel(self.processes) as pool:
                ends = [
                    pool.submit(claim_all_there_are, service)
                    for service in services
                ]
        self.assert_each_once([end.result() for end in ends])


class Fencing(ClaimsTestCase):
    """An owner sleeps through the end of its claims, and wakes up."""

    claims = 100

    def test_a_paused_owner_can_neither_write_nor_release(self) -> None:
        self.make_resources(self.claims)
        owner, other = self.make_services(2)
        mine, yours = _SPAWN.Pipe()
        process = _SPAWN.Process(
            target=claim_and_stop,
            args=(self.database.connection, owner, self.claims, yours),
        )
        process.start()
        self.addCleanup(process.join)
        self.addCleanup(process.kill)
        self.assertTrue(mine.poll(60))
        claims = mine.recv()
        self.assertEqual(self.claims, len(claims))
        self.await_stop(process.pid)
        self.let_be_down([owner])
        db.api.service_heartbeat(self.context, other)
        self.assertEqual(self.claims, db.api.claims_take_over(self.context))
        # Of three, one is free, one another's, one the owner's next life's.
        heirs = [None, other, owner]
        for number, claim in enumerate(claims):
            heir = heirs[number % len(heirs)]
            if heir is not None:
                db.api.resource_claim(self.context, claim.resource_id, heir)
        before = self.rows()
        os.kill(process.pid or 0, signal.SIGCONT)
        self.assertTrue(mine.poll(60))
        self.assertEqual([['ClaimLost'] * 3] * self.claims, mine.recv())
        self.assertEqual(before, self.rows())

    def await_stop(self, process_id: int | None) -> None:
        """Wait until a process is stopped."""
        for _ in range(600):
            with open(f'/proc/{process_id}/stat') as file:
                if file.read().rpartition(')')[2].split()[0] == 'T':
                    return
            time.sleep(0.05)
        self.fail('it never stopped')


class NoWaiting(ClaimsTestCase):
    """A transaction that has claimed stays open for a while."""

    seconds = 2.0

    def test_claim_next_never_waits_for_an_open_transaction(self) -> None:
        self.make_resources(5000)
        services = self.make_services(5)
        holder = services[0]
        # Three of the others are the holder's own threads.
        own = [services[each] for each in (0, 0, 0, 1, 2, 3, 4)]
        has_claimed = threading.Event()
        times: list[float] = []

        def hold() -> list[db.api.Claim]:
            ctx = context.get_admin_context()
            with db.api.transaction(ctx):
                claims = db.api.resource_claim_next(ctx, holder, limit=5)
                has_claimed.set()
                time.sleep(self.seconds)
            return claims

        def work(number: int) -> list[db.api.Claim]:
            if number == len(own):
                return hold()
            ctx = context.get_admin_context()
            claims: list[db.api.Claim] = []
            has_claimed.wait(30)
            end = time.monotonic() + self.seconds * 0.8
            while time.monotonic() < end:
                started = time.monotonic()
                found = db.api.resource_claim_next(ctx, own[number])
                times.append(time.monotonic() - started)
                # There are more than they can claim in that time.
                self.assertEqual(1, len(found))
                claims += found
            return claims

        with self.retries('claim_next beside an open transaction'):
            found = self.in_threads(len(own) + 1, work)
        self.assert_no_errors(found)
        claims = [claim for of_one in found for claim in of_one]
        self.assertEqual(
            len(claims), len({claim.resource_id for claim in claims})
        )
        self.assert_held(claims)
        self.assertEqual(5, len(found[-1]))
        print(
            f'{type(self).__name__}: {len(times)} calls, the slowest '
            f'{max(times) * 1000:.0f} ms'
        )
        self.assertTrue(max(times) < 1, max(times))


class Destroyed(ClaimsTestCase):
    """A service is destroyed while its threads claim."""

    threads = 16

    def setUp(self) -> None:
        super().setUp()
        self.ids = self.make_resources(10)
        self.tally: collections.Counter[str] = collections.Counter()

    def test_a_destroyed_service_holds_nothing(self) -> None:
        with self.retries(f'{ROUNDS} rounds of destroy'):
            for turn in range(ROUNDS):
                self.check_round(force=turn % 2 == 0)
        print(f'{type(self).__name__}: {dict(self.tally)}')

    def check_round(self, force: bool) -> None:
        """Let one destroy a service, and the others claim for it."""
        service_id = factories.create_service().id

        def work(number: int) -> Any:
            ctx = context.get_admin_context()
            # So that now it comes first, now last, and else in between.
            if number == 0:
                time.sleep(random.uniform(0, 0.02))
                return db.api.service_destroy(ctx, service_id, force=force)
            time.sleep(random.uniform(0.01, 0.02))
            return db.api.resource_claim(
                ctx, self.ids[number % len(self.ids)], service_id
            )

        destroyed, *results = self.in_threads(self.threads, work)
        claims = [each for each in results if isinstance(each, db.api.Claim)]
        refusals = {type(r).__name__ for r in results} - {'Claim'}
        self.assertTrue(
            refusals <= {'ServiceNotFound', 'ResourceClaimed'}, results
        )
        self.tally[f'force={force}: {type(destroyed).__name__}'] += 1
        self.tally[f'force={force}: claims'] += len(claims)
        if destroyed is None:
            self.check_destroyed(service_id, claims, force)
            return
        # Only who is not forced may refuse.
        self.assertIsInstance(destroyed, exception.ServiceInUse)
        self.assertFalse(force)
        self.assertTrue(claims)
        self.assertNotIn('ServiceNotFound', refusals)
        self.assert_held(claims)
        db.api.service_destroy(self.context, service_id, force=True)
        self.check_destroyed(service_id, claims, force=True)

    def check_destroyed(
        self, service_id: str, claims: list[db.api.Claim], force: bool
    ) -> None:
        """Fail unless a service holds nothing, and its claims were freed."""
        rows = self.rows()
        self.assertEqual({None}, {row.service_id for row in rows.values()})
        if not force:
            self.assertEqual([], claims)
        for claim in claims:
            row = rows[claim.resource_id]
            self.assertEqual(claim.generation + 1, row.generation)
            self.assertIsNone(row.claim_generation)


class TakeOver(ClaimsTestCase):
    """Services that were down come back while their claims are taken over."""

    rounds = 10
    services = 24
    claims_of_each = 4
    beaters = 6
    takers = 4

    def setUp(self) -> None:
        super().setUp()
        self.lost = self.kept = 0

    def test_who_has_beaten_before_keeps_its_claims(self) -> None:
        with self.retries('take-over beside heartbeats'):
            for turn in range(self.rounds):
                self.check_round(many=turn % 2 == 0)
        print(f'{type(self).__name__}: {self.kept} kept, {self.lost} lost')

    def check_round(self, many: bool) -> None:
        """Let some services beat, and others take over, at once."""
        services = self.make_services(self.services)
        self.make_resources(self.services * self.claims_of_each)
        claims = [
            claim
            for service in services
            for claim in db.api.resource_claim_next(
                self.context, service, limit=self.claims_of_each
            )
        ]
        self.let_be_down(services)
        # The last ones never come back.
        beating = services[: self.services * 3 // 4]
        returned: dict[str, float] = {}
        calls: list[tuple[float, float, int]] = []

        def beat(number: int) -> None:
            ctx = context.get_admin_context()
            mine = beating[number :: self.beaters]
            random.shuffle(mine)
            if many:
                db.api.service_heartbeat_many(ctx, mine)
                returned.update(dict.fromkeys(mine, time.time()))
                return
            for service in mine:
                db.api.service_heartbeat(ctx, service)
                returned[service] = time.time()

        def take_over() -> None:
            ctx = context.get_admin_context()
            for _ in range(3):
                time.sleep(random.uniform(0, 0.01))
                started = time.time()
                freed = db.api.claims_take_over(ctx)
                calls.append((started, time.time(), freed))

        results = self.in_threads(
            self.beaters + self.takers,
            lambda number: (
                beat(number) if number < self.beaters else take_over()
            ),
        )
        self.assertEqual([None] * len(results), results)
        self.check_claims(claims, returned, calls)
        for service in services:
            db.api.service_destroy(self.context, service, force=True)
        with self.database.engine().begin() as connection:
            connection.execute(sa.delete(RESOURCES))

    def check_claims(
        self,
        claims: list[db.api.Claim],
        returned: dict[str, float],
        calls: list[tuple[float, float, int]],
    ) -> None:
        """Fail unless each claim is there, or was rightly taken away."""
        rows = self.rows()
        lost = 0
        for claim in claims:
            row = rows[claim.resource_id]
            if row.service_id is not None:
                self.assert_untouched(claim, row)
                self.assertIn(claim.service_id, returned)
                continue
            lost += 1
            self.assertEqual(claim.generation + 1, row.generation)
            self.assertIsNone(row.claim_generation)
            freed_at = row.updated_at.replace(tzinfo=datetime.UTC).timestamp()
            # By some call that had begun when its beat returned.
            beat_returned = returned.get(claim.service_id, float('inf'))
            self.assertTrue(
                any(
                    started - _RESOLUTION <= freed_at <= ended
                    and started <= beat_returned
                    for started, ended, _ in calls
                ),
                (claim, freed_at, beat_returned, calls),
            )
        self.assertEqual(lost, sum(freed for *_, freed in calls))
        self.lost += lost
        self.kept += len(claims) - lost

    def assert_untouched(self, claim: db.api.Claim, row: Any) -> None:
        """Fail unless a row is as the claim has left it."""
        self.assertEqual(
            (claim.service_id, claim.generation, claim.generation),
            (row.service_id, row.claim_generation, row.generation),
        )

    def test_who_has_beaten_long_before_keeps_them_all(self) -> None:
        """There is no doubt about the order here: nothing may be lost."""
        services = self.make_services(self.services)
        self.make_resources(self.services * self.claims_of_each)
        for turn in range(self.rounds):
            claims = [
                claim
                for service in services
                for claim in db.api.resource_claim_next(
                    self.context, service, limit=self.claims_of_each
                )
            ]
            self.let_be_down(services)
            back = random.sample(services, self.services // 2)
            db.api.service_heartbeat_many(self.context, back)
            freed = self.in_threads(
                self.takers,
                lambda _: db.api.claims_take_over(context.get_admin_context()),
            )
            kept = [each for each in claims if each.service_id in back]
            self.assertEqual(len(claims) - len(kept), sum(freed), turn)
            self.assert_held(kept)
            for claim in kept:
                db.api.resource_release(self.context, claim)


class NextLife(ClaimsTestCase):
    """A service registers anew, while its last life still claims."""

    rounds = 10
    identity = {'host': 'h', 'binary': 'b'}

    def test_register_frees_what_was_claimed_before(self) -> None:
        self.make_resources(2000)
        service = db.api.service_register(self.context, self.identity)
        with self.retries('register beside claims'):
            for _ in range(self.rounds):
                self.check_round(service.id)
                self.free_all()

    def check_round(self, service_id: str) -> None:
        """Let threads claim for a service, and one register it anew."""
        calls: list[tuple[float, float, db.api.Claim]] = []
        has_registered = threading.Event()

        def register() -> tuple[float, float]:
            try:
                give_up = time.monotonic() + 60
                while not calls and time.monotonic() < give_up:
                    time.sleep(random.uniform(0.02, 0.1))
                started = time.monotonic()
                db.api.service_register(
                    context.get_admin_context(), self.identity
                )
                return started, time.monotonic()
            finally:
                has_registered.set()

        def claim(ctx: context.RequestContext) -> None:
            started = time.monotonic()
            for each in db.api.resource_claim_next(ctx, service_id):
                calls.append((started, time.monotonic(), each))

        def work(number: int) -> Any:
            if number == 0:
                return register()
            ctx = context.get_admin_context()
            while not has_registered.is_set():
                claim(ctx)
            claim(ctx)
            return None

        results = self.in_threads(5, work)
        self.assert_no_errors(results)
        register_started, register_ended = results[0]
        before = [c for _, ended, c in calls if ended < register_started]
        after = [c for started, _, c in calls if started > register_ended]
        rows = self.rows()
        for each in before:
            self.assertLess(each.generation, rows[each.resource_id].generation)
            self.assertRaises(
                exception.ClaimLost,
                db.api.resource_release,
                self.context,
                each,
            )
        self.assertTrue(before and after, (len(before), len(after)))
        self.assert_held(after)

    def free_all(self) -> None:
        """Let the next round begin without claims."""
        db.api.service_register(self.context, self.identity)
        rows = self.rows().values()
        self.assertEqual({None}, {row.service_id for row in rows})

    def test_nothing_is_left_to_the_replaced(self) -> None:
        """Claims of a registration beside the one that replaces it."""
        self.make_resources(2000)
        ids = sorted(self.rows())
        with self.retries('claims beside the next registration'):
            for _ in range(self.rounds):
                service = db.api.service_register(self.context, self.identity)
                claimed = self.claim_until_replaced(service, ids)
                self.assertTrue(claimed)
                holders = {row.service_id for row in self.rows().values()}
                self.assertEqual({None}, holders)

    def claim_until_replaced(self, service: Any, ids: list[str]) -> int:
        """Let threads claim in both ways until another one registers."""

        def work(number: int) -> int:
            ctx = context.get_admin_context()
            if number == 0:
                time.sleep(random.uniform(0.02, 0.1))
                db.api.service_register(ctx, self.identity)
                return 0
            for count in itertools.count():
                try:
                    if number % 2:
                        db.api.resource_claim_next(
                            ctx, service.id, registration=service.registration
                        )
                    else:
                        # From the other end, where they are free.
                        db.api.resource_claim(
                            ctx,
                            ids[-1 - count],
                            service.id,
                            registration=service.registration,
                        )
                except exception.ServiceReplaced:
                    return count
                except exception.ResourceClaimed:
                    continue
            return 0

        results = self.in_threads(5, work)
        self.assert_no_errors(results)
        return sum(results)

    def test_register_waits_for_a_claim_under_way_and_frees_it(self) -> None:
        self.make_resources(20)
        service = db.api.service_register(self.context, self.identity)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with db.api.transaction(self.context):
                claims = db.api.resource_claim_next(
                    self.context, service.id, limit=10
                )
                registering = pool.submit(
                    db.api.service_register,
                    context.get_admin_context(),
                    self.identity,
                )
                time.sleep(0.5)
                self.assertFalse(registering.done())
            self.assertEqual(service.id, registering.result(30).id)
        self.assertEqual(10, len(claims))
        rows = self.rows()
        self.assertEqual({None}, {row.service_id for row in rows.values()})
        for claim in claims:
            self.assertRaises(
                exception.ClaimLost,
                db.api.resource_update,
                self.context,
                claim.resource_id,
                {'status': 'available'},
                claim=claim,
            )


class TestOnceSQLite(Once):
    server_class = None


class TestOnceMariaDB(Once):
    server_class = servers.MariaDB


class TestOncePostgreSQL(Once):
    server_class = servers.PostgreSQL


class TestFencingSQLite(Fencing):
    server_class = None


class TestFencingMariaDB(Fencing):
    server_class = servers.MariaDB


class TestFencingPostgreSQL(Fencing):
    server_class = servers.PostgreSQL


class TestNoWaitingMariaDB(NoWaiting):
    server_class = servers.MariaDB


class TestNoWaitingPostgreSQL(NoWaiting):
    server_class = servers.PostgreSQL


class TestDestroyedSQLite(Destroyed):
    server_class = None


class TestDestroyedMariaDB(Destroyed):
    server_class = servers.MariaDB


class TestDestroyedPostgreSQL(Destroyed):
    server_class = servers.PostgreSQL


class TestTakeOverSQLite(TakeOver):
    server_class = None


class TestTakeOverMariaDB(TakeOver):
    server_class = servers.MariaDB


class TestTakeOverPostgreSQL(TakeOver):
    server_class = servers.PostgreSQL


class TestNextLifeSQLite(NextLife):
    server_class = None


class TestNextLifeMariaDB(NextLife):
    server_class = servers.MariaDB


class TestNextLifePostgreSQL(NextLife):
    server_class = servers.PostgreSQL

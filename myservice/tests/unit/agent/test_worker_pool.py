"""The work of an agent: what is requested is done, once, and given back."""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import fixtures as plain_fixtures
from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice import worker
from myservice.agent import worker_pool
from myservice.agent.process import Agent
from myservice.tests import base
from myservice.tests import factories

# A claim, a write and a release: each raises the generation by one.
UNDISTURBED = 3


class Spy:
    """A worker of a test: does what it is told, and says what it was given.

    :param body: called with what run() gets; returns what it returns
    """

    def __init__(self, body: Callable[..., Any] | None = None) -> None:
        self.body = body or (lambda *_: {'status': 'available'})
        self.begun = threading.Semaphore(0)
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, conf: cfg.ConfigOpts) -> 'Spy':
        self.conf = conf
        return self

    def run(self, *arguments: Any) -> Any:
        self.seen.append(arguments)
        self.begun.release()
        return self.body(*arguments)


class Installed(Spy):
    """A worker as a package installs it."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self.conf = conf


def until_stopped(ctx: Any, resource: Any, claim: Any, stopped: Any) -> Any:
    """Work until the agent ends."""
    stopped.wait(10)
    raise worker.Interrupted()


class WorkTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(
            plain_fixtures.FakeLogger('myservice', level=logging.INFO)
        )
        self.service_id = factories.create_service().id
        self.override(poll_interval=0.02)

    def override(self, **values: Any) -> None:
        """Override options of [agent]."""
        for name, value in values.items():
            self.database.conf.set_override(name, value, group='agent')

    def request(self, count: int = 1) -> list[str]:
        """Create resources, and return their ids."""
        values = {'project_id': 'p'}
        return [
            db.api.resource_create(self.context, values).id
            for _ in range(count)
        ]

    def start(self, make: Any = None) -> worker_pool.Work:
        """Start working, until the test ends."""
        made = (
            worker_pool.Work(self.database.conf, make)
            if make
            else worker_pool.Work(self.database.conf)
        )
        made.start(self.service_id)
        self.addCleanup(made.end)
        return made

    def rows(self, **filters: Any) -> list[Any]:
        return db.api.resource_get_all(self.context, filters)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds; it fails after a minute."""
        give_up = time.monotonic() + 60
        while not condition():
            self.assertTrue(time.monotonic() < give_up, self.log.output)
            time.sleep(0.02)

    def wait_for_status(self, status: str, count: int = 1) -> list[Any]:
        """Wait until so many resources are in a status, and free."""
        filters = {'status': status, 'is_claimed': False}
        self.wait_for(lambda: len(self.rows(**filters)) == count)
        return self.rows(**filters)

    def fail_first(self, name: str, *failures: Exception) -> list[Exception]:
        """Let the first calls of a function of db.api fail.

        :returns: the failures that are yet to come
        """
        real = getattr(db.api, name)
        left = list(failures)

        def call(*args: Any, **kwargs: Any) -> Any:
            if left:
                raise left.pop(0)
            return real(*args, **kwargs)

        self.useFixture(
            plain_fixtures.MonkeyPatch(f'myservice.db.api.{name}', call)
        )
        return left


class TestWork(WorkTestCase):
    def test_what_is_requested_becomes_available_once_each(self) -> None:
        self.override(concurrency=3)
        ids = self.request(20)
        spy = Spy()
        self.start(spy)
        rows = self.wait_for_status('available', 20)
        self.assertEqual([UNDISTURBED] * 20, [r.generation for r in rows])
        self.assertEqual(
            sorted(ids), sorted(resource.id for _, resource, *_ in spy.seen)
        )

    def test_the_oldest_comes_first(self) -> None:
        ids = self.request(5)
        spy = Spy()
        self.start(spy)
        self.wait_for_status('available', 5)
        self.assertEqual(ids, [claim.resource_id for *_, claim, _ in spy.seen])

    def test_what_is_requested_later_is_done_too(self) -> None:
        self.start(Spy())
        time.sleep(0.1)
        self.request()
        self.wait_for_status('available')

    def test_what_is_not_requested_is_left_alone(self) -> None:
        db.api.resource_create(
            self.context, {'project_id': 'p', 'status': 'other'}
        )
        spy = Spy()
        self.start(spy)
        time.sleep(0.2)
        self.assertEqual([], spy.seen)

    def test_a_worker_gets_what_it_needs(self) -> None:
        (resource_id,) = self.request()
        spy = Spy()
        self.start(spy)
        self.wait_for_status('available')
        ((ctx, resource, claim, stopped),) = spy.seen
        self.assertIs(self.database.conf, spy.conf)
        self.assertTrue(ctx.is_admin)
        self.assertEqual('requested', resource.status)
        self.assertEqual(db.api.Claim(resource_id, self.service_id, 1), claim)
        self.assertFalse(stopped.is_set())

    def test_a_worker_may_write_by_itself_under_its_claim(self) -> None:
        def note(ctx: Any, resource: Any, claim: Any, _: Any) -> Any:
            db.api.resource_metadata_update(
                ctx, resource.id, {'by': claim.service_id}, claim=claim
            )
            return {'status': 'available', 'name': 'n'}

        (resource_id,) = self.request()
        self.start(Spy(note))
        (row,) = self.wait_for_status('available')
        self.assertEqual('n', row.name)
        self.assertEqual(
            {'by': self.service_id},
            db.api.resource_metadata_get(self.context, resource_id),
        )

    def test_a_destroyed_service_does_no_more_work(self) -> None:
        made = self.start(Spy())
        db.api.service_destroy(self.context, self.service_id)
        self.wait_for(lambda: made.wait(0))
        self.assertIn(f'{self.service_id} is gone', self.log.output)


class TestErrorsOfWorkers(WorkTestCase):
    def check_error(self, body: Callable[..., Any], logged: str) -> None:
        """Check that a worker makes an error of one, and the next is done."""
        (bad, _) = self.request(2)

        def run(ctx: Any, resource: Any, claim: Any, stopped: Any) -> Any:
            if resource.id == bad:
                return body()
            return {'status': 'available'}

        self.start(Spy(run))
        self.wait_for_status('available')
        (row,) = self.wait_for_status('error')
        self.assertEqual((bad, UNDISTURBED), (row.id, row.generation))
        self.assertIn('Traceback', self.log.output)
        self.assertIn(logged, self.log.output)

    def test_one_that_raises(self) -> None:
        def fail() -> None:
            raise ValueError('no such thing')

        self.check_error(fail, 'ValueError: no such thing')

    def test_one_that_would_exit(self) -> None:
        def leave() -> None:
            raise SystemExit(3)

        self.check_error(leave, 'SystemExit: 3')

    def test_one_that_returns_what_cannot_be_stored(self) -> None:
        self.check_error(lambda: {'status': 5}, 'InvalidInput')

    def test_one_that_returns_no_values(self) -> None:
        self.check_error(lambda: {}, 'there is nothing to set')

    def test_one_whose_database_is_away_is_not_to_blame(self) -> None:
        self.request()
        failures: list[Exception] = [
            db_exception.DBConnectionError(OSError('gone\nand more')),
            exception.ServerBusy(reason='full'),
        ]

        def run(*_: Any) -> Any:
            if failures:
                raise failures.pop()
            return {'status': 'available'}

        self.start(Spy(run))
        (row,) = self.wait_for_status('available')
        # Twice it was only claimed and released.
        self.assertEqual(UNDISTURBED + 4, row.generation)
        self.assertNotIn('Traceback', self.log.output)
        self.assertNotIn('and more', self.log.output)

    def test_one_that_says_not_now_is_asked_again(self) -> None:
        self.request()
        answers = [None, None, {'status': 'available'}]
        started = time.monotonic()
        self.override(poll_interval=0.4)
        self.start(Spy(lambda *_: answers.pop(0)))
        self.wait_for_status('available')
        self.assertTrue(time.monotonic() - started >= 0.4)


class TestStop(WorkTestCase):
    def test_it_gives_claims_back(self) -> None:
        self.override(concurrency=2)
        self.request(3)
        spy = Spy(until_stopped)
        made = self.start(spy)
        for _ in range(2):
            self.assertTrue(spy.begun.acquire(timeout=30))
        self.assertEqual(2, len(self.rows(service_id=self.service_id)))
        self.assertFalse(made.wait(0))
        made.stop()
        self.assertTrue(made.wait(5))
        rows = self.wait_for_status('requested', 3)
        self.assertEqual([0, 2, 2], sorted(r.generation for r in rows))
        self.assertEqual(2, self.log.output.count('interrupted'))

    def test_it_claims_nothing_more(self) -> None:
        made = self.start(Spy())
        made.stop()
        self.assertTrue(made.wait(5))
        self.request()
        time.sleep(0.2)
        self.wait_for_status('requested')

    def test_work_that_is_done_all_the_same_is_written(self) -> None:
        self.request()

        def finish(ctx: Any, resource: Any, claim: Any, stopped: Any) -> Any:
            stopped.wait(10)
            return {'status': 'available'}

        spy = Spy(finish)
        made = self.start(spy)
        self.assertTrue(spy.begun.acquire(timeout=30))
        made.end()
        (row,) = self.wait_for_status('available')
        self.assertEqual(UNDISTURBED, row.generation)

    def test_a_worker_that_does_not_end_is_left_behind(self) -> None:
        """Its claim is given back, and what it writes later is refused."""
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.agent.worker_pool._GRACE', 0.3
            )
        )
        self.request()
        late = threading.Event()

        def ignore(*_: Any) -> Any:
            late.wait(10)
            return {'status': 'available'}

        spy = Spy(ignore)
        made = self.start(spy)
        self.assertTrue(spy.begun.acquire(timeout=30))
        made.end()
        (row,) = self.wait_for_status('requested')
        self.assertEqual(2, row.generation)
        self.assertIn('the worker does not end', self.log.output)
        late.set()
        self.wait_for(lambda: 'was refused' in self.log.output)
        self.wait_for_status('requested')

    def test_the_agent_beats_while_workers_give_up(self) -> None:
        self.request()
        begun, beaten = threading.Event(), threading.Event()
        beat = db.api.service_heartbeat
        stopping = threading.Event()

        def heartbeat(*args: Any) -> None:
            beat(*args)
            if stopping.is_set():
                beaten.set()

        def slow(ctx: Any, resource: Any, claim: Any, stopped: Any) -> Any:
            begun.set()
            stopped.wait(10)
            stopping.set()
            self.assertTrue(beaten.wait(5))
            raise worker.Interrupted()

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.service_heartbeat', heartbeat
            )
        )
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.worker.Wait.run', lambda _, *args: slow(*args)
            )
        )
        self.database.conf.set_override('report_interval', 0.1, 'service')
        process = Agent(self.database.conf, {'host': 'h', 'binary': 'b'})
        thread = threading.Thread(target=process.run)
        thread.start()
        self.addCleanup(thread.join, 20)
        self.assertTrue(begun.wait(5))
        process.stop()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        self.assertTrue(beaten.is_set())
        self.wait_for_status('requested')
        self.assertIn('interrupted', self.log.output)


class TestFencing(WorkTestCase):
    def refused(self) -> list[str]:
        return [
            line
            for line in self.log.output.splitlines()
            if 'the write was refused' in line
        ]

    def check_refused(self, disturb: Callable[[str], Any]) -> None:
        """Check that work whose claim is lost is refused, and logged once."""
        (resource_id,) = self.request()
        lost = threading.Event()

        def run(*_: Any) -> Any:
            self.assertTrue(lost.wait(10))
            return {'status': 'available'}

        spy = Spy(run)
        made = self.start(spy)
        self.assertTrue(spy.begun.acquire(timeout=30))
        made.stop()
        disturb(resource_id)
        lost.set()
        self.wait_for(lambda: made.wait(0))
        (line,) = self.refused()
        self.assertIn(f'Resource {resource_id}, generation 1', line)

    def test_what_was_taken_over_meanwhile_is_not_written(self) -> None:
        def take_over(resource_id: str) -> None:
            values = {'forced_down': True}
            db.api.service_update(self.context, self.service_id, values)
            self.assertEqual(1, db.api.claims_take_over(self.context))

        self.check_refused(take_over)
        (row,) = self.wait_for_status('requested')
        self.assertEqual(2, row.generation)

    def test_what_another_works_on_is_not_written(self) -> None:
        other = factories.create_service().id

        def take_over(resource_id: str) -> None:
            claim = db.api.Claim(resource_id, self.service_id, 1)
            db.api.resource_release(self.context, claim)
            db.api.resource_claim(self.context, resource_id, other)

        self.check_refused(take_over)
        (row,) = self.rows(status='requested')
        self.assertEqual((other, 3), (row.service_id, row.generation))

    def test_what_was_destroyed_is_not_written(self) -> None:
        self.check_refused(
            lambda resource_id: db.api.resource_destroy(
                self.context, resource_id, force=True
            )
        )


class TestDatabaseErrors(WorkTestCase):
    lost = db_exception.DBConnectionError

    def test_a_look_for_work_that_fails_is_repeated(self) -> None:
        self.request()
        left = self.fail_first(
            'resource_claim_next',
            self.lost(OSError('gone\nand more')),
            exception.PoolTimeout(timeout=30, held=55),
            ValueError('a bug'),
        )
        self.start(Spy())
        self.wait_for_status('available')
        self.assertEqual([], left)
        self.assertEqual(3, self.log.output.count('Looking for work failed'))
        self.assertNotIn('and more', self.log.output)

    def test_a_result_is_not_lost_with_the_first_write(self) -> None:
        self.request()
        left = self.fail_first(
            'resource_update',
            self.lost(OSError('gone')),
            exception.ServerReadOnly(reason='failover'),
        )
        spy = Spy()
        self.start(spy)
        (row,) = self.wait_for_status('available')
        self.assertEqual([], left)
        self.assertEqual(UNDISTURBED, row.generation)
        self.assertEqual(1, len(spy.seen))

    def test_a_release_that_fails_is_repeated(self) -> None:
        self.request()
        left = self.fail_first('resource_release', self.lost(OSError('gone')))
        self.start(Spy())
        self.wait_for_status('available')
        self.assertEqual([], left)

    def test_a_claim_that_nobody_knows_of_is_given_back(self) -> None:
        """As after a lost COMMIT: the claim is there, the answer is not."""
        real = db.api.resource_claim_next
        lost: list[Any] = []

        def claim_next(*args: Any, **kwargs: Any) -> Any:
            claims = real(*args, **kwargs)
            if claims and not lost:
                lost.append(claims)
                raise exception.CommitUnknown(
                    function='claim_next', operation='x', known='lost'
                )
            return claims

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.resource_claim_next', claim_next
            )
        )
        self.request(2)
        self.override(concurrency=2)
        self.start(Spy())
        rows = self.wait_for_status('available', 2)
        self.assertEqual(
            [UNDISTURBED, UNDISTURBED + 2],
            sorted(row.generation for row in rows),
        )
        self.assertNotIn('refused', self.log.output)

    def test_stopped_it_does_not_wait_for_the_database(self) -> None:
        self.request()
        spy = Spy(until_stopped)
        made = self.start(spy)
        self.assertTrue(spy.begun.acquire(timeout=30))
        self.fail_first('resource_release', *[self.lost(OSError('gone'))] * 9)
        started = time.monotonic()
        made.end()
        self.assertTrue(time.monotonic() - started < 5)


class TestOptions(WorkTestCase):
    def test_worker_names_what_works(self) -> None:
        self.assertIsInstance(worker.load(self.database.conf), worker.Wait)
        other = metadata.EntryPoint(
            'other', f'{__name__}:Installed', worker.GROUP
        )
        self.add_entry_points(other)
        self.override(worker='other')
        made = worker.load(self.database.conf)
        assert isinstance(made, Installed)
        self.assertIs(self.database.conf, made.conf)

    def test_a_worker_that_is_unknown_is_refused(self) -> None:
        self.override(worker='nobody')
        with self.assertRaises(exception.InvalidInput) as caught:
            Agent(self.database.conf, {})
        error: Any = caught.exception
        self.assertEqual('[agent] worker', error.field)
        self.assertIn("no worker 'nobody', only wait", str(error))

    def test_a_worker_that_cannot_be_imported_is_refused(self) -> None:
        broken = metadata.EntryPoint('broken', 'nowhere:It', worker.GROUP)
        self.add_entry_points(broken)
        self.override(worker='broken')
        with self.assertRaisesRegex(
            exception.InvalidInput, "'broken' cannot be loaded: .*nowhere"
        ):
            worker.load(self.database.conf)

    def test_worker_seconds_is_how_long_the_built_in_one_takes(self) -> None:
        for seconds in (0.0, 0.6):
            self.override(worker_seconds=seconds)
            made = worker.load(self.database.conf)
            started = time.monotonic()
            claim: Any = None
            self.assertEqual(
                {'status': 'available'},
                made.run(self.context, None, claim, threading.Event()),
            )
            taken = time.monotonic() - started
            self.assertTrue(seconds <= taken < seconds + 0.5)

    def test_the_built_in_one_is_interrupted(self) -> None:
        self.override(worker_seconds=60)
        self.request()
        made = self.start()
        self.wait_for(lambda: self.rows(is_claimed=True))
        made.end()
        self.wait_for_status('requested')

    def test_poll_interval_is_the_time_between_two_looks(self) -> None:
        looks: list[float] = []
        done = threading.Event()

        def look(*args: Any, **kwargs: Any) -> list[Any]:
            looks.append(time.monotonic())
            if len(looks) == 4:
                done.set()
            return []

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.resource_claim_next', look
            )
        )
        self.override(poll_interval=0.4)
        self.start(Spy())
        self.assertTrue(done.wait(10))
        waits = [b - a for a, b in itertools.pairwise(looks[:4])]
        self.assertTrue(all(0.2 <= wait < 2 for wait in waits), waits)
        self.assertEqual(3, len(set(waits)), 'without jitter')

    def test_concurrency_is_how_many_are_worked_on_at_once(self) -> None:
        self.request(5)
        for count in (0, 1, 3):
            self.override(concurrency=count)
            spy = Spy(until_stopped)
            made = self.start(spy)
            for _ in range(count):
                self.assertTrue(spy.begun.acquire(timeout=30))
            time.sleep(0.2)
            self.assertEqual(count, len(self.rows(is_claimed=True)))
            made.end()

    def test_take_over_interval_is_when_the_dead_lose_their_claims(
        self,
    ) -> None:
        (resource_id,) = self.request()
        db.api.resource_claim(self.context, resource_id, self.service_id)
        values = {'forced_down': True}
        db.api.service_update(self.context, self.service_id, values)
        self.override(take_over_interval=1, concurrency=0)
        process = Agent(self.database.conf, {'host': 'h', 'binary': 'b'})
        thread = threading.Thread(target=process.run)
        started = time.monotonic()
        thread.start()
        self.addCleanup(thread.join, 20)
        self.addCleanup(process.stop)
        self.wait_for_status('requested')
        self.assertTrue(1 <= time.monotonic() - started < 5)
        self.wait_for(lambda: 'Freed 1 claims' in self.log.output)

    def add_entry_points(self, *more: metadata.EntryPoint) -> None:
        """Let these be installed, too."""
        real = metadata.entry_points

        def entry_points(**select: Any) -> metadata.EntryPoints:
            return metadata.EntryPoints([*real(**select), *more])

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'importlib.metadata.entry_points', entry_points
            )
        )
        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'stevedore.extension.ExtensionManager.list_entry_points',
                lambda _: list(entry_points(group=worker.GROUP)),
            )
        )


class TestReplaced(WorkTestCase):
    """Another process has registered as the service that works."""

    IDENTITY = {'host': 'h', 'binary': 'b'}

    def setUp(self) -> None:
        super().setUp()
        self.service_id = self.register().id

    def register(self) -> Any:
        """Register as a process; the one before is replaced."""
        return db.api.service_register(self.context, self.IDENTITY)

    def start(
        self, make: Any = None, registration: int = 1
    ) -> worker_pool.Work:
        """Start working under a registration, until the test ends."""
        made = worker_pool.Work(self.database.conf, make or Spy())
        made.start(self.service_id, registration)
        self.addCleanup(made.end)
        return made

    def test_its_claims_carry_the_registration(self) -> None:
        self.request()
        spy = Spy()
        self.start(spy)
        self.wait_for_status('available')
        ((*_, claim, _),) = spy.seen
        self.assertEqual(1, claim.registration)

    def test_it_claims_no_more(self) -> None:
        self.start()
        self.register()
        self.wait_for(lambda: 'no more work' in self.log.output)
        self.request(3)
        time.sleep(0.2)
        self.assertEqual(3, len(self.rows(is_claimed=False)))

    def test_its_other_threads_give_up_and_write_nothing(self) -> None:
        self.override(concurrency=2)
        self.request()
        spy = Spy(until_stopped)
        self.start(spy)
        self.assertTrue(spy.begun.acquire(timeout=60))
        self.register()
        self.wait_for(lambda: 'the write was refused' in self.log.output)
        (row,) = self.rows(status='requested', is_claimed=False)
        self.assertEqual(2, row.generation)

    def test_what_its_successor_holds_is_left_to_it(self) -> None:
        """Also where it does not know what it has claimed itself."""
        (resource_id,) = self.request()
        lost = exception.CommitUnknown(
            function='resource_claim_next', operation='x', known='lost'
        )
        successor: list[Any] = []

        def claim_next(*args: Any, **kwargs: Any) -> Any:
            new = self.register()
            successor.append(
                db.api.resource_claim(
                    self.context, resource_id, new.id, new.registration
                )
            )
            raise lost

        self.useFixture(
            plain_fixtures.MonkeyPatch(
                'myservice.db.api.resource_claim_next', claim_next
            )
        )
        made = self.start()
        self.wait_for(lambda: 'no more work' in self.log.output)
        made.end()
        self.assertEqual(2, successor[0].registration)
        db.api.resource_update(
            self.context, resource_id, {'status': 'x'}, claim=successor[0]
        )


class TestAgentOfItsLastLife(WorkTestCase):
    def test_what_it_had_claimed_is_free_again(self) -> None:
        """It came back so soon that nobody took it for dead."""
        self.database.conf.set_override('report_interval', 0.1, 'service')
        identity = {'host': 'h', 'binary': 'b'}
        service = db.api.service_register(self.context, identity)
        (resource_id,) = self.request()
        db.api.resource_claim(self.context, resource_id, service.id)
        self.override(worker_seconds=0)
        process = Agent(self.database.conf, identity)
        thread = threading.Thread(target=process.run)
        thread.start()
        self.addCleanup(thread.join, 20)
        self.addCleanup(process.stop)
        (row,) = self.wait_for_status('available')
        self.assertEqual(UNDISTURBED + 2, row.generation)
        self.assertEqual(
            service.id,
            db.api.service_get_by_host_and_binary(
                context.get_admin_context(), 'h', 'b'
            ).id,
        )

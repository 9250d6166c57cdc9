"""Turns: in the order of asking, whoever is interrupted."""

import contextlib
import contextvars
import gc
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.db.engine import fair_lock
from myservice.db.transaction import contention
from myservice.tests import base
from myservice.tests import factories
from myservice.tests import interrupts

# Longer than any thread has to wait here, and than a slow machine takes.
LONG = 60


class Interrupted(BaseException):
    """What the handler of a signal raises, or one thread in another."""


def take(turns: fair_lock.Turns, timeout: float = LONG) -> fair_lock.Place:
    place = fair_lock.Place(turns)
    if not place.take(timeout):
        raise TimeoutError
    return place


def in_thread(function: Any) -> Any:
    """Start a thread, and return what waits for what it returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(LONG)
        return results[0] if results else TimeoutError()

    return result


@contextlib.contextmanager
def held(turns: fair_lock.Turns) -> Iterator[threading.Event]:
    """Let another thread have the turn, until the block sets the event."""
    has, over = threading.Event(), threading.Event()

    def hold() -> None:
        place = take(turns)
        has.set()
        over.wait(LONG)
        place.leave()

    wait = in_thread(hold)
    has.wait(LONG)
    try:
        yield over
    finally:
        over.set()
        wait()


def wait_until_so_many_wait(turns: fair_lock.Turns, count: int) -> None:
    give_up = time.monotonic() + LONG
    while len(turns.queue) <= count and time.monotonic() < give_up:
        time.sleep(0.001)


class TestTurns(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.turns = fair_lock.Turns('it')

    def is_free(self) -> bool:
        """Return whether a new thread gets the turn, and gives it back."""
        place = in_thread(lambda: take(self.turns))()
        if not isinstance(place, fair_lock.Place):
            return False
        place.leave()
        return not self.turns.queue

    def test_they_come_in_the_order_of_asking(self) -> None:
        order: list[int] = []

        def wait(number: int) -> None:
            place = take(self.turns)
            order.append(number)
            place.leave()

        with held(self.turns) as over:
            waiting = []
            for number in range(8):
                waiting.append(in_thread(lambda n=number: wait(n)))
                wait_until_so_many_wait(self.turns, number + 1)
            over.set()
            for result in waiting:
                self.assertIsNone(result())
        self.assertEqual(list(range(8)), order)
        self.assertTrue(self.is_free())

    def test_who_has_waited_for_too_long_gives_up_their_place(self) -> None:
        with held(self.turns):
            place = fair_lock.Place(self.turns)
            self.assertFalse(place.take(0.01))
            self.assertEqual(1, len(self.turns.queue))
        self.assertTrue(self.is_free())

    def test_to_leave_twice_ends_nobody_elses_turn(self) -> None:
        place = take(self.turns)
        place.leave()
        with held(self.turns):
            place.leave()
            self.assertFalse(fair_lock.Place(self.turns).take(0.01))

    def test_who_is_gone_has_left(self) -> None:
        with held(self.turns) as over:
            first = fair_lock.Place(self.turns)
            self.turns.queue.append(first._ref)
            result = in_thread(lambda: take(self.turns).leave())
            wait_until_so_many_wait(self.turns, 2)
            del first
            over.set()
            self.assertIsNone(result())
        self.assertTrue(self.is_free())

    def test_who_was_told_and_is_gone_holds_up_nobody(self) -> None:
        place = take(self.turns)
        result = in_thread(lambda: take(self.turns).leave())
        wait_until_so_many_wait(self.turns, 1)
        # Without a word to those who wait, as by an interrupt in leave().
        del place
        self.assertIsNone(result())


class TestOwnTurn(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.turns = fair_lock.Turns('it')

    def test_nobody_waits_for_their_own_thread(self) -> None:
        place = take(self.turns)
        self.assertRaises(exception.WouldWaitForItself, take, self.turns)
        self.assertEqual(1, len(self.turns.queue))
        place.leave()
        take(self.turns).leave()

    def test_who_uses_it_is_who_has_it(self) -> None:
        place = take(self.turns)
        in_thread(place.use)()
        with self.ends_soon(place):
            take(self.turns).leave()

    def test_other_work_on_the_same_thread_waits(self) -> None:
        place = contextvars.Context().run(take, self.turns)
        with self.ends_soon(place):
            contextvars.Context().run(take, self.turns).leave()

    def test_a_copy_of_the_context_is_the_same_work(self) -> None:
        place = take(self.turns)
        copied = contextvars.copy_context()
        self.assertRaises(
            exception.WouldWaitForItself, copied.run, take, self.turns
        )
        place.leave()

    def test_what_was_used_before_is_not_what_is_used_now(self) -> None:
        def before() -> contextvars.Context:
            take(self.turns).leave()
            return contextvars.copy_context()

        earlier = contextvars.Context().run(before)
        place = contextvars.Context().run(take, self.turns)
        with self.ends_soon(place):
            earlier.run(take, self.turns).leave()

    def test_garbage_holds_nothing(self) -> None:
        class Holder:
            def __init__(self, place: fair_lock.Place) -> None:
                self.place, self.me = place, self

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        Holder(take(self.turns))
        self.assertEqual(1, len(self.turns.queue))
        take(self.turns).leave()

    def test_a_handler_does_not_wait_for_who_waits_below_it(self) -> None:
        errors: list[Any] = []

        def handle(*_: Any) -> None:
            try:
                take(self.turns)
            except exception.WouldWaitForItself as error:
                errors.append(error)
            over.set()

        self.addCleanup(signal.signal, signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, handle)
        with held(self.turns) as over:

            def send() -> None:
                wait_until_so_many_wait(self.turns, 1)
                os.kill(os.getpid(), signal.SIGUSR1)

            sent = in_thread(send)
            take(self.turns).leave()
            sent()
        self.assertEqual(1, len(errors))

    @contextlib.contextmanager
    def ends_soon(self, place: fair_lock.Place) -> Iterator[None]:
        def end() -> None:
            wait_until_so_many_wait(self.turns, 1)
            place.leave()

        wait = in_thread(end)
        yield
        wait()


class TestFork(base.TestCase):
    def test_a_child_has_turns_of_its_own(self) -> None:
        turns = fair_lock.Turns('it')
        with held(turns):
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    take(turns, 1)
                    os._exit(0)
                os._exit(1)
            _, status = os.waitpid(child, 0)
        self.assertEqual(0, os.waitstatus_to_exitcode(status))


class Closing:
    """Ends a turn in its finalizer, as a connection does."""

    def __init__(self, place: fair_lock.Place) -> None:
        self.place = place
        self.me = self

    def __del__(self) -> None:
        self.place.leave()


class TestInterrupts(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.turns = fair_lock.Turns('it')
        self.taken = 0
        self.over = False

    def work(self) -> None:
        """Take a turn, as those do who use turns, and give it back."""
        place = fair_lock.Place(self.turns)
        try:
            if place.take(LONG):
                self.taken += 1
        finally:
            place.leave()

    def test_who_is_interrupted_at_any_point_leaves_their_place(self) -> None:
        interrupt = self.useFixture(interrupts.AtAnyPoint())
        over = threading.Event()
        ready = threading.Barrier(21)

        def run() -> None:
            # What is raised outside of work() is none of this test.
            with contextlib.suppress(Interrupted):
                ready.wait()
            while not over.is_set():
                with contextlib.suppress(Interrupted):
                    self.work()

        threads = [threading.Thread(target=run) for _ in range(20)]
        for thread in threads:
            thread.start()
        ready.wait()
        give_up = time.monotonic() + 3
        while time.monotonic() < give_up:
            interrupt.raise_in(random.choice(threads), Interrupted)
            time.sleep(random.choice((0, 0.0001, 0.001)))
        over.set()
        for thread in threads:
            thread.join(LONG)
        self.assertIsInstance(
            in_thread(lambda: take(self.turns))(), fair_lock.Place
        )
        self.assertGreater(self.taken, 100)

    def test_a_signal_at_any_point_leaves_nobody_waiting(self) -> None:
        handled = 0

        def handle(*_: Any) -> None:
            # Python swallows what is raised inside of a finalizer, and no
            # other signal comes.
            nonlocal handled
            handled += 1
            raise Interrupted

        interrupt = self.useFixture(interrupts.AtAnyPoint(handle))
        others = [in_thread(self.repeat) for _ in range(4)]
        for number in range(1, 300):
            with contextlib.suppress(Interrupted):
                interrupt.after(random.uniform(1e-6, 1e-3))
                while handled < number:
                    self.work()
        self.over = True
        for wait in others:
            wait()
        self.assertIsInstance(
            in_thread(lambda: take(self.turns))(), fair_lock.Place
        )

    def repeat(self) -> None:
        while not self.over:
            self.work()

    def test_finalizers_in_the_middle_of_it_wait_for_nobody(self) -> None:
        self.useFixture(interrupts.AtAnyPoint())
        threshold = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *threshold)
        gc.set_threshold(1)
        other = fair_lock.Turns('it')

        def work() -> None:
            for _ in range(200):
                for turns in (other, self.turns):
                    # What another thread is just collecting is not garbage
                    # to this one.
                    with contextlib.suppress(exception.WouldWaitForItself):
                        Closing(take(turns))

        waiting = [in_thread(work) for _ in range(4)]
        self.assertEqual([None] * 4, [wait() for wait in waiting])
        gc.collect()
        self.assertEqual(0, len(self.turns.queue) + len(other.queue))


class TestHandlers(base.DatabaseTestCase):
    """Handlers of signals that call in the middle of a call."""

    def repeat(self, call: Any, handle: Any) -> None:
        """Repeat a call, in which signals come at any point."""
        handled = 0

        def count(*_: Any) -> None:
            nonlocal handled
            handled += 1
            handle()

        interrupt = self.useFixture(interrupts.AtAnyPoint(count))
        for number in range(1, 300):
            interrupt.after(random.uniform(1e-6, 1e-3))
            while handled < number:
                call()

    def test_of_another_context(self) -> None:
        service = factories.create_service()
        other = context.get_admin_context()

        def call() -> None:
            db.api.service_get(self.context, service.id)

        def handle() -> None:
            db.api.service_get(other, service.id)
            db.api.statistics()

        # SQLAlchemy has a lock where it opens a connection.
        with db.api.get_engine().connect():
            handle()
        self.repeat(call, handle)

    def test_of_the_context_of_an_open_transaction(self) -> None:
        def join() -> None:
            db.api.get_session(self.context)

        with db.api.transaction(self.context):
            self.repeat(join, join)


class TestCollisions(base.DatabaseTestCase):
    def most_at_once(self, collisions: contention.Collisions) -> int:
        inside, most = 0, 0
        lock = threading.Lock()

        def attempt() -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

        self.in_threads(8, lambda _: collisions.avoid(attempt))
        return most

    def test_attempts_go_in_single_file_for_a_while(self) -> None:
        collisions = contention.Collisions()
        self.assertTrue(self.most_at_once(collisions) > 1)
        collisions.note(10)
        self.assertEqual(1, self.most_at_once(collisions))
        collisions = contention.Collisions()
        collisions.note(0)
        self.assertTrue(self.most_at_once(collisions) > 1)

    def test_an_attempt_inside_of_another_one_goes_in_its_turn(self) -> None:
        collisions = contention.Collisions()
        collisions.note(10)
        order: list[str] = []

        def outer() -> None:
            collisions.avoid(lambda: order.append('inner'))
            order.append('outer')

        started = time.monotonic()
        collisions.avoid(outer)
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(['inner', 'outer'], order)

    def test_who_is_interrupted_ends_their_turn(self) -> None:
        collisions = contention.Collisions()
        collisions.note(10)

        def attempt() -> None:
            raise Interrupted

        self.assertRaises(Interrupted, collisions.avoid, attempt)
        self.assertEqual(1, self.most_at_once(collisions))

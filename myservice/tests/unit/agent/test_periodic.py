"""Periodic tasks: when they run, and what stops them."""

import threading
import time

from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice.agent import periodic
from myservice.agent.process import Agent
from myservice.tests import base


class TestPeriodicTasks(base.TestCase):
    def start(self, *tasks: tuple[float, periodic.Task]) -> None:
        self.tasks = periodic.PeriodicTasks(
            [
                (lambda seconds=seconds: seconds, task)
                for seconds, task in tasks
            ]
        )
        self.tasks.start()
        self.addCleanup(self.tasks.stop)

    def test_each_comes_as_often_as_its_interval_says(self) -> None:
        often: list[float] = []
        seldom: list[float] = []
        done = threading.Event()

        def note_often(ctx: context.RequestContext) -> None:
            self.assertTrue(ctx.is_admin)
            often.append(time.monotonic())
            if len(often) == 10:
                done.set()

        started = time.monotonic()
        self.start(
            (0.05, note_often),
            (60, lambda ctx: seldom.append(time.monotonic())),
        )
        self.assertTrue(done.wait(5))
        self.assertTrue(often[0] - started >= 0.05)
        self.assertTrue(often[9] - started >= 0.5)
        self.assertEqual([], seldom)

    def test_one_that_fails_comes_again_and_the_others_too(self) -> None:
        calls: list[str] = []
        done = threading.Event()

        def fail(ctx: context.RequestContext) -> None:
            calls.append('fail')
            raise (db_exception.DBError, ValueError)[len(calls) % 2]

        def succeed(ctx: context.RequestContext) -> None:
            calls.append('succeed')
            if calls.count('fail') >= 3:
                done.set()

        self.start((0.02, fail), (0.02, succeed))
        self.assertTrue(done.wait(5), calls)

    def test_stopped_it_begins_no_other(self) -> None:
        calls: list[int] = []
        self.start((0.05, lambda ctx: calls.append(1)))
        self.tasks.stop()
        time.sleep(0.2)
        self.assertEqual([], calls)


class TestTasksOfTheAgent(base.DatabaseTestCase):
    def test_it_purges_and_expires(self) -> None:
        process = Agent(self.database.conf, {})
        self.assertEqual(
            [
                (3600, db.api.purge_operations),
                (3600, db.api.reservation_purge),
                (600, db.api.reservation_expire),
            ],
            [
                (interval(), task)
                for interval, task in process._periodic_tasks._tasks
            ],
        )

"""Thousands of calls whose COMMIT replies get lost: each happens once."""

import random
import time
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import servers
from myservice.tests import factories
from myservice.tests import proxy
from myservice.tests.functional import base

CALLS = 1000
THREADS = 16
LOST = 0.2


class ExactlyOnceTestCase(base.ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.before = db.api.statistics()
        self.proxy = self.use_proxy()

    def lose(self, action: proxy.Action) -> None:
        """Let one in five of what commits be lost in some way."""
        chance = random.Random(1)

        def decide(command: proxy.Command) -> proxy.Action | None:
            commits = command.kind == 'commit' or command.sql.startswith(
                'INSERT INTO services'
            )
            if commits and chance.random() < LOST:
                return action
            return None

        self.proxy.decide = decide

    def work(self, function: Any) -> None:
        """Make all calls from several threads, then let late ones arrive."""

        def share(number: int) -> None:
            for call in range(number, CALLS, THREADS):
                function(call)

        results = self.in_threads(THREADS, share)
        self.assertEqual([None] * THREADS, results)
        time.sleep(1)
        self.proxy.decide = lambda command: None
        after = db.api.statistics()
        resolved = after.in_doubt_resolved - self.before.in_doubt_resolved
        self.assertTrue(resolved > CALLS * LOST / 2, resolved)
        self.assertEqual(
            self.before.in_doubt_unresolved, after.in_doubt_unresolved
        )

    def pairs(self) -> None:
        ids: list[str] = []

        def create_and_destroy(call: int) -> None:
            ctx = context.get_admin_context()
            made = db.api.service_create(
                ctx, {'host': f'h{call}', 'binary': 'b'}
            )
            ids.append(made.id)
            db.api.service_destroy(ctx, made.id)

        self.work(create_and_destroy)
        self.assertEqual([], db.api.service_get_all(self.context))
        gone = db.api.service_get_all(
            context.get_admin_context(read_deleted='only')
        )
        self.assertEqual(sorted(ids), [row.id for row in gone])
        self.assertEqual(CALLS, len(set(ids)))

    def transfers(self) -> None:
        """Move numbers between counters, which versions of services are."""
        counters = [factories.create_service(version=1000) for _ in range(40)]
        moved = [0] * len(counters)
        chance = random.Random(2)
        plan = [
            (*sorted(chance.sample(range(40), 2)), chance.randrange(1, 9))
            for _ in range(CALLS)
        ]
        for source, target, amount in plan:
            moved[source] -= amount
            moved[target] += amount

        def transfer(
            ctx: context.RequestContext, source: str, target: str, amount: int
        ) -> int:
            one = db.api.service_get(ctx, source)
            two = db.api.service_get(ctx, target)
            for row, change in ((one, -amount), (two, amount)):
                values = {'version': row.version + change}
                db.api.service_update(ctx, row.id, values)
            return amount

        def call(number: int) -> None:
            source, target, amount = plan[number]
            result = db.api.run_in_transaction(
                context.get_admin_context(),
                transfer,
                counters[source].id,
                counters[target].id,
                amount,
            )
            self.assertEqual(amount, result)

        self.work(call)
        self.assertEqual(
            [1000 + change for change in moved],
            [row.version for row in db.api.service_get_all(self.context)],
        )
        with self.database.engine().connect() as connection:
            self.assertEqual(
                CALLS,
                connection.scalar(sa.text('SELECT COUNT(*) FROM operations')),
            )

    def both(self, action: proxy.Action) -> None:
        self.lose(action)
        self.pairs()
        self.before = db.api.statistics()
        self.lose(action)
        self.transfers()


class TestMariaDB(ExactlyOnceTestCase):
    server_class = servers.MariaDB

    def test_replies_of_commit_are_lost(self) -> None:
        self.both(proxy.DropAfter())

    def test_commits_arrive_late(self) -> None:
        self.both(proxy.DeliverLate(0.6))


class TestPostgreSQL(ExactlyOnceTestCase):
    server_class = servers.PostgreSQL

    def test_replies_of_commit_are_lost(self) -> None:
        self.both(proxy.DropAfter())

    def test_commits_arrive_late(self) -> None:
        self.both(proxy.DeliverLate(0.6))

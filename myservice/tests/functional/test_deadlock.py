"""Real deadlocks and conflicts: the whole transaction, or none of it."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice import servers
from myservice.db import models
from myservice.db.transaction import retry
from myservice.tests import factories
from myservice.tests.functional import base

SERVICES = models.Service.__table__


def set_version(row_id: str, version: int) -> sa.Update:
    return (
        sa.update(SERVICES)
        .where(SERVICES.c.id == row_id)
        .values(version=version)
    )


class OuterAndInner(base.ServerTestCase):
    """An outer transaction writes row A; an inner call fails on row B.

    With a retry inside of the transaction, as cinder has it, the inner write
    would be committed and the outer one silently lost.
    """

    def setUp(self) -> None:
        super().setUp()
        self.a = factories.create_service(version=0)
        self.b = factories.create_service(version=0)
        self.attempts = 0
        self.changes = 0

    def versions(self) -> tuple[int, int]:
        a, b = db.api.service_get_all(self.context)
        return a.version, b.version

    def work(self, ctx: context.RequestContext, meet: Any) -> None:
        self.attempts += 1
        db.api.service_update(ctx, self.a.id, {'version': 1})
        if self.attempts == 1:
            meet()
        db.api.service_update(ctx, self.b.id, {'version': 1})

    def plainly(self, meet: Any) -> None:
        with db.api.transaction(self.context):
            self.work(self.context, meet)

    def check_all_or_nothing(self, conflict: Any) -> None:
        with conflict() as meet:
            self.assertRaises(
                (db_exception.DBDeadlock, exception.TransactionDoomed),
                self.plainly,
                meet,
            )
        a, b = self.versions()
        self.assertEqual((0, 1), (a, int(b != 1)))
        self.attempts = 0
        with conflict() as meet:
            db.api.run_in_transaction(self.context, self.work, meet)
        self.assertEqual(2, self.attempts)
        self.assertEqual((1, 1), self.versions())

    def check_old_snapshot(self, kind: type[Exception]) -> None:
        """The layer's own transactions are READ COMMITTED and see no such
        thing; one that somebody opens at REPEATABLE READ does."""
        level = {'isolation_level': 'REPEATABLE READ'}

        def with_snapshot(ctx: context.RequestContext) -> None:
            with db.api.transaction(ctx) as session:
                session.connection(execution_options=level)
                session.execute(sa.select(SERVICES)).all()
                self.work(ctx, self.change_b)

        self.assertRaises(kind, with_snapshot, self.context)
        self.assertEqual((0, 50), self.versions())
        self.attempts = 0
        before = db.api.statistics().retries.get(kind.__name__, 0)
        retry.retry_on_failure(with_snapshot)(self.context)
        self.assertEqual((2, (1, 1)), (self.attempts, self.versions()))
        self.assertEqual(
            before + 1, db.api.statistics().retries[kind.__name__]
        )

    def change_b(self) -> None:
        self.changes += 1
        with self.database.engine().begin() as other:
            other.execute(set_version(self.b.id, 49 + self.changes))

    @contextlib.contextmanager
    def deadlock(self) -> Iterator[Any]:
        """Another transaction has B and wants A when we want B.

        It has written more, so the servers choose us as the victim.
        """
        engine = self.database.engine()
        with engine.connect() as other:
            other.execute(set_version(self.b.id, 50))
            for _ in range(50):
                other.execute(
                    sa.insert(models.Operation.__table__), {'attempt': 0}
                )
            wants = threading.Thread(
                target=self.finish, args=(other, self.a.id)
            )

            def meet() -> None:
                wants.start()
                # It has to wait for A before we ask for B. PostgreSQL lets
                # the one that finds the deadlock die: that is who waits
                # longer than deadlock_timeout first, so it waits longer.
                time.sleep(0.3)

            yield meet
            wants.join()

    def finish(self, other: sa.Connection, row_id: str) -> None:
        # Only until it may: then what it did is undone.
        try:
            other.execute(set_version(row_id, 50))
        finally:
            other.rollback()

    @contextlib.contextmanager
    def long_lock(self) -> Iterator[Any]:
        """Another transaction holds B for longer than we may wait."""
        with self.database.engine().connect() as other:
            other.execute(set_version(self.b.id, 50))
            let_go = threading.Timer(1.5, other.rollback)
            yield let_go.start
            let_go.join()


class TestMariaDB(OuterAndInner):
    server_class = servers.MariaDB
    settings = {'innodb_lock_wait_timeout': 1}

    def test_deadlock_1213(self) -> None:
        self.check_all_or_nothing(self.deadlock)

    def test_lock_wait_timeout_1205(self) -> None:
        self.check_all_or_nothing(self.long_lock)

    def test_a_swallowed_deadlock_commits_nothing(self) -> None:
        def swallow(ctx: context.RequestContext, meet: Any) -> None:
            with contextlib.suppress(db_exception.DBDeadlock):
                self.work(ctx, meet)

        def plainly(meet: Any) -> None:
            with db.api.transaction(self.context):
                swallow(self.context, meet)

        for conflict in (self.deadlock, self.long_lock):
            self.attempts = 0
            with conflict() as meet:
                self.assertRaises(exception.TransactionDoomed, plainly, meet)
            self.assertEqual((0, 0), self.versions())
        self.attempts = 0
        with self.long_lock() as meet:
            db.api.run_in_transaction(self.context, swallow, meet)
        self.assertEqual((2, (1, 1)), (self.attempts, self.versions()))

    def test_a_deadlock_in_a_savepoint_takes_all_of_it(self) -> None:
        between = self.use_proxy()

        def part(meet: Any) -> None:
            with db.api.savepoint(self.context):
                self.work(self.context, meet)

        def plainly(meet: Any) -> None:
            with db.api.transaction(self.context):
                db.api.service_update(self.context, self.a.id, {'topic': 'x'})
                between.clear()
                self.assertRaises(db_exception.DBDeadlock, part, meet)
                # To go on would be to work outside of the transaction.
                self.assertRaises(
                    exception.TransactionDoomed,
                    db.api.service_get_all,
                    self.context,
                )

        with self.deadlock() as meet:
            self.assertRaises(exception.TransactionDoomed, plainly, meet)
        rollbacks = [
            command.sql
            for command in between.commands
            if 'ROLLBACK TO' in command.sql.upper()
        ]
        self.assertEqual([], rollbacks)
        self.assertEqual((0, 0), self.versions())

    def test_a_lock_wait_timeout_in_a_savepoint_leaves_the_rest(self) -> None:
        def part(meet: Any) -> None:
            with db.api.savepoint(self.context):
                self.work(self.context, meet)

        with self.long_lock() as meet, db.api.transaction(self.context):
            db.api.service_update(self.context, self.a.id, {'topic': 'x'})
            self.assertRaises(db_exception.DBDeadlock, part, meet)
        self.assertEqual((0, 0), self.versions())
        self.assertEqual(
            'x', db.api.service_get(self.context, self.a.id).topic
        )


class TestMariaDBSnapshotIsolation(OuterAndInner):
    server_class = servers.MariaDB
    settings = {
        'innodb_snapshot_isolation': 'ON',
        'innodb_lock_wait_timeout': 1,
    }

    def test_record_has_changed_1020(self) -> None:
        self.check_old_snapshot(db_exception.DBConsistencyError)

    def test_deadlock_1213(self) -> None:
        self.check_all_or_nothing(self.deadlock)


class TestPostgreSQL(OuterAndInner):
    server_class = servers.PostgreSQL
    settings = {'deadlock_timeout': '100ms', 'lock_timeout': '1s'}

    def test_deadlock_40P01(self) -> None:
        self.check_all_or_nothing(self.deadlock)

    def test_lock_not_available_55P03(self) -> None:
        self.check_all_or_nothing(self.long_lock)

    def test_serialization_failure_40001(self) -> None:
        self.check_old_snapshot(db_exception.DBDeadlock)

    def test_a_swallowed_error_is_no_silent_rollback(self) -> None:
        """PostgreSQL answers ROLLBACK to such a COMMIT, and no error."""

        def plainly(meet: Any) -> None:
            with (
                db.api.transaction(self.context),
                contextlib.suppress(db_exception.DBDeadlock),
            ):
                self.work(self.context, meet)

        with self.long_lock() as meet:
            self.assertRaises(exception.TransactionDoomed, plainly, meet)
        self.assertEqual((0, 0), self.versions())


class Contention(base.ServerTestCase):
    """Sixteen threads read, decide and write the same four rows."""

    threads = 16
    rounds = 25

    def hold_connections(self, _: int) -> None:
        for form in ('read', 'snapshot', 'transaction'):
            if self.server_class is not None or form != 'transaction':
                with self.database.engine(form).connect():
                    time.sleep(0.5)

    def check(self) -> None:
        # What it costs to open connections is not what is measured.
        self.database.configure(max_pool_size=self.threads)
        self.in_threads(self.threads, self.hold_connections)
        rows = [factories.create_service(version=0).id for _ in range(4)]
        times: list[float] = []

        def add_to_two(
            ctx: context.RequestContext, first: str, second: str
        ) -> None:
            for row_id in (first, second):
                row = db.api.service_get(ctx, row_id)
                db.api.service_update(
                    ctx, row_id, {'version': row.version + 1}
                )

        def work(number: int) -> None:
            for turn in range(self.rounds):
                first = rows[(number + turn) % 4]
                second = rows[(number + turn + 1 + turn % 3) % 4]
                started = time.monotonic()
                db.api.run_in_transaction(
                    context.get_admin_context(), add_to_two, first, second
                )
                times.append(time.monotonic() - started)

        results = self.in_threads(self.threads, work)
        self.assertEqual([None] * self.threads, results)
        total = sum(
            row.version for row in db.api.service_get_all(self.context)
        )
        self.assertEqual(self.threads * self.rounds * 2, total)
        times.sort()
        median = statistics.median(times)
        p99 = times[int(len(times) * 0.99)]
        print(
            f'{type(self).__name__}: median {median * 1000:.1f} ms, '
            f'p99 {p99 * 1000:.1f} ms'
        )
        self.assertTrue(p99 < 20 * median, (p99, median))


class TestContentionMariaDB(Contention):
    server_class = servers.MariaDB

    def test_no_update_is_lost(self) -> None:
        self.check()


class TestContentionMariaDBSnapshotIsolation(Contention):
    server_class = servers.MariaDB
    settings = {'innodb_snapshot_isolation': 'ON'}

    def test_no_update_is_lost(self) -> None:
        self.check()


class TestContentionPostgreSQL(Contention):
    server_class = servers.PostgreSQL
    # Its default is a second, of which each deadlock would cost one.
    settings = {'deadlock_timeout': '10ms'}

    def test_no_update_is_lost(self) -> None:
        self.check()


class TestContentionSQLite(Contention):
    server_class = None

    def test_no_update_is_lost(self) -> None:
        self.check()

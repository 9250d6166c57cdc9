"""Retries: who is repeated, when, how often; and what is left in doubt."""

import logging
import time
from typing import Any
from unittest import mock

import fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db import operation
from myservice.db.transaction import retry
from myservice.tests import base
from myservice.tests import factories


class RetryTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        # The clock of the waits: they are noted and take no time.
        self.waits: list[float] = []
        self.useFixture(
            fixtures.MockPatch('time.sleep', side_effect=self.waits.append)
        )
        self.attempts = 0

    def fails(self, times: int, error: Exception | None = None) -> Any:
        """Return a function that fails some times, and then returns."""

        def body(ctx: context.RequestContext, *args: Any) -> Any:
            self.attempts += 1
            if self.attempts <= times:
                raise error or db_exception.DBDeadlock()
            return args

        return body

    def run_failing(
        self, times: int, error: Exception | None = None, **options: Any
    ) -> Any:
        self.database.configure(**options)
        self.attempts = 0
        self.waits.clear()
        return db.api.run_in_transaction(
            self.context, self.fails(times, error)
        )


class TestOptions(RetryTestCase):
    def test_db_max_retries_is_how_often_a_call_is_repeated(self) -> None:
        for retries in (0, 1, 3):
            self.run_failing(retries, db_max_retries=retries)
            self.assertEqual(retries + 1, self.attempts)
            self.assertRaises(
                db_exception.DBDeadlock,
                self.run_failing,
                retries + 1,
                db_max_retries=retries,
            )
            self.assertEqual(retries + 1, self.attempts)

    def test_db_max_retries_of_minus_one_is_without_end(self) -> None:
        self.run_failing(500, db_max_retries=-1, db_retry_deadline=0)
        self.assertEqual(501, self.attempts)

    def test_waits_start_at_ten_milliseconds_and_double(self) -> None:
        with mock.patch('random.uniform', side_effect=lambda low, high: high):
            self.run_failing(12, db_retry_deadline=0)
        self.assertEqual(
            [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64], self.waits[:7]
        )
        self.assertEqual([10.0, 10.0], self.waits[-2:])

    def test_db_retry_interval_is_the_first_wait(self) -> None:
        with mock.patch('random.uniform', side_effect=lambda low, high: high):
            self.run_failing(3, db_retry_interval=2, db_retry_deadline=0)
        self.assertEqual([2, 4, 8], self.waits)

    def test_without_db_inc_retry_interval_waits_stay_the_same(self) -> None:
        with mock.patch('random.uniform', side_effect=lambda low, high: high):
            self.run_failing(
                3, db_retry_interval=2, db_inc_retry_interval=False
            )
        self.assertEqual([2, 2, 2], self.waits)

    def test_db_max_retry_interval_is_the_longest_wait(self) -> None:
        with mock.patch('random.uniform', side_effect=lambda low, high: high):
            self.run_failing(
                3,
                db_retry_interval=2,
                db_max_retry_interval=3,
                db_retry_deadline=0,
            )
        self.assertEqual([2, 3, 3], self.waits)

    def test_waits_have_full_jitter(self) -> None:
        self.run_failing(
            100,
            db_max_retries=-1,
            db_retry_interval=1,
            db_inc_retry_interval=False,
            db_retry_deadline=0,
        )
        self.assertTrue(min(self.waits) < 0.2)
        self.assertTrue(max(self.waits) > 0.8)
        self.assertTrue(0.3 < sum(self.waits) / 100 < 0.7)

    def test_db_retry_deadline_ends_it_whatever_is_left(self) -> None:
        clock = [time.monotonic()]

        def body(ctx: context.RequestContext) -> None:
            self.attempts += 1
            clock[0] += 50
            raise db_exception.DBDeadlock

        with mock.patch('time.monotonic', side_effect=lambda: clock[0]):
            for deadline, attempts in ((120, 3), (40, 1)):
                self.database.configure(db_retry_deadline=deadline)
                self.attempts = 0
                self.assertRaises(
                    db_exception.DBDeadlock,
                    db.api.run_in_transaction,
                    self.context,
                    body,
                )
                self.assertEqual(attempts, self.attempts)

    def test_without_use_db_reconnect_a_lost_connection_is_final(self) -> None:
        lost = db_exception.DBConnectionError()
        self.run_failing(1, lost, use_db_reconnect=True)
        self.assertEqual(2, self.attempts)
        self.assertRaises(
            db_exception.DBConnectionError,
            self.run_failing,
            1,
            lost,
            use_db_reconnect=False,
        )
        self.run_failing(1, use_db_reconnect=False)

    def test_operation_lifetime_is_how_long_an_operation_is_kept(
        self,
    ) -> None:
        for _ in range(3):
            self.run_failing(0)
        self.assertEqual(0, db.api.purge_operations(self.context))
        table = models.Operation.__table__
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(table).values(created_at=sa.text("'2020-01-01'"))
            )
        self.run_failing(0, operation_lifetime=3600)
        self.assertEqual(3, db.api.purge_operations(self.context, 2))
        with self.database.engine().begin() as connection:
            left = connection.scalar(sa.select(sa.func.count(table.c.id)))
        self.assertEqual(1, left)


class TestOwners(RetryTestCase):
    def test_transient_errors_are_repeated_and_others_are_not(self) -> None:
        for error in (
            db_exception.DBDeadlock(),
            db_exception.DBConsistencyError(),
            db_exception.DBConnectionError(),
            exception.ServerBusy(reason='x'),
            exception.ServerReadOnly(reason='x'),
            exception.StatementInterrupted(reason='x'),
        ):
            self.run_failing(1, error)
            self.assertEqual(2, self.attempts)
        for error in (
            ValueError(),
            db_exception.DBError(),
            db_exception.DBDataError(),
            db_exception.DBDuplicateEntry(),
            exception.ServiceNotFound(service_id='x'),
            exception.NoSpace(reason='x'),
            exception.PoolTimeout(timeout=1, held=1),
        ):
            self.assertRaises(type(error), self.run_failing, 1, error)
            self.assertEqual(1, self.attempts)

    def test_each_attempt_starts_from_nothing(self) -> None:
        def body(ctx: context.RequestContext) -> int:
            self.attempts += 1
            db.api.service_create(ctx, {'host': 'h', 'binary': 'b'})
            if self.attempts < 3:
                raise db_exception.DBDeadlock
            return len(db.api.service_get_all(ctx))

        self.assertEqual(1, db.api.run_in_transaction(self.context, body))

    def test_a_call_that_joined_is_not_repeated_but_its_owner_is(self) -> None:
        service = factories.create_service()
        owner_attempts = 0
        deadlock = db_exception.DBDeadlock()

        def body(ctx: context.RequestContext) -> None:
            nonlocal owner_attempts
            owner_attempts += 1
            with mock.patch.object(
                exception,
                'ServiceNotFound',
                side_effect=[deadlock] if owner_attempts == 1 else None,
            ):
                db.api.service_heartbeat(
                    ctx, 'nobody' if owner_attempts == 1 else service.id
                )

        db.api.run_in_transaction(self.context, body)
        self.assertEqual(2, owner_attempts)
        self.assertEqual(1, len(self.waits))

    def test_a_plain_transaction_raises_and_is_not_repeated(self) -> None:
        def work() -> None:
            with db.api.transaction(self.context):
                self.attempts += 1
                raise db_exception.DBDeadlock

        self.assertRaises(db_exception.DBDeadlock, work)
        self.assertEqual((1, []), (self.attempts, self.waits))

    def test_inside_a_transaction_run_in_transaction_joins(self) -> None:
        def work() -> None:
            with db.api.transaction(self.context):
                db.api.run_in_transaction(self.context, self.fails(1))

        self.assertRaises(db_exception.DBDeadlock, work)
        self.assertEqual(1, self.attempts)

    def test_a_deadlock_that_was_swallowed_is_repeated(self) -> None:
        def body(ctx: context.RequestContext) -> None:
            self.attempts += 1
            with db.api.transaction(ctx) as session:
                if self.attempts == 1:
                    session.failures.append(db_exception.DBDeadlock())

        db.api.run_in_transaction(self.context, body)
        self.assertEqual(2, self.attempts)

    def test_arguments_reach_each_attempt_unchanged(self) -> None:
        values = {'host': 'h', 'binary': 'b', 'version': 3}
        seen = []

        def body(ctx: context.RequestContext, given: Any, *, key: str) -> None:
            seen.append((dict(given), key))
            db.api.service_create(ctx, given)
            if len(seen) < 3:
                raise db_exception.DBDeadlock

        db.api.run_in_transaction(self.context, body, values, key='k')
        unchanged = {'host': 'h', 'binary': 'b', 'version': 3}
        self.assertEqual([(unchanged, 'k')] * 3, seen)
        self.assertEqual(unchanged, values)

    def test_each_attempt_sees_the_same_operation(self) -> None:
        seen = []

        def body(_: object) -> None:
            now = operation.current()
            seen.append((now.id, now.id_for('a'), now.id_for('b')))
            if len(seen) < 3:
                raise db_exception.DBDeadlock

        db.api.run_in_transaction(self.context, body)
        db.api.run_in_transaction(self.context, body)
        self.assertEqual(2, len(set(seen)))
        self.assertEqual(6, len({uuid for ids in seen for uuid in ids}))

    def test_atomic_is_the_form_of_a_decorator(self) -> None:
        @db.api.atomic
        def work(ctx: context.RequestContext, host: str, *, fail: int) -> str:
            """Documented."""
            self.attempts += 1
            db.api.service_create(ctx, {'host': host, 'binary': 'b'})
            if self.attempts <= fail:
                raise db_exception.DBDeadlock
            return host

        self.assertEqual('h', work(self.context, 'h', fail=2))
        self.assertEqual(3, self.attempts)
        self.assertEqual(
            ('work', 'Documented.'), (work.__name__, work.__doc__)
        )

    def test_a_function_gets_the_context_first(self) -> None:
        run = db.api.run_in_transaction
        self.assertIs(self.context, run(self.context, lambda ctx: ctx))
        self.assertEqual(7, run(self.context, lambda ctx, x: x, 7))
        self.assertEqual(
            (None, 7), run(self.context, lambda ctx, a=None, b=0: (a, b), b=7)
        )
        self.assertRaises(TypeError, run, self.context, lambda: 5)


class TestWhatIsKnown(RetryTestCase):
    def test_each_retry_is_logged_once_as_a_warning(self) -> None:
        log = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))

        def named(ctx: context.RequestContext) -> None:
            self.fails(2)(ctx)

        db.api.run_in_transaction(self.context, named)
        lines = log.output.splitlines()
        self.assertEqual(2, len(lines), lines)
        for number, line in enumerate(lines, 1):
            self.assertRegex(
                line,
                rf'^named: attempt {number} failed and is repeated in '
                r'0\.\d+ seconds: ',
            )

    def test_statistics_count_calls_and_retries(self) -> None:
        before = db.api.statistics()
        self.run_failing(3)
        db.api.service_get_all(self.context)
        after = db.api.statistics()

        def more(name: str, what: str) -> int:
            old: int = getattr(before, name).get(what, 0)
            new: int = getattr(after, name).get(what, 0)
            return new - old

        self.assertEqual(1, more('calls', 'run_in_transaction'))
        self.assertEqual(1, more('calls', 'service_get_all'))
        self.assertEqual(3, more('retries', 'DBDeadlock'))
        self.assertEqual(
            {'size': 5, 'checked_out': 0, 'overflow': 0},
            after.pools['transaction'],
        )

    def test_what_stays_in_doubt_ends_as_commit_unknown(self) -> None:
        """Whatever error a later attempt meets, the first is in doubt."""
        for later in (
            db_exception.DBConnectionError('still away'),
            exception.PoolTimeout(timeout=1, held=1),
            exception.ServiceNotFound(service_id='x'),
        ):
            self.check_doubt(later)

    def check_doubt(self, later: Exception) -> None:
        before = db.api.statistics().in_doubt_unresolved
        self.attempts = 0

        @retry.retry_on_failure
        def lost(ctx: context.RequestContext) -> None:
            self.attempts += 1
            if self.attempts > 1:
                raise later
            now = operation.current()
            raise exception.CommitUnknown(
                function=now.function, operation=now.id, known='lost'
            )

        error = self.assertRaises(exception.CommitUnknown, lost, self.context)
        self.assertEqual('lost', error.function)
        self.assertEqual(36, len(error.operation))
        self.assertIn('lost; tried again: ', error.known)
        self.assertEqual(before + 1, db.api.statistics().in_doubt_unresolved)

    def test_the_doubt_of_another_operation_is_passed_on(self) -> None:
        def other(_: object) -> None:
            self.attempts += 1
            raise exception.CommitUnknown(
                function='f', operation='other', known='lost'
            )

        error = self.assertRaises(
            exception.CommitUnknown,
            db.api.run_in_transaction,
            self.context,
            other,
        )
        self.assertEqual(('other', 1), (error.operation, self.attempts))

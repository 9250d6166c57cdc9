"""What event listeners call: it joins, or is told that it cannot."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event
from sqlalchemy import orm

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base

# The events at the end of a block in which its transaction is still open.
WHILE_OPEN = (
    'before_commit',
    'before_flush',
    'after_flush',
    'after_flush_postexec',
    'pending_to_persistent',
)
AFTER_COMMIT = ('after_commit', 'after_transaction_end')
AFTER_ROLLBACK = (
    'after_rollback',
    'after_soft_rollback',
    'after_transaction_end',
)
OF_MAPPERS = ('before_insert', 'after_insert')
OF_ENGINES = ('before_execute', 'before_cursor_execute', 'after_execute')


def create(ctx: Any) -> None:
    db.api.service_create(ctx, {'host': 'hook', 'binary': 'x'})


def create_in_block(ctx: Any) -> None:
    with db.api.transaction(ctx):
        create(ctx)


def create_in_session(ctx: Any) -> None:
    session = db.api.get_session(ctx)
    with session.begin():
        session.execute(
            sa.insert(models.Service), {'host': 'hook', 'binary': 'x'}
        )


def create_under_savepoint(ctx: Any) -> None:
    with db.api.savepoint(ctx):
        create(ctx)


def create_atomically(ctx: Any) -> None:
    db.api.run_in_transaction(ctx, create)


def create_after_refusal(ctx: Any) -> None:
    db.api.service_update(ctx, 'nowhere', {'version': 1})


def reserve(ctx: Any) -> None:
    db.api.quota_reserve(ctx, {'resources': 1}, project_id='p')


CALLS = (
    create,
    create_in_block,
    create_in_session,
    create_under_savepoint,
    create_atomically,
)


class HookTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A call that would wait for itself fails soon.
        self.database.configure(sqlite_busy_timeout=1)

    def hosts(self) -> list[str]:
        services = db.api.service_get_all(context.get_admin_context())
        return sorted(service.host for service in services)

    def listen(
        self, target: Any, name: str, call: Callable[[Any], None]
    ) -> list[Any]:
        """Let a listener make a call at its first event.

        :returns: where the listener puts what became of the call
        """
        outcomes: list[Any] = []

        def hook(*arguments: Any) -> None:
            transaction = arguments[-1]
            of_a_part = (
                isinstance(transaction, orm.SessionTransaction)
                and not transaction.nested
                and transaction.parent is not None
            )
            if outcomes or of_a_part:
                return
            outcomes.append('under way')
            try:
                call(self.context)
            except Exception as error:
                outcomes[0] = error
            else:
                outcomes[0] = 'joined'

        event.listen(target, name, hook)
        self.addCleanup(event.remove, target, name, hook)
        return outcomes

    def check_at_rest(self) -> None:
        for pool in db.api.statistics().pools.values():
            self.assertEqual(0, pool['checked_out'])
        self.assertIsNone(self.context.transaction_slot.transaction)

    def empty(self) -> None:
        with db.api.transaction(context.get_admin_context()) as session:
            session.execute(sa.delete(models.Service))
            session.execute(sa.delete(models.Operation))


def pending(number: int = 1) -> models.Operation:
    """Return an object that is written when the block ends."""
    return models.Operation(id=f'pending {number}', attempt=1)


class TestEndOfBlock(HookTestCase):
    def run_block(
        self, name: str, call: Callable[[Any], None], **options: Any
    ) -> Any:
        """End a block with something to flush; return the call's outcome."""
        with db.api.transaction(self.context, **options) as session:
            outcomes = self.listen(session, name, call)
            session.add(pending())
        (outcome,) = outcomes
        return outcome

    def test_what_listeners_write_is_committed_with_all_else(self) -> None:
        for options in ({}, {'handover': True}, {'independent': True}):
            for name in WHILE_OPEN:
                for call in CALLS:
                    case = f'{name}, {call.__name__}, {options}'
                    outcome = self.run_block(name, call, **options)
                    self.assertEqual('joined', outcome, case)
                    self.assertEqual(['hook'], self.hosts(), case)
                    self.check_at_rest()
                    self.empty()

    def test_they_may_be_the_only_ones_that_write(self) -> None:
        for call in CALLS:
            with db.api.transaction(self.context) as session:
                outcomes = self.listen(session, 'before_commit', call)
            self.assertEqual(['joined'], outcomes, call)
            self.assertEqual(['hook'], self.hosts(), call)
            self.check_at_rest()
            self.empty()

    def test_what_listeners_write_is_rolled_back_with_all_else(self) -> None:
        for name in WHILE_OPEN:
            for call in CALLS:
                self.assertRaises(
                    ZeroDivisionError, self.run_failing, name, call
                )
                self.assertEqual([], self.hosts(), f'{name}, {call}')
                self.check_at_rest()

    def run_failing(self, name: str, call: Callable[[Any], None]) -> None:
        """End a block that a later listener lets fail."""
        with db.api.transaction(self.context) as session:
            outcomes = self.listen(session, name, call)

            def fail(*_: Any) -> None:
                # Savepoints have some of these events, too.
                if outcomes != ['under way']:
                    self.assertEqual(['joined'], outcomes)
                    raise ZeroDivisionError

            event.listen(session, name, fail)
            session.add(pending())

    def test_a_flush_that_fails_takes_all_with_it(self) -> None:
        for call in CALLS:
            with (
                self.assertRaises(db_exception.DBDuplicateEntry),
                db.api.transaction(self.context) as session,
            ):
                outcomes = self.listen(session, 'before_flush', call)
                session.add_all([pending(), pending()])
            self.assertEqual(['joined'], outcomes)
            self.assertEqual([], self.hosts(), call)
            self.check_at_rest()

    def test_listeners_of_mappers_join(self) -> None:
        for name in OF_MAPPERS:
            for call in CALLS:
                with db.api.transaction(self.context) as session:
                    outcomes = self.listen(models.Operation, name, call)
                    session.add(pending())
                self.assertEqual(['joined'], outcomes, f'{name}, {call}')
                self.assertEqual(['hook'], self.hosts())
                self.check_at_rest()
                self.empty()

    def test_listeners_of_the_engine_join(self) -> None:
        engine = db.api.get_engine()
        for name in OF_ENGINES:
            outcomes: list[Any] = []
            with db.api.transaction(self.context) as session:
                session.execute(sa.select(1))

                def hook(*_: Any, outcomes: list[Any] = outcomes) -> None:
                    if not outcomes:
                        outcomes.append('joined')
                        create(self.context)

                event.listen(engine, name, hook)
                session.add(pending())
            event.remove(engine, name, hook)
            self.assertEqual((['joined'], ['hook']), (outcomes, self.hosts()))
            self.check_at_rest()
            self.empty()

    def test_after_the_commit_they_are_told_that_it_is_over(self) -> None:
        for name in AFTER_COMMIT:
            for call in CALLS:
                outcome = self.run_block(name, call)
                self.assertIsInstance(
                    outcome, exception.TransactionEnded, f'{name}, {call}'
                )
                self.assertEqual([], self.hosts())
                self.check_at_rest()
                self.empty()

    def test_in_the_commit_itself_too(self) -> None:
        for target in ('commit', 'checkin', 'reset'):
            for call in CALLS:
                engine = db.api.get_engine()
                outcomes = self.listen(engine, target, call)
                with db.api.transaction(self.context) as session:
                    session.add(pending())
                self.assertIsInstance(
                    outcomes[0], exception.TransactionEnded, f'{target} {call}'
                )
                self.assertEqual([], self.hosts())
                self.check_at_rest()
                self.database.configure()
                self.empty()

    def test_after_a_rollback_they_are_told_that_it_is_over(self) -> None:
        for name in AFTER_ROLLBACK:
            for call in CALLS:
                with (
                    self.assertRaises(ZeroDivisionError),
                    db.api.transaction(self.context) as session,
                ):
                    outcomes = self.listen(session, name, call)
                    session.execute(sa.select(1))
                    raise ZeroDivisionError
                self.assertIsInstance(
                    outcomes[0],
                    exception.TransactionEnded,
                    f'{name}, {call}',
                )
                self.assertEqual([], self.hosts())
                self.check_at_rest()

    def test_in_the_rollback_itself_too(self) -> None:
        engine = db.api.get_engine()
        outcomes = self.listen(engine, 'rollback', create)

        def roll_back() -> None:
            with db.api.transaction(self.context) as session:
                session.execute(sa.select(1))
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, roll_back)
        self.assertIsInstance(outcomes[0], exception.TransactionEnded)
        self.assertEqual([], self.hosts())

    def test_a_listener_that_lets_its_error_out_undoes_all(self) -> None:
        for name in WHILE_OPEN:

            def refused(*_: Any) -> None:
                create_after_refusal(self.context)

            def work(name: str = name, refused: Any = refused) -> None:
                with db.api.transaction(self.context) as session:
                    create(self.context)
                    event.listen(session, name, refused)
                    session.add(pending())

            self.assertRaises(exception.ServiceNotFound, work)
            self.assertEqual([], self.hosts(), name)
            self.check_at_rest()

    def test_a_failure_that_a_listener_swallows_commits_nothing(self) -> None:
        # PostgreSQL would answer ROLLBACK to the COMMIT, and all would look
        # well; the others would commit the half.
        for name in WHILE_OPEN:
            for call in CALLS:
                if call is not create_under_savepoint:
                    self.check_swallowed(name, call)

    def check_swallowed(self, name: str, call: Callable[[Any], None]) -> None:
        with (
            # In the middle of a flush, PostgreSQL says it first.
            self.assertRaises(
                (exception.TransactionDoomed, db_exception.DBError)
            ),
            db.api.transaction(self.context) as session,
        ):
            create(self.context)
            outcomes = self.listen(session, name, call)
            session.add(pending())
        self.assertIsInstance(
            outcomes[0],
            exception.ServiceExists | db_exception.DBDuplicateEntry,
        )
        self.assertEqual([], self.hosts(), f'{name}, {call}')
        self.check_at_rest()

    def test_a_failure_under_a_savepoint_is_undone_alone(self) -> None:
        for name in WHILE_OPEN:
            with db.api.transaction(self.context) as session:
                create(self.context)
                outcomes = self.listen(session, name, create_under_savepoint)
                session.add(pending())
            self.assertIsInstance(outcomes[0], exception.ServiceExists, name)
            self.assertEqual(['hook'], self.hosts(), name)
            self.check_at_rest()
            self.empty()

    def test_a_quota_is_taken_with_all_else(self) -> None:
        for name in WHILE_OPEN:
            self.assertEqual('joined', self.run_block(name, reserve))
            usages = db.api.quota_usage_get_all(self.context, 'p')
            self.assertEqual(1, usages['resources']['reserved'], name)
            self.check_at_rest()
            with db.api.transaction(self.context) as session:
                for model in (models.Reservation, models.QuotaUsage):
                    session.execute(sa.delete(model))
            self.empty()

    def test_objects_that_a_listener_adds_are_written(self) -> None:
        with db.api.transaction(self.context) as session:

            def add(*_: Any) -> None:
                with db.api.transaction(self.context) as inner:
                    if not outcomes:
                        outcomes.append(inner is session)
                        inner.add(pending(2))

            outcomes: list[bool] = []
            event.listen(session, 'after_flush', add)
            session.add(pending())
        self.assertEqual([True], outcomes)
        reading = db.api.get_session(read_only=True)
        with reading.begin():
            ids = reading.scalars(sa.select(models.Operation.id)).all()
        self.assertEqual(['pending 1', 'pending 2'], sorted(ids))

    def test_a_read_only_block_lets_listeners_read(self) -> None:
        with db.api.transaction(self.context, read_only=True) as session:
            reads = self.listen(
                session, 'before_commit', db.api.service_get_all
            )
            writes = self.listen(session, 'before_commit', create)
        self.assertEqual('joined', reads[0])
        self.assertIsInstance(writes[0], exception.WriteInReadOnly)
        self.check_at_rest()

    def test_other_forms_of_a_transaction_are_the_same(self) -> None:
        def body(ctx: Any) -> None:
            session = db.api.get_session(ctx)
            outcomes.append(self.listen(session, 'before_commit', create))
            outcomes.append(self.listen(session, 'after_commit', create))
            session.add(pending())

        runs: tuple[Callable[[Any], None], ...] = (
            lambda ctx: db.api.run_in_transaction(ctx, body),
            db.api.atomic(body),
        )
        for run in runs:
            outcomes: list[list[Any]] = []
            run(self.context)
            (before,), (after,) = outcomes
            self.assertEqual('joined', before)
            self.assertIsInstance(after, exception.TransactionEnded)
            self.assertEqual(['hook'], self.hosts())
            self.check_at_rest()
            self.empty()

    def test_nobody_else_comes_in_while_it_ends(self) -> None:
        def from_thread(_: Any) -> None:
            (error,) = self.in_threads(1, lambda _: create(self.context))
            raise error

        for handover in (False, True):
            for name in WHILE_OPEN:
                outcome = self.run_block(name, from_thread, handover=handover)
                self.assertIsInstance(
                    outcome,
                    exception.TransactionEnded | exception.TransactionInUse,
                )
                self.assertEqual([], self.hosts(), name)
                self.check_at_rest()
                self.empty()


class TestOtherPlaces(HookTestCase):
    def test_the_begin_of_a_block_is_no_gap(self) -> None:
        session_class = type(db.api.get_session())
        outcomes = self.listen(
            session_class, 'after_transaction_create', create
        )
        with self.assertRaises(ZeroDivisionError):
            with db.api.transaction(self.context):
                self.assertEqual(['joined'], outcomes)
                raise ZeroDivisionError
        self.assertEqual([], self.hosts())
        self.check_at_rest()

    def test_where_the_session_gets_its_connection_none_can_join(
        self,
    ) -> None:
        for at_the_end in (False, True):
            with db.api.transaction(self.context) as session:
                outcomes = self.listen(session, 'after_begin', create)
                session.add(pending())
                if not at_the_end:
                    session.flush()
            self.assertIsInstance(outcomes[0], exception.CannotJoinHere)
            self.assertEqual([], self.hosts())
            self.check_at_rest()
            self.empty()

    def test_the_end_of_a_savepoint_is_no_gap(self) -> None:
        for name, expected in (
            ('before_commit', 'joined'),
            ('before_flush', 'joined'),
            ('after_flush', 'joined'),
            ('after_commit', exception.CannotJoinHere),
            ('after_transaction_end', exception.CannotJoinHere),
        ):
            for call in CALLS:
                with (
                    self.assertRaises(ZeroDivisionError),
                    db.api.transaction(self.context) as session,
                ):
                    with db.api.savepoint(self.context):
                        outcomes = self.listen(session, name, call)
                        session.add(pending())
                    self.check_outcome(expected, outcomes, f'{name}, {call}')
                    raise ZeroDivisionError
                self.assertEqual([], self.hosts())
                self.check_at_rest()

    def test_the_rollback_of_a_savepoint_is_no_gap(self) -> None:
        for name in ('after_rollback', 'after_soft_rollback'):
            for call in CALLS:
                with (
                    self.assertRaises(ZeroDivisionError),
                    db.api.transaction(self.context) as session,
                ):
                    with (
                        self.assertRaises(KeyError),
                        db.api.savepoint(self.context),
                    ):
                        outcomes = self.listen(session, name, call)
                        session.add(pending())
                        session.flush()
                        raise KeyError
                    self.check_outcome(
                        exception.CannotJoinHere, outcomes, f'{name}, {call}'
                    )
                    raise ZeroDivisionError
                self.assertEqual([], self.hosts(), f'{name}, {call}')
                self.check_at_rest()

    def check_outcome(self, expected: Any, outcomes: Any, case: str) -> None:
        if expected == 'joined':
            self.assertEqual([expected], outcomes, case)
        else:
            self.assertIsInstance(outcomes[0], expected, case)

    def test_a_flush_that_was_swallowed_dooms(self) -> None:
        for in_savepoint in (False, True):
            for wrong in ([pending(), pending()], [object_that_fails()]):
                self.assertRaises(
                    exception.TransactionDoomed,
                    self.swallow,
                    in_savepoint,
                    wrong,
                )
                self.assertEqual([], self.hosts())
                self.check_at_rest()

    def swallow(self, in_savepoint: bool, wrong: list[Any]) -> None:
        with db.api.transaction(self.context) as session:
            create(self.context)
            block: Any = (
                db.api.savepoint if in_savepoint else db.api.transaction
            )
            with block(self.context):
                session.add_all(wrong)
                try:
                    session.flush()
                except Exception:
                    return

    def test_calls_beside_a_session_that_nobody_shares_are_by_themselves(
        self,
    ) -> None:
        for name in ('before_commit', 'before_flush', 'after_flush'):
            session = db.api.get_session(self.context)
            with session.begin():
                outcomes = self.listen(session, name, create)
                session.execute(sa.select(1))
                session.add(pending())
            if self.backend == 'sqlite':
                self.assertIsInstance(
                    outcomes[0], exception.WouldWaitForItself, name
                )
                self.assertEqual([], self.hosts())
            else:
                self.assertEqual(['hook'], self.hosts())
            self.check_at_rest()
            self.empty()

    def test_a_swallowed_flush_dooms_a_session_that_nobody_shares(
        self,
    ) -> None:
        for wrong in ([pending(), pending()], [object_that_fails()]):
            session = db.api.get_session(self.context)

            def swallow(session: Any = session, wrong: Any = wrong) -> None:
                with session.begin():
                    session.add_all(wrong)
                    try:
                        session.flush()
                    except Exception:
                        return

            self.assertRaises(exception.TransactionDoomed, swallow)
            self.check_at_rest()


def object_that_fails() -> models.Operation:
    """Return an object whose flush fails without a word of the server."""
    return models.Operation(id='wrong', attempt=object())

"""Sessions, transactions that join, savepoints: their rules one by one."""

import asyncio
import gc
import threading
from concurrent import futures
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

SERVICES = models.Service.__table__
INSERT = sa.text(
    'INSERT INTO operations (id, attempt, created_at) '
    "VALUES (:id, 0, '2026-01-01')"
)
COUNT = sa.text('SELECT COUNT(*) FROM operations')


class SessionTestCase(base.DatabaseTestCase):
    def count(self) -> int:
        """Count what was committed, as another session sees it."""
        session = db.api.get_session(read_only=True)
        with session.begin():
            return int(session.scalar(COUNT))

    def count_in_transaction(self) -> int:
        session = db.api.get_session()
        with session.begin():
            return int(session.scalar(COUNT))

    def at_rest(self) -> None:
        """Check that no connection is left in anybody's hands."""
        for pool in db.api.statistics().pools.values():
            self.assertEqual(0, pool['checked_out'])

    def break_statement(self, session: Any) -> None:
        """Let a statement fail: the id is there already."""
        session.execute(INSERT, {'id': 'broken'})
        session.execute(INSERT, {'id': 'broken'})


class TestForms(SessionTestCase):
    def test_a_transaction_commits_or_rolls_back_as_a_whole(self) -> None:
        for number, form in enumerate(({}, {'core': True})):
            session = db.api.get_session(self.context, **form)
            with session.begin():
                session.execute(INSERT, {'id': f'{form} 1'})
                session.execute(INSERT, {'id': f'{form} 2'})
            self.assertEqual(2 * number + 2, self.count())
            session = db.api.get_session(self.context, **form)

            def fail(session: Any = session) -> None:
                with session.begin():
                    session.execute(INSERT, {'id': '3'})
                    raise ValueError

            self.assertRaises(ValueError, fail)
            self.assertEqual(2 * number + 2, self.count())
        self.at_rest()

    def test_without_a_context_a_session_stands_alone(self) -> None:
        with db.api.transaction(self.context, read_only=True):
            session = db.api.get_session()
            with session.begin():
                session.execute(INSERT, {'id': '1'})
            self.assertEqual(1, self.count())

    def test_both_context_managers_in_one_line(self) -> None:
        for form in ({}, {'core': True}, {'autocommit': True}):
            with db.api.get_session(**form) as session, session.begin():
                session.execute(INSERT, {'id': str(form)})
        with (
            db.api.get_session(read_only=True) as session,
            session.begin(),
        ):
            self.assertEqual(3, session.scalar(COUNT))
            self.assertEqual([3], session.scalars(COUNT).all())
        self.at_rest()

    def test_a_session_that_reads_rejects_writes_unsent(self) -> None:
        service = factories.create_service()
        for write in (
            sa.insert(SERVICES),
            sa.update(SERVICES).values(version=1),
            sa.delete(SERVICES),
            sa.text('DELETE FROM services'),
            sa.text("WITH x AS (SELECT 'a') INSERT INTO y SELECT 1"),
            sa.text('SELECT 1; DELETE FROM services'),
            sa.text('TRUNCATE services'),
            sa.schema.DropTable(SERVICES),
            sa.select(sa.insert(SERVICES).returning(SERVICES.c.id).cte().c.id),
        ):
            session = db.api.get_session(self.context, read_only=True)
            with self.commands() as sent, session.begin():
                self.assertRaises(
                    exception.WriteInReadOnly, session.execute, write
                )
            self.assertEqual([], sent)
        db.api.service_get(self.context, service.id)

    def test_a_session_that_reads_takes_any_way_to_read(self) -> None:
        for read in (
            sa.select(SERVICES),
            sa.union_all(sa.select(SERVICES.c.id), sa.select(SERVICES.c.host)),
            sa.text(
                '  (SELECT 1)' if self.backend != 'sqlite' else 'SELECT 1'
            ),
            sa.text("SELECT 'insert into; delete'"),
            sa.text('WITH x AS (SELECT 1) SELECT * FROM x'),
        ):
            session = db.api.get_session(self.context, read_only=True)
            with session.begin():
                session.execute(read).all()

    def test_autocommit_takes_one_write_and_rejects_a_second(self) -> None:
        session = db.api.get_session(self.context, autocommit=True)
        with session.begin():
            session.execute(INSERT, {'id': '1'})
            self.assertEqual(1, self.count())
            self.assertEqual(1, session.scalar(COUNT))
            self.assertRaises(
                exception.SecondWriteInAutocommit,
                session.execute,
                INSERT,
                {'id': '2'},
            )
        self.assertEqual(1, self.count())
        with session.begin():
            self.assertRaises(
                exception.SecondWriteInAutocommit,
                session.execute,
                INSERT,
                [{'id': '3'}, {'id': '4'}],
            )
        self.assertEqual(1, self.count())

    def test_a_light_session_works_inside_of_its_block_only(self) -> None:
        for form in ({'core': True}, {'read_only': True}):
            session = db.api.get_session(**form)
            self.assertRaises(
                exception.SessionNotBegun, session.execute, COUNT
            )
            with session.begin():
                session.execute(COUNT)
            self.assertRaises(
                exception.SessionNotBegun, session.execute, COUNT
            )

    def test_errors_of_light_sessions_are_kept_by_nobody(self) -> None:
        self.database.configure(max_pool_size=1, max_overflow=0)
        with db.api.transaction(self.context) as opened:
            opened.execute(COUNT)
            collected = opened.failures
        session = db.api.get_session(core=True)

        def fail() -> None:
            with session.begin():
                self.break_statement(session)

        self.assertRaises(db_exception.DBDuplicateEntry, fail)
        self.assertEqual([], collected)
        self.assertEqual(0, self.count())

    def test_a_connection_is_whole_after_an_error_in_any_form(self) -> None:
        self.database.configure(max_pool_size=1, max_overflow=0)
        for form in (
            {},
            {'core': True},
            {'read_only': True},
            {'autocommit': True},
        ):
            session = db.api.get_session(**form)

            def fail(session: Any = session) -> None:
                with session.begin():
                    session.execute(sa.text('SELECT * FROM nonsense'))

            self.assertRaises(db_exception.DBError, fail)

            def raise_error(session: Any = session) -> None:
                with session.begin():
                    session.execute(COUNT)
                    raise ValueError

            self.assertRaises(ValueError, raise_error)
            with session.begin():
                self.assertEqual(0, session.execute(COUNT).scalar())
            self.at_rest()

    def test_a_failed_statement_that_was_caught_commits_nothing(self) -> None:
        # PostgreSQL would answer ROLLBACK to the COMMIT, and report success;
        # the others would commit the half.
        for number, form in enumerate(({}, {'core': True})):
            session = db.api.get_session(self.context, **form)
            with (
                self.assertRaises(exception.TransactionDoomed),
                session.begin(),
            ):
                self.assertRaises(
                    db_exception.DBDuplicateEntry,
                    self.break_statement,
                    session,
                )
            self.assertEqual(number, self.count())
            # That was the failure of a transaction, not of the session.
            with session.begin():
                session.execute(INSERT, {'id': f'{number}'})
            self.assertEqual(number + 1, self.count())
        self.at_rest()

    def test_a_duplicate_is_one_whatever_the_name_of_the_constraint(
        self,
    ) -> None:
        # oslo.db looks for "_" in it.
        things = sa.Table(
            'things',
            sa.MetaData(),
            sa.Column('name', sa.String(9), primary_key=True),
            sa.Column('other', sa.String(9)),
            sa.UniqueConstraint('other', name='twice'),
        )
        engine = db.api.get_engine()
        things.create(engine)
        self.addCleanup(things.drop, engine)
        session = db.api.get_session()
        with (
            self.assertRaises(db_exception.DBDuplicateEntry),
            session.begin(),
        ):
            session.execute(
                sa.insert(things),
                [{'name': 'a', 'other': 'x'}, {'name': 'b', 'other': 'x'}],
            )

    def test_a_savepoint_of_sqlalchemy_takes_its_failures_back(self) -> None:
        session = db.api.get_session(self.context)
        with session.begin():
            session.execute(INSERT, {'id': 'before'})
            for _ in range(2):
                with (
                    self.assertRaises(db_exception.DBDuplicateEntry),
                    session.begin_nested(),
                ):
                    self.break_statement(session)
            with session.begin_nested():
                session.execute(INSERT, {'id': 'after'})
        self.assertEqual(2, self.count())

    def test_another_isolation_level_is_gone_with_its_transaction(
        self,
    ) -> None:
        options = {'isolation_level': 'SERIALIZABLE'}
        with db.api.transaction(self.context) as session:
            session.connection(execution_options=options)
            session.execute(INSERT, {'id': 'serializable'})
        made = factories.create_service()
        self.database.configure()
        self.assertEqual([made], db.api.service_get_all(self.context))

    def test_a_raw_connection_is_rolled_back(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('it is in autocommit')
        raw = db.api.get_engine().raw_connection()
        raw.cursor().execute(
            "INSERT INTO operations VALUES ('raw', 0, '2026-01-01')"
        )
        raw.close()
        with db.api.transaction(self.context) as session:
            session.execute(INSERT, {'id': 'ours'})
        self.assertEqual(1, self.count())

    def test_what_was_read_reads_well_after_the_end(self) -> None:
        factories.create_service(host='h1')
        session = db.api.get_session()
        with session.begin():
            service = session.scalars(sa.select(models.Service)).one()
        session.close()
        self.assertEqual(('h1', True), (service.host, service.is_up))
        self.assertTrue(sa.inspect(service).detached)

    def test_a_session_dropped_without_an_end_leaves_nothing(self) -> None:
        session = db.api.get_session()
        session.execute(INSERT, {'id': '1'})
        del session
        gc.collect()
        self.at_rest()
        self.assertEqual(0, self.count())


class ThingOne:
    def go(self, session: Any) -> None:
        session.add(models.Operation(id='one', attempt=1))


class ThingTwo:
    def go(self, session: Any) -> None:
        session.add(models.Operation(id='two', attempt=1))


class TestSevenLineScope(SessionTestCase):
    """The scope of SQLAlchemy's documentation, as people know it."""

    def run_things(self, *things: Any, ctx: Any = None) -> None:
        session = db.api.get_session(ctx)
        try:
            for thing in things:
                thing.go(session)
            session.commit()
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    def test_two_things_in_one_transaction_all_or_nothing(self) -> None:
        class Fails:
            def go(self, session: Any) -> None:
                session.flush()
                raise ValueError

        self.assertRaises(
            ValueError, self.run_things, ThingOne(), ThingTwo(), Fails()
        )
        self.assertEqual(0, self.count())
        self.run_things(ThingOne(), ThingTwo())
        self.assertEqual(2, self.count())
        self.at_rest()

    def test_inside_a_transaction_the_scope_joins(self) -> None:
        def outer() -> None:
            with db.api.transaction(self.context):
                self.run_things(ThingOne(), ctx=self.context)
                self.run_things(ThingTwo(), ctx=self.context)
                raise ValueError

        self.assertRaises(ValueError, outer)
        self.assertEqual(0, self.count())

    def test_inside_a_transaction_its_rollback_dooms_the_whole(self) -> None:
        class Fails:
            def go(self, session: Any) -> None:
                raise ValueError

        def outer() -> None:
            with db.api.transaction(self.context):
                self.run_things(ThingOne(), ctx=self.context)
                self.assertRaises(
                    ValueError, self.run_things, Fails(), ctx=self.context
                )

        error = self.assertRaises(exception.TransactionDoomed, outer)
        self.assertIn('rollback', error.reason)
        self.assertEqual(0, self.count())

    def test_the_outermost_transaction_owns_the_commit(self) -> None:
        with db.api.transaction(self.context) as session:
            ThingOne().go(session)
            with db.api.transaction(self.context) as inner:
                ThingTwo().go(inner)
            session.flush()
            if self.backend != 'sqlite':
                self.assertEqual(0, self.count())
        self.assertEqual(2, self.count())


class TestJoining(SessionTestCase):
    def test_calls_in_a_transaction_happen_together_or_not_at_all(
        self,
    ) -> None:
        def work(fail: bool) -> None:
            with db.api.transaction(self.context):
                made = factories_in(self.context, 'a')
                db.api.service_update(self.context, made.id, {'version': 4})
                factories_in(self.context, 'b')
                self.assertEqual(
                    4, db.api.service_get(self.context, made.id).version
                )
                if fail:
                    raise ValueError

        self.assertRaises(ValueError, work, True)
        self.assertEqual([], db.api.service_get_all(self.context))
        work(False)
        self.assertEqual(2, len(db.api.service_get_all(self.context)))
        self.at_rest()

    def test_elevated_copies_share_the_transaction(self) -> None:
        plain = context.RequestContext('u', 'p', overwrite=False)

        def work() -> None:
            with db.api.transaction(plain):
                factories_in(plain.elevated(), 'a')
                raise ValueError

        self.assertRaises(ValueError, work)
        self.assertEqual([], db.api.service_get_all(self.context))
        with db.api.transaction(plain.elevated()):
            factories_in(plain.elevated(), 'a')
        self.assertEqual(1, len(db.api.service_get_all(self.context)))

    def test_a_get_by_id_locks_its_row(self) -> None:
        made = factories.create_service(version=0)

        def add_one(_: int) -> None:
            ctx = context.get_admin_context()

            def body(ctx: context.RequestContext) -> None:
                row = db.api.service_get(ctx, made.id)
                values = {'version': row.version + 1}
                db.api.service_update(ctx, made.id, values)

            db.api.run_in_transaction(ctx, body)

        self.assertEqual([None] * 8, self.in_threads(8, add_one))
        self.assertEqual(8, db.api.service_get(self.context, made.id).version)

    def test_a_refusal_dooms_nothing(self) -> None:
        with db.api.transaction(self.context):
            factories_in(self.context, 'a')
            self.assertRaises(
                exception.ServiceNotFound,
                db.api.service_heartbeat,
                self.context,
                'x',
            )
            factories_in(self.context, 'b')
        self.assertEqual(2, len(db.api.service_get_all(self.context)))

    def test_a_failed_statement_dooms_the_transaction(self) -> None:
        factories.create_service(host='there', binary='x')

        def work(*, call_again: bool) -> None:
            with db.api.transaction(self.context):
                factories_in(self.context, 'a')
                self.assertRaises(
                    exception.ServiceExists,
                    factories_in,
                    self.context,
                    'there',
                )
                if call_again:
                    factories_in(self.context, 'b')

        for call_again in (True, False):
            error = self.assertRaises(
                exception.TransactionDoomed, work, call_again=call_again
            )
            self.assertIn('there', error.reason + str(error.__cause__))
            self.assertEqual(
                ['there'],
                [r.host for r in db.api.service_get_all(self.context)],
            )
        self.at_rest()

    def test_swallowed_failures_of_the_session_itself_doom_it_too(
        self,
    ) -> None:
        def work() -> None:
            with db.api.transaction(self.context) as session:
                self.assertRaises(
                    db_exception.DBDuplicateEntry,
                    self.break_statement,
                    session,
                )

        self.assertRaises(exception.TransactionDoomed, work)
        self.assertEqual(0, self.count())

    def test_read_only_is_a_snapshot_without_locks_or_writes(self) -> None:
        made = factories.create_service(host='a')
        with db.api.transaction(self.context, read_only=True) as session:
            before = db.api.service_get_all(self.context)
            with self.commands() as sent:
                pass
            other = context.get_admin_context()
            db.api.service_update(other, made.id, {'version': 9})
            db.api.service_create(other, {'host': 'b', 'binary': 'x'})
            self.assertEqual(before, db.api.service_get_all(self.context))
            self.assertEqual(
                before[0], db.api.service_get(self.context, made.id)
            )
            self.assertRaises(
                exception.WriteInReadOnly,
                db.api.service_heartbeat,
                self.context,
                made.id,
            )
            session.add(models.Operation(attempt=1))
            self.assertRaises(exception.WriteInReadOnly, session.flush)
            session.expunge_all()
            self.assertEqual([], sent)
        self.assertEqual(2, len(db.api.service_get_all(self.context)))

    def test_independent_commits_by_itself(self) -> None:
        def work() -> None:
            with db.api.transaction(self.context):
                factories_in(self.context, 'outer')
                with db.api.transaction(self.context, independent=True):
                    factories_in(self.context, 'inner')
                factories_in(self.context, 'outer2')
                raise ValueError

        if self.backend == 'sqlite':
            self.assertRaises(exception.WouldWaitForItself, work)
            expected = []
        else:
            self.assertRaises(ValueError, work)
            expected = ['inner']
        self.assertEqual(
            expected, [r.host for r in db.api.service_get_all(self.context)]
        )
        self.at_rest()

    def test_independent_reads_also_on_sqlite(self) -> None:
        with db.api.transaction(self.context):
            factories_in(self.context, 'outer')
            with db.api.transaction(
                self.context, independent=True, read_only=True
            ):
                self.assertEqual([], db.api.service_get_all(self.context))
            self.assertEqual(1, len(db.api.service_get_all(self.context)))


class TestOwnership(SessionTestCase):
    def from_thread(self, function: Any) -> Any:
        return self.in_threads(1, lambda _: function())[0]

    def test_another_thread_is_told_so_also_while_the_owner_is_idle(
        self,
    ) -> None:
        with db.api.transaction(self.context) as session:
            session.add(models.Operation(id='mine', attempt=0))
            for use in (
                lambda: db.api.service_get_all(self.context),
                lambda: db.api.get_session(self.context),
                lambda: db.api.get_session(self.context, read_only=True),
                lambda: db.api.transaction(self.context).__enter__(),
                lambda: db.api.savepoint(self.context).__enter__(),
                lambda: db.api.service_get_all(self.context.elevated()),
                lambda: session.execute(COUNT),
                session.flush,
            ):
                error = self.from_thread(use)
                self.assertIsInstance(error, exception.TransactionInUse)
                self.assertIn('context.get_admin_context()', str(error))
                self.assertIn(threading.current_thread().name, error.owner)
            db.api.service_get_all(self.context)

    def test_another_task_is_told_so(self) -> None:
        async def use() -> Any:
            try:
                return db.api.service_get_all(self.context)
            except exception.TransactionInUse as error:
                return error

        async def main() -> Any:
            with db.api.transaction(self.context):
                self.assertEqual([], db.api.service_get_all(self.context))
                return await asyncio.create_task(use(), name='other')

        error = asyncio.run(main())
        self.assertIsInstance(error, exception.TransactionInUse)
        self.assertIn('other', error.caller)

    def test_handover_lets_any_thread_in_turn(self) -> None:
        with db.api.transaction(self.context, handover=True):
            factories_in(self.context, 'here')
            made = self.from_thread(
                lambda: factories_in(self.context, 'there')
            )
            self.assertEqual('there', made.host)
            self.assertEqual(2, len(db.api.service_get_all(self.context)))
        self.assertEqual(2, len(db.api.service_get_all(self.context)))

    def test_handover_never_lets_two_at_once(self) -> None:
        with db.api.transaction(self.context, handover=True):
            inside, leave = threading.Event(), threading.Event()

            def stay() -> None:
                with db.api.transaction(self.context):
                    inside.set()
                    leave.wait(10)

            other = threading.Thread(target=stay)
            other.start()
            inside.wait(10)
            self.assertRaises(
                exception.TransactionInUse,
                db.api.service_get_all,
                self.context,
            )
            leave.set()
            other.join()
            db.api.service_get_all(self.context)

    def test_its_end_while_another_thread_is_inside_commits_nothing(
        self,
    ) -> None:
        inside, leave = threading.Event(), threading.Event()

        def stay() -> None:
            with db.api.transaction(self.context) as session:
                session.execute(INSERT, {'id': '1'})
                inside.set()
                leave.wait(10)

        other = threading.Thread(target=stay)

        def end() -> None:
            with db.api.transaction(self.context, handover=True):
                other.start()
                inside.wait(10)

        self.assertRaises(exception.TransactionInUse, end)
        leave.set()
        other.join()
        self.assertEqual(0, self.count())

    def end_while(
        self, executor: futures.Executor, function: Any, inside: Any
    ) -> Any:
        """End a transaction by an error while another thread is inside."""
        with (
            self.assertRaisesRegex(ValueError, 'mine'),
            db.api.transaction(self.context, handover=True),
        ):
            late = executor.submit(function)
            inside.wait(10)
            raise ValueError('mine')
        return late

    def test_its_end_waits_for_the_answer_that_another_thread_waits_for(
        self,
    ) -> None:
        sending, answered = threading.Event(), threading.Event()

        def slow() -> Any:
            session = db.api.get_session(self.context)
            with session.begin():
                session.execute(INSERT, {'id': 'late'})
                sending.set()
                # As if it was the server that took so long.
                answered.wait(0.5)
            try:
                session.execute(COUNT)
            except exception.TransactionEnded as error:
                return error

        with futures.ThreadPoolExecutor(1) as executor:
            late = self.end_while(executor, slow, sending)
            self.at_rest()
            self.assertIsInstance(late.result(), exception.TransactionEnded)
        self.assertEqual(0, self.count())

    def test_a_connection_that_is_waited_on_for_ever_serves_nobody_else(
        self,
    ) -> None:
        self.database.configure(read_timeout=1)
        inside, leave = threading.Event(), threading.Event()

        def stay() -> None:
            session = db.api.get_session(self.context)
            with session.begin():
                session.execute(COUNT)
                inside.set()
                leave.wait(10)

        with futures.ThreadPoolExecutor(1) as executor:
            late = self.end_while(executor, stay, inside)
            made: list[Any] = []
            engine = self.database.engine()
            event.listen(engine, 'connect', lambda *new: made.append(new))
            self.assertEqual(0, self.count_in_transaction())
            self.assertEqual(int(self.backend != 'sqlite'), len(made))
            leave.set()
            self.assertIsNone(late.result())
        self.at_rest()

    def test_a_call_inside_at_its_end_begins_no_transaction(self) -> None:
        inside, leave = threading.Event(), threading.Event()

        def stay() -> Any:
            with db.api.transaction(self.context):
                inside.set()
                leave.wait(10)
                try:
                    return factories_in(self.context, 'late')
                except exception.TransactionEnded as error:
                    return error

        with futures.ThreadPoolExecutor(1) as executor:
            late = self.end_while(executor, stay, inside)
            leave.set()
            self.assertIsInstance(late.result(), exception.TransactionEnded)
        self.assertEqual([], db.api.service_get_all(self.context))
        self.at_rest()

    def test_it_needs_a_context(self) -> None:
        wrong: Any
        for wrong in (None, 'admin', object()):
            self.assertRaises(
                exception.InvalidInput, db.api.transaction(wrong).__enter__
            )
            self.assertRaises(
                exception.InvalidInput,
                db.api.run_in_transaction,
                wrong,
                list,
            )

    def test_its_session_is_over_when_it_is(self) -> None:
        with db.api.transaction(self.context) as session:
            session.execute(INSERT, {'id': 'inside'})
        for use in (
            lambda: session.execute(COUNT),
            lambda: session.begin().__enter__(),
            lambda: session.get(models.Operation, 'inside'),
        ):
            self.assertRaises(exception.TransactionEnded, use)
        self.at_rest()

    def test_a_transaction_left_open_does_not_poison_the_pool(self) -> None:
        def never_finished() -> Any:
            ctx = context.get_admin_context()
            with db.api.transaction(ctx):
                factories_in(ctx, 'lost')
                yield

        generator = never_finished()
        next(generator)
        del generator
        gc.collect()
        self.at_rest()

        def dies() -> None:
            block = db.api.transaction(context.get_admin_context())
            block.__enter__().execute(INSERT, {'id': 'lost'})

        thread = threading.Thread(target=dies)
        thread.start()
        thread.join()
        gc.collect()
        self.at_rest()
        self.assertEqual(0, self.count())
        self.assertEqual([], db.api.service_get_all(self.context))


class TestSavepoint(SessionTestCase):
    def test_a_part_fails_alone(self) -> None:
        factories.create_service(host='there', binary='x')
        with db.api.transaction(self.context):
            factories_in(self.context, 'a')

            def part() -> None:
                with db.api.savepoint(self.context):
                    factories_in(self.context, 'b')
                    factories_in(self.context, 'there')

            self.assertRaises(exception.ServiceExists, part)
            factories_in(self.context, 'c')
        self.assertEqual(
            ['a', 'c', 'there'],
            sorted(r.host for r in db.api.service_get_all(self.context)),
        )

    def test_savepoints_nest(self) -> None:
        with db.api.transaction(self.context):
            with db.api.savepoint(self.context):
                factories_in(self.context, 'a')

                def inner() -> None:
                    with db.api.savepoint(self.context):
                        factories_in(self.context, 'a')

                self.assertRaises(exception.ServiceExists, inner)
                factories_in(self.context, 'b')
        self.assertEqual(2, len(db.api.service_get_all(self.context)))

    def test_a_failure_swallowed_inside_is_no_success(self) -> None:
        factories.create_service(host='there', binary='x')
        with db.api.transaction(self.context):

            def part() -> None:
                with db.api.savepoint(self.context):
                    factories_in(self.context, 'b')
                    self.assertRaises(
                        exception.ServiceExists,
                        factories_in,
                        self.context,
                        'there',
                    )

            self.assertRaises(exception.TransactionDoomed, part)
            factories_in(self.context, 'c')
        self.assertEqual(
            ['c', 'there'],
            sorted(r.host for r in db.api.service_get_all(self.context)),
        )

    def test_it_needs_a_transaction(self) -> None:
        block = db.api.savepoint(self.context)
        self.assertRaises(exception.NoTransaction, block.__enter__)


def factories_in(ctx: context.RequestContext, host: str) -> db.api.ServiceRow:
    """Create a service with a context of the caller's."""
    return db.api.service_create(ctx, {'host': host, 'binary': 'x'})

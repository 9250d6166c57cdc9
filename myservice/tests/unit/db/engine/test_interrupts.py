"""What is raised in the middle of a statement: by a signal, into a thread."""

import contextlib
import gc
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db import operation
from myservice.tests import base
from myservice.tests import factories
from myservice.tests import interrupts
from myservice.tests import proxy

SERVICES = models.Service.__table__
INSERT = sa.text(
    'INSERT INTO operations (id, attempt, created_at) '
    "VALUES (:id, 0, '2026-01-01')"
)
COUNT = sa.text('SELECT COUNT(*) FROM operations')


def new() -> dict[str, str]:
    """Return the id of a new row."""
    return {'id': operation.new_id()}


def errors() -> list[BaseException]:
    """Return what interrupts: new ones, as notes stay in an exception."""
    return [
        interrupts.TimeLimit('time is up'),
        # PyMySQL takes it for one of the network.
        TimeoutError('time is up'),
        KeyboardInterrupt(),
        SystemExit(3),
        MemoryError(),
    ]


class InterruptTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.direct = sa.create_engine(
            self.database.connection, poolclass=sa.NullPool
        )
        self.between: proxy.FaultProxy | None = None
        engine = None
        if self.backend == 'sqlite':
            engine = self.database.engine()
        else:
            self.between = self.use_proxy()
        self.warm()
        self.interrupt = self.useFixture(
            interrupts.Interrupt(engine, self.between)
        )

    def warm(self) -> None:
        """Let the connections of each form be there."""
        for form in ('transaction', 'autocommit', 'snapshot'):
            self.database.engine(form).connect().close()

    def skip_on_sqlite(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('nothing travels')

    def raised_by(self, call: Callable[[], Any]) -> BaseException | None:
        """Return what leaves a call, whatever it is."""
        try:
            call()
        except BaseException as error:
            return error
        return None

    def count(self) -> int:
        """Count what was committed, past the layer."""
        with self.direct.connect() as connection:
            return int(connection.scalar(COUNT) or 0)

    def check_at_rest(self) -> None:
        """Check that nothing is held, and that each gets their own answers."""
        for name, pool in db.api.statistics().pools.items():
            self.assertEqual(0, pool['checked_out'], name)
        numbers = sa.select(sa.literal(1), sa.literal('x'))
        for arguments in ({}, {'read_only': True}, {'core': True}):
            session = db.api.get_session(**arguments)
            with session.begin():
                self.assertEqual((1, 'x'), session.execute(numbers).one())
        with db.api.get_engine().begin() as connection:
            self.assertEqual((1, 'x'), connection.execute(numbers).one())
        self.assertEqual(self.backend, self.database.engine().name)

    def check(
        self,
        call: Callable[[], Any],
        error: BaseException,
        at: str | int = 'INSERT INTO operations',
        in_doubt: bool = False,
        arrives: bool = True,
    ) -> None:
        """Interrupt a call, and check how it ends."""
        with self.interrupt.at(at, interrupts.raising(error), arrives):
            raised = self.raised_by(call)
        self.assertIs(error, raised)
        self.assertEqual(in_doubt, operation.says_unknown(error), repr(error))
        self.check_at_rest()


class TestForms(InterruptTestCase):
    """Each form of a session, transaction and connection."""

    def session(self, **form: Any) -> Any:
        session = db.api.get_session(**form)
        with session.begin():
            session.execute(INSERT, new())

    def transaction(self) -> None:
        with db.api.transaction(self.context) as session:
            session.execute(INSERT, new())

    def savepoint(self) -> None:
        with (
            db.api.transaction(self.context),
            db.api.savepoint(self.context) as session,
        ):
            session.execute(INSERT, new())

    def run_in_transaction(self) -> None:
        db.api.run_in_transaction(self.context, self.body)

    def body(self, ctx: context.RequestContext) -> None:
        session = db.api.get_session(ctx)
        with session.begin():
            session.execute(INSERT, new())

    def begin(self) -> None:
        with db.api.get_engine().begin() as connection:
            connection.execute(INSERT, new())

    def connect(self) -> None:
        with db.api.get_engine().connect() as connection:
            connection.execute(INSERT, new())
            connection.commit()

    def transactions(self) -> list[Callable[[], Any]]:
        return [
            self.session,
            lambda: self.session(core=True),
            self.transaction,
            self.savepoint,
            self.run_in_transaction,
            self.begin,
            self.connect,
        ]

    def test_a_statement_of_a_transaction(self) -> None:
        for call in self.transactions():
            for error in errors():
                at = 'INSERT INTO operations (id, attempt, created_at) VALUES'
                self.check(call, error, at)
                self.assertEqual(0, self.count())

    def test_a_commit(self) -> None:
        for call in self.transactions():
            for error in errors():
                self.check(call, error, 'commit', in_doubt=True)

    def test_a_savepoint_and_its_end(self) -> None:
        for at in ('SAVEPOINT', 'RELEASE SAVEPOINT'):
            for error in errors():
                self.check(self.savepoint, error, at)
        self.assertEqual(0, self.count())

    def test_a_write_that_commits_by_itself(self) -> None:
        for error in errors():
            self.check(
                lambda: self.session(autocommit=True), error, in_doubt=True
            )
            with self.direct.begin() as connection:
                connection.execute(sa.text('DELETE FROM operations'))

    def test_autocommit_of_the_engine(self) -> None:
        engine = db.api.get_engine().execution_options(
            isolation_level='AUTOCOMMIT'
        )

        def write() -> None:
            with engine.connect() as connection:
                connection.execute(INSERT, new())

        self.check(write, interrupts.TimeLimit(), in_doubt=True)

    def test_a_read(self) -> None:
        def read(**form: Any) -> None:
            session = db.api.get_session(**form)
            with session.begin():
                session.execute(COUNT)

        def snapshot() -> None:
            with db.api.transaction(self.context, read_only=True) as session:
                session.execute(COUNT)

        for error in errors():
            for call in (
                lambda: read(read_only=True),
                lambda: read(autocommit=True),
                snapshot,
                lambda: db.api.service_get_all(self.context),
            ):
                self.check(call, error, 'SELECT')

    def test_the_commit_of_what_only_read(self) -> None:
        def snapshot() -> None:
            with db.api.transaction(self.context, read_only=True) as session:
                session.execute(COUNT)

        for error in errors():
            self.check(snapshot, error, 'commit')


class TestDoubts(InterruptTestCase):
    """When an interrupt says that the outcome is unknown, and when not."""

    def create(self) -> Any:
        return db.api.service_create(
            self.context, {'host': 'h', 'binary': 'b'}
        )

    def hosts(self) -> list[str]:
        return [row.host for row in db.api.service_get_all(self.context)]

    def test_the_note_names_the_function_and_the_operation(self) -> None:
        ids: list[str] = []
        error = interrupts.TimeLimit()

        def handler() -> None:
            ids.append(operation.current().id)
            raise error

        with self.interrupt.at('INSERT INTO services', handler):
            self.assertIs(error, self.raised_by(self.create))
        (note,) = error.__notes__
        self.assertIn('service_create', note)
        self.assertIn(ids[0], note)

    def test_what_did_not_arrive_has_not_happened(self) -> None:
        error = interrupts.TimeLimit()
        with self.interrupt.at(
            'INSERT INTO services', interrupts.raising(error), arrives=False
        ):
            self.assertIs(error, self.raised_by(self.create))
        self.assertEqual([], self.hosts())
        self.check_at_rest()

    def test_after_a_write_that_has_committed_itself(self) -> None:
        for error in errors():
            with self.interrupt.at('SELECT', interrupts.raising(error)):
                self.assertIs(error, self.raised_by(self.create))
            self.assertTrue(operation.says_unknown(error))
            (row,) = db.api.service_get_all(self.context)
            db.api.service_destroy(self.context, row.id)

    def test_what_follows_a_write_in_its_block(self) -> None:
        error = ValueError('of the caller')

        def write() -> None:
            session = db.api.get_session(autocommit=True)
            with session.begin():
                session.execute(INSERT, new())
                raise error

        self.assertIs(error, self.raised_by(write))
        self.assertTrue(operation.says_unknown(error))
        self.assertEqual(1, self.count())

    def test_a_value_that_cannot_be_bound_has_not_been_sent(self) -> None:
        error = KeyError(5)

        class Broken(sa.types.TypeDecorator[Any]):
            impl = sa.String
            cache_ok = True

            def process_bind_param(self, value: Any, dialect: Any) -> Any:
                raise error

        insert = INSERT.bindparams(sa.bindparam('id', type_=Broken()))
        session = db.api.get_session(autocommit=True)
        with session.begin():
            self.raised_by(lambda: session.execute(insert, new()))
        self.assertFalse(operation.says_unknown(error))
        self.check_at_rest()

    def test_a_value_that_cannot_be_sent_has_not_been(self) -> None:
        session = db.api.get_session(autocommit=True)
        with session.begin():
            raised = self.raised_by(
                lambda: session.execute(INSERT, {'id': '\ud800'})
            )
        assert raised is not None
        while raised is not None:
            self.assertFalse(operation.says_unknown(raised))
            raised = raised.__cause__
        self.assertEqual(0, self.count())
        self.check_at_rest()

    def test_listeners_around_a_write_that_commits_itself(self) -> None:
        for name, in_doubt in (
            ('before_cursor_execute', False),
            ('after_cursor_execute', True),
        ):
            error = ValueError('of a listener')

            def listener(
                _: Any,
                __: Any,
                statement: str,
                *___: Any,
                error: Exception = error,
            ) -> None:
                if statement.startswith('INSERT'):
                    raise error

            engine = db.api.get_engine().execution_options(
                isolation_level='AUTOCOMMIT'
            )
            event.listen(engine, name, listener)
            with engine.connect() as connection:
                self.raised_by(lambda c=connection: c.execute(INSERT, new()))
            self.assertEqual(in_doubt, operation.says_unknown(error))
            if self.backend != 'sqlite':
                self.assertEqual(int(in_doubt), self.count())

    def test_a_listener_after_the_commit(self) -> None:
        error = ValueError('of a listener')

        def listener(_: Any) -> None:
            raise error

        def write() -> None:
            with db.api.transaction(self.context) as session:
                event.listen(session, 'after_commit', listener)
                self.create()

        self.assertIs(error, self.raised_by(write))
        self.assertTrue(operation.says_unknown(error))
        self.assertEqual(['h'], self.hosts())
        self.check_at_rest()

    def test_a_listener_before_the_commit(self) -> None:
        error = ValueError('of a listener')

        def listener(_: Any) -> None:
            raise error

        engine = self.database.engine()
        event.listen(engine, 'commit', listener)
        self.addCleanup(event.remove, engine, 'commit', listener)

        def write() -> None:
            with db.api.transaction(self.context):
                self.create()

        def in_session() -> None:
            session = db.api.get_session()
            with session.begin():
                session.execute(INSERT, new())

        for call in (write, in_session):
            self.assertIs(error, self.raised_by(call))
            # Nothing is open in the connection that the next one gets.
            with engine.connect() as connection:
                self.assertEqual(0, connection.scalar(COUNT))
            self.assertEqual([], self.hosts())

    def test_what_another_one_has_committed_meanwhile(self) -> None:
        error = interrupts.TimeLimit()

        def body(ctx: context.RequestContext) -> None:
            if self.backend != 'sqlite':
                own = db.api.get_session()
                with own.begin():
                    own.execute(INSERT, new())
            raise error

        self.assertIs(
            error,
            self.raised_by(
                lambda: db.api.run_in_transaction(self.context, body)
            ),
        )
        self.assertFalse(operation.says_unknown(error))

    def test_an_attempt_that_was_lost_stays_in_doubt(self) -> None:
        self.skip_on_sqlite()
        assert self.between is not None
        for error in errors():
            self.lose_then_interrupt('INSERT INTO services', error)
            self.assertIs(error, self.raised_by(self.create))
            self.assertTrue(operation.says_unknown(error), repr(error))
            self.between.decide = lambda command: None
            for row in db.api.service_get_all(self.context):
                db.api.service_destroy(self.context, row.id)

    def lose_then_interrupt(self, what: str, error: BaseException) -> None:
        """Lose an answer; interrupt the attempt that follows, unsent."""
        main: Any = threading.main_thread().ident
        handled = threading.Event()

        def handle(*_: Any) -> None:
            handled.set()
            raise error

        signal.signal(signal.SIGUSR1, handle)
        seen = [0]

        def decide(command: proxy.Command) -> proxy.Action | None:
            if not command.sql.startswith(what):
                return None
            seen[0] += 1
            if seen[0] == 1:
                return proxy.DropAfter()
            signal.pthread_kill(main, signal.SIGUSR1)
            handled.wait(60)
            return proxy.DropBefore()

        assert self.between is not None
        self.between.decide = decide

    def test_an_attempt_that_was_refused_leaves_none(self) -> None:
        self.skip_on_sqlite()
        error = interrupts.TimeLimit()
        made = factories.create_service()
        assert self.between is not None
        self.lose_then_interrupt('UPDATE services', error)
        # In a transaction, so it was lost before its COMMIT.
        self.assertIs(
            error,
            self.raised_by(
                lambda: db.api.service_destroy(self.context, made.id)
            ),
        )
        self.assertFalse(operation.says_unknown(error))
        self.between.decide = lambda command: None
        self.assertEqual([made.host], self.hosts())

    def test_an_error_of_ours_that_a_handler_raises_repeats_no_write(
        self,
    ) -> None:
        self.skip_on_sqlite()
        error = exception.ServerBusy(reason='for the handler')
        with self.interrupt.at(
            'INSERT INTO services', interrupts.raising(error)
        ):
            self.assertIs(error, self.raised_by(self.create))
        self.assertTrue(operation.says_unknown(error))
        self.check_at_rest()

    def test_a_writer_that_waits_for_its_turn_has_sent_nothing(self) -> None:
        if self.backend != 'sqlite':
            self.skipTest('nobody takes turns')
        error = interrupts.TimeLimit()
        signal.signal(signal.SIGUSR1, lambda *_: self.fail_with(error))
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with db.api.transaction(context.get_admin_context()) as session:
                session.execute(COUNT)
                inside.set()
                leave.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(60)
        main: Any = threading.main_thread().ident
        timer = threading.Timer(
            0.2, signal.pthread_kill, (main, signal.SIGUSR1)
        )
        timer.start()
        raised = self.raised_by(self.create)
        leave.set()
        holder.join()
        self.assertIs(error, raised)
        self.assertFalse(operation.says_unknown(error))

    def fail_with(self, error: BaseException) -> None:
        raise error


class TestFirstError(InterruptTestCase):
    """A ROLLBACK that fails does not replace what it is sent for."""

    def setUp(self) -> None:
        super().setUp()
        self.skip_on_sqlite()
        self.error: BaseException = ValueError('the first')

    @contextlib.contextmanager
    def rollback_lost(self, what: str = 'rollback') -> Iterator[None]:
        """Lose each ROLLBACK in this block, and check that there was one."""
        assert self.between is not None
        lost: list[proxy.Command] = []

        def decide(command: proxy.Command) -> proxy.Action | None:
            if command.kind == what or command.sql.startswith(what):
                lost.append(command)
                return proxy.DropBefore()
            return None

        self.between.decide = decide
        yield
        self.between.decide = lambda command: None
        self.assertEqual(1, len(lost))

    def fail_in(self, session: Any) -> None:
        session.execute(INSERT, new())
        raise self.error

    def in_session(self, **form: Any) -> None:
        session = db.api.get_session(**form)
        with session.begin():
            self.fail_in(session)

    def in_transaction(self) -> None:
        with db.api.transaction(self.context) as session:
            self.fail_in(session)

    def in_run(self) -> None:
        def body(ctx: context.RequestContext) -> None:
            self.fail_in(db.api.get_session(ctx))

        db.api.run_in_transaction(self.context, body)

    def in_engine(self) -> None:
        with db.api.get_engine().begin() as connection:
            self.fail_in(connection)

    def in_connection(self) -> None:
        with db.api.get_engine().connect() as connection:
            with connection.begin():
                self.fail_in(connection)

    def by_hand(self) -> None:
        with db.api.get_session() as session:
            try:
                self.fail_in(session)
            except BaseException:
                session.rollback()
                raise

    def test_each_form(self) -> None:
        for call in (
            self.in_session,
            lambda: self.in_session(core=True),
            self.in_transaction,
            self.in_run,
            self.in_engine,
            self.in_connection,
            self.by_hand,
        ):
            for self.error in (ValueError('the first'), *errors()):
                with self.rollback_lost():
                    self.assertIs(self.error, self.raised_by(call))
                self.assertFalse(operation.says_unknown(self.error))
                self.check_at_rest()
        self.assertEqual(0, self.count())

    def test_a_refusal(self) -> None:
        with self.rollback_lost():
            self.assertRaises(
                exception.ServiceNotFound,
                db.api.service_destroy,
                self.context,
                'unknown',
            )
        self.check_at_rest()

    def test_a_savepoint(self) -> None:
        def in_savepoint() -> None:
            with db.api.transaction(self.context):
                with db.api.savepoint(self.context) as session:
                    self.fail_in(session)

        for self.error in (ValueError('the first'), *errors()):
            with self.rollback_lost('ROLLBACK TO'):
                self.assertIs(self.error, self.raised_by(in_savepoint))
            self.check_at_rest()
        self.assertEqual(0, self.count())

    def test_a_savepoint_of_the_engine(self) -> None:
        def in_savepoint() -> None:
            with db.api.get_engine().begin() as connection:
                with connection.begin_nested():
                    self.fail_in(connection)

        with self.rollback_lost('ROLLBACK TO'):
            self.assertIs(self.error, self.raised_by(in_savepoint))
        self.check_at_rest()

    def test_a_transaction_whose_savepoint_is_lost_is_doomed(self) -> None:
        def go_on() -> None:
            with db.api.transaction(self.context):
                self.assertIs(
                    self.error, self.raised_by(self.fail_in_savepoint)
                )
                db.api.service_get_all(self.context)

        with self.rollback_lost('ROLLBACK TO'):
            self.assertRaises(exception.TransactionDoomed, go_on)
        self.check_at_rest()

    def fail_in_savepoint(self) -> None:
        with db.api.savepoint(self.context) as session:
            self.fail_in(session)

    def test_a_connection_can_be_used_again(self) -> None:
        with db.api.get_engine().connect() as connection:
            with self.rollback_lost():
                self.assertIs(
                    self.error,
                    self.raised_by(lambda: self.fail_by_hand(connection)),
                )
            connection.execute(INSERT, {'id': '2'})
            connection.commit()
        self.assertEqual(1, self.count())
        self.check_at_rest()

    def fail_by_hand(self, connection: sa.Connection) -> None:
        try:
            self.fail_in(connection)
        except ValueError:
            connection.rollback()
            raise

    def test_without_a_first_error_its_own_is_the_news(self) -> None:
        def roll_back() -> None:
            with db.api.get_engine().connect() as connection:
                connection.execute(INSERT, new())
                connection.rollback()

        with self.rollback_lost():
            self.assertRaises(db_exception.DBConnectionError, roll_back)
        self.check_at_rest()

    def test_an_interrupt_is_no_failure_of_cleaning_up(self) -> None:
        for call in (
            self.in_session,
            lambda: self.in_session(core=True),
            self.in_transaction,
            self.in_run,
            self.in_engine,
        ):
            for error in errors():
                self.error = ValueError('the first')
                with self.interrupt.at('rollback', interrupts.raising(error)):
                    self.assertIs(error, self.raised_by(call))
                self.assertIs(self.error, error.__context__)
                self.assertFalse(operation.says_unknown(error))
                self.check_at_rest()
        self.assertEqual(0, self.count())


class TestConnections(InterruptTestCase):
    """No connection that waits for an answer is given to anybody else."""

    def setUp(self) -> None:
        super().setUp()
        self.skip_on_sqlite()

    def sleep(self, seconds: int = 60) -> str:
        """Return a statement that lasts."""
        function = 'SLEEP' if self.backend == 'mysql' else 'pg_sleep'
        return f'SELECT {function}({seconds})'

    def many(self) -> Any:
        """Return a statement with many rows."""
        if self.backend == 'mysql':
            return sa.text('SELECT seq, REPEAT(1, 1000) FROM seq_1_to_50000')
        return sa.text(
            "SELECT n, REPEAT('1', 1000) FROM generate_series(1, 50000) n"
        )

    def check_interrupted(
        self, call: Callable[[], Any], at: str, arrives: bool = True
    ) -> None:
        for error in errors():
            self.check(call, error, at, arrives=arrives)

    def test_a_raw_connection(self) -> None:
        def call() -> None:
            with contextlib.closing(
                db.api.get_engine().raw_connection()
            ) as raw:
                raw.cursor().execute(self.sleep())

        started = time.monotonic()
        self.check_interrupted(call, 'SELECT')
        self.assertTrue(time.monotonic() - started < 60)

    def test_a_raw_connection_that_is_dropped(self) -> None:
        def call() -> None:
            raw = db.api.get_engine().raw_connection()
            raw.cursor().execute(self.sleep())

        for error in errors():
            with self.interrupt.at('SELECT', interrupts.raising(error)):
                self.assertIs(error, self.raised_by(call))
            error.__traceback__ = None
            gc.collect()
            self.check_at_rest()

    def test_a_ping(self) -> None:
        self.database.configure(ping_after_idle=0)
        self.warm()
        for call in (
            lambda: db.api.service_get_all(self.context),
            lambda: db.api.get_engine().connect().close(),
        ):
            self.check_interrupted(
                call, 'ping' if self.backend == 'mysql' else ';'
            )

    def test_while_it_connects(self) -> None:
        def call() -> None:
            self.database.configure()
            db.api.service_get_all(self.context)

        self.check_interrupted(call, 'connect')

    def test_while_its_level_is_set(self) -> None:
        if self.backend == 'postgresql':
            self.skipTest('psycopg sends it with BEGIN')

        def call() -> None:
            with db.api.get_engine().connect() as connection:
                connection.execution_options(isolation_level='SERIALIZABLE')

        self.check_interrupted(call, 'SET SESSION')

    def test_rows_that_are_streamed(self) -> None:
        rows: list[Any] = []

        def call() -> None:
            with db.api.transaction(self.context) as session:
                result = session.execute(
                    self.many(), execution_options={'yield_per': 10}
                )
                rows.extend(result)

        for error in errors():
            rows.clear()
            with interrupts.AtAnyPoint(interrupts.raising(error)) as interrupt:
                interrupt.after(0.05)
                self.assertIs(error, self.raised_by(call))
            self.assertTrue(len(rows) < 50000)
            self.check_at_rest()

    def test_a_rollback_that_fails_after_one_of_somebody_else(self) -> None:
        self.skip_on_sqlite()
        assert self.between is not None
        db.api.quota_create(self.context, 'p', 'resources', 0)
        kept = db.api.get_engine().connect()
        with kept, kept.begin() as transaction:
            kept.execute(sa.text('SELECT 1'))
            transaction.rollback()

        def decide(command: proxy.Command) -> proxy.Action | None:
            ends = command.kind == 'rollback'
            return proxy.DropBefore() if ends else None

        self.between.decide = decide
        self.assertIsInstance(
            self.raised_by(
                lambda: db.api.quota_reserve(
                    self.context, {'resources': 1}, project_id='p'
                )
            ),
            exception.OverQuota,
        )
        self.between.decide = lambda command: None
        self.check_at_rest()

    def test_what_is_raised_into_a_thread(self) -> None:
        interrupt = self.useFixture(interrupts.AtAnyPoint())
        raised: list[Any] = []
        waits = threading.Event()
        assert self.between is not None

        def decide(command: proxy.Command) -> proxy.Action | None:
            if not command.sql.startswith('SELECT'):
                return None
            waits.set()
            return proxy.Delay(0.3)

        def call() -> None:
            session = db.api.get_session(core=True)
            with session.begin():
                session.execute(sa.text(self.sleep(0)))

        thread = threading.Thread(
            target=lambda: raised.append(self.raised_by(call)), daemon=True
        )
        self.between.decide = decide
        thread.start()
        waits.wait(60)
        interrupt.raise_in(thread, interrupts.TimeLimit)
        thread.join(60)
        if thread.is_alive():
            frame = sys._current_frames()[thread.ident or 0]
            self.fail(''.join(traceback.format_stack(frame)))
        self.between.decide = lambda command: None
        self.assertIsInstance(raised[0], interrupts.TimeLimit)
        self.check_at_rest()

    def test_what_it_waited_for_is_cancelled(self) -> None:
        if self.backend != 'postgresql':
            self.skipTest('no cancel is safe behind a balancer')
        made = factories.create_service()

        def call() -> None:
            with db.api.transaction(self.context) as session:
                db.api.service_update(self.context, made.id, {'version': 1})
                session.execute(sa.text(self.sleep()))

        for error in errors():
            signal.signal(signal.SIGUSR1, interrupts.raising(error))
            thread = threading.Thread(target=self.interrupt_sleep)
            thread.start()
            self.assertIs(error, self.raised_by(call))
            thread.join()
            # It would wait for the lock until the sleep is over.
            with self.direct.begin() as connection:
                connection.execute(sa.text("SET lock_timeout = '30s'"))
                connection.execute(sa.update(SERVICES).values(version=2))

    def interrupt_sleep(self) -> None:
        """Interrupt the main thread while the server is at its statement."""
        at_it = sa.text(
            'SELECT COUNT(*) FROM pg_stat_activity '
            "WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' "
            'AND datname = current_database()'
        )
        give_up = time.monotonic() + 60
        with self.direct.connect() as connection:
            while time.monotonic() < give_up:
                if connection.scalar(at_it):
                    break
                connection.rollback()
                time.sleep(0.01)
        main: Any = threading.main_thread().ident
        signal.pthread_kill(main, signal.SIGUSR1)


class TestHandlers(InterruptTestCase):
    """The handler of a signal calls the API."""

    def setUp(self) -> None:
        super().setUp()
        self.made = factories.create_service()
        self.found: list[Any] = []

    def look(self, ctx: context.RequestContext) -> Callable[[], None]:
        def handler() -> None:
            try:
                self.found.append(db.api.service_get_all(ctx))
            except Exception as error:
                self.found.append(error)

        return handler

    def statement(self) -> None:
        with db.api.transaction(self.context) as session:
            session.execute(INSERT, new())

    def flush(self) -> None:
        with db.api.transaction(self.context) as session:
            session.add(models.Operation(**new(), attempt=0))
            session.flush()

    def core(self) -> None:
        with db.api.transaction(self.context) as session:
            session.connection().execute(INSERT, new())

    def savepoint(self) -> None:
        with db.api.transaction(self.context) as session:
            with session.begin_nested():
                session.execute(INSERT, new())

    def call(self) -> None:
        with db.api.transaction(self.context):
            db.api.service_update(self.context, self.made.id, {'version': 2})

    def test_in_a_statement_of_the_same_context(self) -> None:
        self.skip_on_sqlite()
        for call, at in (
            (self.statement, 'INSERT'),
            (self.flush, 'INSERT'),
            (self.core, 'INSERT'),
            (self.savepoint, 'SAVEPOINT'),
            (self.savepoint, 'RELEASE'),
            (self.call, 'UPDATE'),
        ):
            self.found.clear()
            with self.interrupt.at(at, self.look(self.context.elevated())):
                call()
            (error,) = self.found
            self.assertIsInstance(error, exception.TransactionInUse)
            self.assertIn('get_admin_context', str(error))
            self.assertIn('signal', str(error))
            with self.direct.begin() as connection:
                connection.execute(sa.text('DELETE FROM operations'))
            self.check_at_rest()

    def test_at_the_end_of_the_same_context(self) -> None:
        self.skip_on_sqlite()
        with self.interrupt.at('commit', self.look(self.context)):
            self.statement()
        # Where the transaction is over, it is not joined any more.
        self.assertIsInstance(
            self.found[0],
            list | exception.TransactionInUse | exception.TransactionEnded,
        )
        self.check_at_rest()

    def test_its_refusal_that_nobody_catches(self) -> None:
        self.skip_on_sqlite()
        with self.interrupt.at(
            'INSERT', lambda: self.found.append(self.read())
        ):
            self.assertRaises(exception.TransactionInUse, self.statement)
        self.assertEqual(0, self.count())
        self.check_at_rest()

    def read(self) -> Any:
        return db.api.service_get_all(self.context)

    def test_with_another_context(self) -> None:
        with self.interrupt.at(
            'INSERT', self.look(context.get_admin_context())
        ):
            self.statement()
        self.assertEqual([self.made], self.found[0])
        self.assertEqual(1, self.count())
        self.check_at_rest()

    def test_in_a_call_that_stands_alone(self) -> None:
        for call, at in (
            (lambda: db.api.service_get(self.context, self.made.id), 'SELECT'),
            (
                lambda: db.api.service_update(
                    self.context, self.made.id, {'version': 2}
                ),
                'UPDATE',
            ),
        ):
            self.found.clear()
            with self.interrupt.at(at, self.look(self.context)):
                call()
            (rows,) = self.found
            self.assertEqual([self.made.id], [row.id for row in rows])
        self.check_at_rest()

    def test_hooks_join_while_nothing_is_sent(self) -> None:
        def hook(_: Any, __: Any, statement: str, *___: Any) -> None:
            if not self.found and statement.startswith('INSERT'):
                self.found.append(None)
                self.found.append(db.api.service_get_all(self.context))

        engine = self.database.engine()
        for name in ('before_cursor_execute', 'after_cursor_execute'):
            event.listen(engine, name, hook)
            self.found.clear()
            self.statement()
            event.remove(engine, name, hook)
            self.assertEqual([self.made], self.found[1])
            with self.direct.begin() as connection:
                connection.execute(sa.text('DELETE FROM operations'))


class TestInMemory(base.TestCase):
    def test_an_interrupt_leaves_the_database(self) -> None:
        self.useFixture(fixtures.Database('sqlite://'))
        engine = db.api.get_engine()
        models.Base.metadata.create_all(engine)
        ctx = context.get_admin_context()
        interrupt = self.useFixture(interrupts.Interrupt(engine, None))
        made = factories.create_service()
        for error in errors():
            for call, at in (
                (lambda: db.api.service_get(ctx, made.id), 'SELECT'),
                (lambda: db.api.service_destroy(ctx, made.id), 'UPDATE'),
            ):
                with interrupt.at(at, interrupts.raising(error)):
                    try:
                        call()
                    except BaseException as raised:
                        self.assertIs(error, raised)
                self.assertEqual(made, db.api.service_get(ctx, made.id))

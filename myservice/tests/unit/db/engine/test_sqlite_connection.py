"""Connections of get_engine(): isolation levels, and SQLite's turns."""

import asyncio
import contextlib
import contextvars
import gc
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event
from sqlalchemy import orm

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.engine import fair_lock
from myservice.db.engine import sqlite_connection
from myservice.tests import base
from myservice.tests import factories

INSERT = sa.text(
    'INSERT INTO operations (id, attempt, created_at) '
    "VALUES (:id, 0, '2026-01-01')"
)
COUNT = sa.text('SELECT COUNT(*) FROM operations')
# SQLAlchemy does not heed the case.
AUTOCOMMIT = ('AUTOCOMMIT', 'autocommit', 'AutoCommit')
# Longer than anybody waits here, and than a slow machine takes.
LONG = 60

Use = Callable[[sa.Connection], Any]


def elsewhere(function: Callable[[], Any]) -> Any:
    """Return what a function returns in another thread."""
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(LONG)


class TestIsolationLevels(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.written = 0

    def write(self, connection: sa.Connection) -> None:
        self.written += 1
        connection.execute(INSERT, {'id': f'{self.written}'})

    def count(self) -> Any:
        """Return how many rows others see."""
        with db.api.get_engine(read_only=True).connect() as connection:
            return connection.scalar(COUNT)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels at which SQLAlchemy offers transactions."""
        if self.backend == 'sqlite':
            return 'SERIALIZABLE', 'READ UNCOMMITTED', 'read_uncommitted'
        return 'SERIALIZABLE', 'READ COMMITTED'

    def ways(self, level: str) -> Iterator[tuple[str, Callable[[Use], None]]]:
        """Give the ways to use a connection with an isolation level."""
        option: Any = {'isolation_level': level}
        engine = db.api.get_engine()

        def by_engine(use: Use) -> None:
            with engine.execution_options(**option).connect() as connection:
                use(connection)

        def by_connection(use: Use) -> None:
            with engine.connect() as connection:
                use(connection.execution_options(**option))

        def begun(use: Use) -> None:
            with engine.connect() as connection:
                connection.execution_options(**option).begin()
                use(connection)

        def by_session(use: Use) -> None:
            with orm.Session(engine) as session:
                use(session.connection(execution_options=option))

        def detached(use: Use) -> None:
            with engine.connect() as connection:
                connection.execution_options(**option).detach()
                use(connection)

        for way in (by_engine, by_connection, begun, by_session, detached):
            yield f'{level} {way.__name__}', way

    def test_what_is_written_in_autocommit_is_kept(self) -> None:
        for level in AUTOCOMMIT:
            for name, way in self.ways(level):
                way(self.write)
                self.assertEqual(self.written, self.count(), name)

                def write_and_roll_back(connection: sa.Connection) -> None:
                    self.write(connection)
                    self.assertEqual(self.written, self.count())
                    connection.rollback()

                way(write_and_roll_back)
                self.assertEqual(self.written, self.count(), name)

    def test_other_levels_are_transactions(self) -> None:
        kept = []

        def write_and_commit(connection: sa.Connection) -> None:
            self.write(connection)
            connection.commit()
            kept.append(self.written)
            self.assertEqual(len(kept), self.count())
            self.write(connection)

        for level in self.levels:
            for name, way in self.ways(level):
                way(self.write)
                self.assertEqual(len(kept), self.count(), name)
                way(write_and_commit)
                self.assertEqual(len(kept), self.count(), name)

    def test_a_connection_can_go_from_one_to_another(self) -> None:
        with db.api.get_engine().connect() as connection:
            for level in (*AUTOCOMMIT, *self.levels, 'AUTOCOMMIT'):
                connection.execution_options(isolation_level=level)
                before = self.count()
                self.write(connection)
                connection.rollback()
                kept = level.upper() == 'AUTOCOMMIT'
                self.assertEqual(before + kept, self.count(), level)

    def test_the_next_user_has_a_transaction(self) -> None:
        for level in (*AUTOCOMMIT, *self.levels):
            for name, way in self.ways(level):
                way(lambda connection: connection.execute(COUNT))
                with db.api.get_engine().connect() as connection:
                    self.write(connection)
                with contextlib.suppress(ValueError):
                    with db.api.transaction(self.context):
                        factories.create_service()
                        raise ValueError
                self.assertEqual(0, self.count(), name)

    def test_a_level_that_there_is_not_is_refused(self) -> None:
        with db.api.get_engine().connect() as connection:
            for level in ('default', 'NONE', ''):
                self.assertRaises(
                    sa.exc.ArgumentError,
                    connection.execution_options,
                    isolation_level=level,
                )
            self.write(connection)
        self.assertEqual(0, self.count())

    def test_no_transaction_is_bound_to_autocommit(self) -> None:
        for level in AUTOCOMMIT:
            with db.api.get_engine().connect() as connection:
                connection.execution_options(isolation_level=level)
                self.assertRaises(
                    exception.InvalidInput,
                    db.api.transaction(
                        self.context, bind=connection
                    ).__enter__,
                )


class SQLiteTestCase(base.DatabaseTestCase):
    """About a SQLite file: on servers it does not run."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'sqlite':
            self.skipTest('about SQLite')
        # Who waits for nobody gives up too late for the test, and only once.
        self.database.configure(sqlite_busy_timeout=LONG, db_max_retries=0)
        self.engine = db.api.get_engine()
        self.written = 0

    def connect(self) -> sa.Connection:
        connection = self.engine.connect()
        self.addCleanup(connection.close)
        return connection

    def write(self, connection: Any) -> None:
        self.written += 1
        connection.execute(INSERT, {'id': f'{self.written}'})

    def create(self) -> None:
        """Write by the API, with another context than that of the test."""
        factories.create_service()

    def others_write(self) -> None:
        """Check that whoever else writes does not wait."""
        started = time.monotonic()
        self.create()
        elsewhere(self.create)
        self.assertLess(time.monotonic() - started, LONG / 2)


class TestAutocommit(SQLiteTestCase):
    def autocommit(self) -> sa.Connection:
        return self.connect().execution_options(isolation_level='AUTOCOMMIT')

    def test_no_begin_is_sent(self) -> None:
        connection = self.autocommit()
        sent: list[str] = []
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(sent.append)
        connection.execute(COUNT)
        connection.commit()
        self.assertEqual([str(COUNT)], sent)

    def test_vacuum_works(self) -> None:
        self.autocommit().exec_driver_sql('VACUUM')

    def test_a_connection_that_is_kept_is_in_nobodys_way(self) -> None:
        connection = self.autocommit()
        self.write(connection)
        self.others_write()
        self.write(connection)
        self.others_write()

    def test_a_transaction_by_hand_is_one(self) -> None:
        connection = self.autocommit()
        connection.exec_driver_sql('BEGIN IMMEDIATE')
        self.write(connection)
        connection.close()
        with self.engine.begin() as connection:
            self.assertEqual(0, connection.scalar(COUNT))

    def test_our_own_form_holds_nothing_after_its_statement(self) -> None:
        session = db.api.get_session(autocommit=True)
        with session.begin():
            session.execute(INSERT, {'id': '1'})
            self.others_write()


class TestGivenBack(SQLiteTestCase):
    def driver(self) -> Any:
        """Return the driver's connection that the next user gets."""
        with self.engine.connect() as connection:
            return connection.connection.driver_connection

    def assert_clean(self, driver: Any) -> None:
        self.assertIs(driver, self.driver())
        self.assertIsNone(driver.isolation_level)
        self.assertIs(False, driver.in_transaction)
        [state] = driver.execute('PRAGMA read_uncommitted').fetchone()
        self.assertEqual(0, state)
        [state] = driver.execute('PRAGMA busy_timeout').fetchone()
        self.assertEqual(1000 * LONG, state)
        if sys.version_info >= (3, 12):
            self.assertEqual(
                sqlite3.LEGACY_TRANSACTION_CONTROL, driver.autocommit
            )

    def test_after_any_isolation_level(self) -> None:
        driver = self.driver()
        for level in ('AUTOCOMMIT', 'SERIALIZABLE', 'READ UNCOMMITTED'):
            with self.engine.connect() as connection:
                connection.execution_options(isolation_level=level)
                self.write(connection)
            self.assert_clean(driver)
            self.others_write()

    def test_after_whatever_was_done_to_the_driver(self) -> None:
        driver = self.driver()
        levels: list[Any] = ['', 'EXCLUSIVE', None]
        for level in levels:
            raw = self.engine.raw_connection()
            driver.isolation_level = level
            driver.execute('BEGIN IMMEDIATE')
            driver.execute(str(INSERT), {'id': '1'})
            raw.close()
            self.assert_clean(driver)
        if sys.version_info >= (3, 12):
            for autocommit in (False, True):
                raw = self.engine.raw_connection()
                driver.autocommit = autocommit
                if autocommit:
                    driver.execute('BEGIN')
                driver.execute(str(INSERT), {'id': '1'})
                raw.close()
                self.assert_clean(driver)
        with self.engine.connect() as connection:
            self.assertEqual(0, connection.scalar(COUNT))

    def test_also_when_it_is_garbage(self) -> None:
        driver = self.driver()
        connection = self.engine.connect()
        connection.execution_options(isolation_level='READ UNCOMMITTED')
        self.write(connection)
        del connection
        gc.collect()
        self.assert_clean(driver)


class TestEndOfTurn(SQLiteTestCase):
    def test_with_the_transaction_while_the_connection_is_kept(self) -> None:
        connection = self.connect()
        for end in (connection.commit, connection.rollback) * 2:
            connection.execute(COUNT)
            end()
            self.others_write()
            self.write(connection)
            end()
            self.others_write()

    def test_of_a_session_of_the_caller(self) -> None:
        session = orm.Session(self.engine)
        self.addCleanup(session.close)
        for end in (session.commit, session.rollback, session.close) * 2:
            session.execute(COUNT)
            end()
            self.others_write()
            session.add(models.Operation(attempt=1))
            session.flush()
            end()
            self.others_write()

    def test_by_blocks(self) -> None:
        connection = self.connect()
        for error in (None, ValueError, KeyboardInterrupt):
            with contextlib.suppress(ValueError, KeyboardInterrupt):
                with connection.begin():
                    self.write(connection)
                    if error is not None:
                        raise error
            self.others_write()

    def test_not_with_a_savepoint(self) -> None:
        connection = self.connect()
        self.write(connection)
        for end in ('commit', 'rollback', 'close'):
            nested = connection.begin_nested()
            self.write(connection)
            getattr(nested, end)()
            self.assertRaises(exception.WouldWaitForItself, self.create)
        connection.commit()
        self.others_write()

    def test_when_begin_fails(self) -> None:
        self.database.configure(sqlite_busy_timeout=0.1, db_max_retries=0)
        self.engine = db.api.get_engine()
        connection = self.connect()
        with self.another_process():
            self.assertRaises(
                db_exception.DBDeadlock, connection.execute, COUNT
            )
        self.others_write()
        self.write(connection)
        connection.commit()
        self.others_write()

    @contextlib.contextmanager
    def another_process(self) -> Iterator[None]:
        """Let SQLite be locked, as by another process."""
        path = sa.make_url(self.database.connection).database
        assert path is not None
        locked = sqlite3.connect(path, isolation_level=None)
        locked.execute('BEGIN IMMEDIATE')
        try:
            yield
        finally:
            locked.close()

    def test_when_a_statement_fails(self) -> None:
        connection = self.connect()
        for _ in range(2):
            self.assertRaises(
                db_exception.DBError,
                connection.exec_driver_sql,
                'INSERT OR ROLLBACK INTO operations (id) VALUES (NULL)',
            )
            connection.rollback()
            self.others_write()

    def test_when_commit_fails(self) -> None:
        connection = self.connect()
        connection.exec_driver_sql('PRAGMA defer_foreign_keys = ON')
        connection.exec_driver_sql(
            "INSERT INTO resource_tags (resource_id, tag) VALUES ('1', 't')"
        )
        self.assertRaises(db_exception.DBError, connection.commit)
        self.others_write()
        connection.rollback()
        self.write(connection)
        connection.commit()
        self.others_write()

    def test_by_hand(self) -> None:
        connection = self.connect()
        for end in ('COMMIT', 'ROLLBACK', 'END'):
            self.write(connection)
            connection.exec_driver_sql(end)
            self.others_write()
            connection.rollback()
        self.write(connection)
        driver: Any = connection.connection.driver_connection
        driver.commit()
        self.others_write()

    def test_with_an_invalidated_connection(self) -> None:
        connection = self.engine.connect()
        self.write(connection)
        connection.invalidate()
        self.others_write()

    def test_with_a_detached_connection(self) -> None:
        for end in ('commit', 'rollback', 'close'):
            connection = self.connect()
            connection.detach()
            self.write(connection)
            self.assertRaises(exception.WouldWaitForItself, self.create)
            getattr(connection, end)()
            self.others_write()
        connection = self.engine.connect()
        self.write(connection)
        connection.detach()
        del connection
        self.others_write()

    def test_with_a_connection_that_nobody_has_any_more(self) -> None:
        connection = self.engine.connect()
        self.write(connection)
        del connection
        self.others_write()

    def test_also_when_it_is_in_a_cycle_of_references(self) -> None:
        class Holder:
            def __init__(self, connection: sa.Connection) -> None:
                self.connection, self.me = connection, self

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        connection = self.engine.connect()
        self.write(connection)
        gone = weakref.ref(Holder(connection))
        del connection
        self.assertIsNotNone(gone())
        self.create()
        self.assertIsNone(gone())

    def test_two_phases_are_refused_and_nothing_is_held(self) -> None:
        connection = self.connect()
        self.assertRaises(NotImplementedError, connection.begin_twophase)
        self.others_write()
        self.write(connection)
        connection.commit()
        self.others_write()

    def test_when_its_pool_is_disposed_of(self) -> None:
        connection = self.connect()
        self.write(connection)
        db.api.dispose()
        self.assertRaises(exception.WouldWaitForItself, self.create)
        connection.commit()
        self.others_write()


class TestWouldWaitForItself(SQLiteTestCase):
    def asks(self) -> list[Callable[[], Any]]:
        """Give the ways to ask for the turn."""

        def session() -> None:
            with db.api.get_session() as session, session.begin():
                session.execute(COUNT)

        def core() -> None:
            with db.api.get_session(core=True).begin() as session:
                session.execute(INSERT, {'id': 'core'})

        def autocommit() -> None:
            with db.api.get_session(autocommit=True).begin() as session:
                session.execute(INSERT, {'id': 'autocommit'})

        def engine() -> None:
            with db.api.get_engine().begin() as connection:
                connection.execute(COUNT)

        def transaction() -> None:
            with db.api.transaction(context.get_admin_context()) as session:
                session.execute(COUNT)

        def independent() -> None:
            with db.api.transaction(self.context, independent=True) as session:
                session.execute(COUNT)

        def in_transaction() -> None:
            db.api.run_in_transaction(
                context.get_admin_context(), lambda _: self.create()
            )

        return [
            self.create,
            session,
            core,
            autocommit,
            engine,
            transaction,
            independent,
            in_transaction,
        ]

    def assert_refused(self, *asks: Callable[[], Any]) -> None:
        for ask in asks:
            started = time.monotonic()
            error = self.assertRaises(exception.WouldWaitForItself, ask)
            self.assertIn('its own thread holds the lock', str(error))
            self.assertLess(time.monotonic() - started, LONG / 2)
        # Readers do not wait.
        self.assertEqual(
            [], db.api.service_get_all(context.get_admin_context())
        )

    def test_in_a_transaction(self) -> None:
        for handover, asks in ((False, self.asks()), (True, [self.create])):
            with db.api.transaction(
                self.context, handover=handover
            ) as session:
                self.write(session)
                self.assert_refused(*asks)
                # It is none the worse for it.
                self.write(session)
        with self.engine.begin() as connection:
            self.assertEqual(4, connection.scalar(COUNT))
        self.others_write()

    def test_in_a_session(self) -> None:
        session = db.api.get_session()
        with session.begin():
            session.execute(COUNT)
            self.assert_refused(self.create)
        with db.api.get_session(core=True).begin() as core:
            core.execute(COUNT)
            self.assert_refused(self.create)
        with orm.Session(self.engine) as own:
            own.execute(COUNT)
            self.assert_refused(self.create)
        self.others_write()

    def test_on_a_connection(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(COUNT)
            self.assert_refused(self.create)
        connection = self.connect()
        connection.execute(COUNT)
        self.assert_refused(self.create)
        connection.close()
        self.others_write()

    def test_in_listeners(self) -> None:
        refused = []

        def write(*_: Any) -> None:
            refused.append(
                self.assertRaises(exception.WouldWaitForItself, self.create)
            )

        for name in ('before_flush', 'after_flush', 'before_commit'):
            session = orm.Session(self.engine)
            event.listen(session, name, write)
            session.execute(COUNT)
            session.add(models.Operation(attempt=1))
            session.commit()
            session.close()
        self.assertEqual(3, len(refused))
        self.others_write()

    def test_before_anything_was_begun_nothing_is_held(self) -> None:
        with db.api.transaction(self.context):
            self.create()
            with db.api.transaction(self.context, independent=True):
                db.api.service_create(
                    self.context, {'host': 'h', 'binary': 'b'}
                )
            self.assertEqual(2, len(db.api.service_get_all(self.context)))

    def test_reading_transactions_hold_nothing(self) -> None:
        with db.api.transaction(self.context, read_only=True) as session:
            session.execute(COUNT)
            self.others_write()

    def test_engines_of_one_file_have_one_writer(self) -> None:
        other = self.useFixture(
            fixtures.OtherDatabase(connection=self.database.connection)
        )
        ctx = context.get_admin_context().using(other.engines)
        with db.api.transaction(self.context) as session:
            session.execute(COUNT)
            self.assertRaises(
                exception.WouldWaitForItself,
                db.api.service_create,
                ctx,
                {'host': 'h', 'binary': 'b'},
            )

    def test_another_database_does_not_wait(self) -> None:
        other = self.useFixture(fixtures.OtherDatabase())
        ctx = context.get_admin_context().using(other.engines)
        with db.api.transaction(self.context) as session:
            session.execute(COUNT)
            with db.api.transaction(ctx):
                db.api.service_create(ctx, {'host': 'h', 'binary': 'b'})
                self.assertRaises(exception.WouldWaitForItself, self.create)

    def test_a_task_does_not_wait_for_another_one_of_its_thread(self) -> None:
        async def hold() -> None:
            with db.api.transaction(context.get_admin_context()) as session:
                session.execute(COUNT)
                held.set()
                await asked.wait()

        async def ask() -> None:
            await held.wait()
            self.assertRaises(exception.WouldWaitForItself, self.create)
            asked.set()

        async def both() -> None:
            await asyncio.gather(hold(), ask())

        held, asked = asyncio.Event(), asyncio.Event()
        asyncio.run(both())
        self.others_write()


class TestWaitsForOthers(SQLiteTestCase):
    """What another thread holds, or was handed, is waited for."""

    def setUp(self) -> None:
        super().setUp()
        path = sa.make_url(self.database.connection).database
        assert path is not None
        self.path = path
        self.turns = sqlite_connection.turns_of(path)

    def assert_waits(
        self, ask: Callable[[], Any], end: Callable[[], Any]
    ) -> None:
        """Check that a call waits until another thread ends something."""
        ended = []

        def end_soon() -> None:
            give_up = time.monotonic() + LONG
            while len(self.turns.queue) < 2 and time.monotonic() < give_up:
                time.sleep(0.001)
            ended.append(len(self.turns.queue))
            end()

        ending = threading.Thread(target=end_soon)
        ending.start()
        ask()
        ending.join()
        self.assertEqual([2], ended)

    def begun(self) -> sa.Connection:
        connection = self.connect()
        self.write(connection)
        return connection

    def test_what_another_thread_has_begun(self) -> None:
        connection = elsewhere(self.begun)
        self.assert_waits(self.create, connection.commit)

    def test_what_another_thread_uses_now(self) -> None:
        connection = self.begun()
        elsewhere(lambda: self.write(connection))
        self.assert_waits(self.create, connection.commit)

    def test_what_was_handed_over(self) -> None:
        opened = db.api.transaction(self.context, handover=True)
        session = opened.__enter__()
        self.write(session)
        elsewhere(lambda: db.api.service_get_all(self.context))
        self.assert_waits(
            self.create, lambda: opened.__exit__(None, None, None)
        )

    def test_what_the_thread_has_begun_for_another_request(self) -> None:
        # As worker threads do: one thread, a Context for each piece of work.
        def begin() -> Any:
            ctx = context.get_admin_context()
            opened = db.api.transaction(ctx, handover=True)
            opened.__enter__().execute(COUNT)
            return opened

        opened = contextvars.Context().run(begin)
        self.assert_waits(
            lambda: contextvars.Context().run(self.create),
            lambda: opened.__exit__(None, None, None),
        )

    def test_for_sqlite_busy_timeout_as_a_whole(self) -> None:
        self.database.configure(sqlite_busy_timeout=3, db_max_retries=0)
        place = fair_lock.Place(self.turns)
        elsewhere(lambda: place.take(LONG))
        process = sqlite3.connect(self.path, isolation_level=None)
        process.execute('BEGIN IMMEDIATE')
        leaving = threading.Timer(2.5, place.leave)
        leaving.start()
        started = time.monotonic()
        self.assertRaises(db_exception.DBDeadlock, self.create)
        self.assertTrue(2.5 < time.monotonic() - started < 5)
        leaving.join()
        process.close()
        # What was left of it is not what the next one gets.
        with db.api.get_engine().connect() as connection:
            busy_timeout = connection.exec_driver_sql('PRAGMA busy_timeout')
            self.assertEqual(3000, busy_timeout.scalar())


class TestInMemory(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.useFixture(
            fixtures.Database('sqlite://', pool_timeout=LONG)
        )
        with db.api.get_engine().begin() as connection:
            models.Base.metadata.create_all(connection)

    def test_what_would_wait_for_its_own_thread_is_told_so(self) -> None:
        other = context.get_admin_context()

        def independent() -> None:
            with db.api.transaction(self.context, independent=True) as session:
                session.execute(COUNT)

        for handover in (False, True):
            with db.api.transaction(
                self.context, handover=handover
            ) as session:
                session.execute(COUNT)
                for ask in (
                    factories.create_service,
                    lambda: db.api.service_get_all(other),
                    db.api.get_engine().connect,
                    independent,
                ):
                    started = time.monotonic()
                    error = self.assertRaises(
                        exception.WouldWaitForItself, ask
                    )
                    self.assertIn('the one connection', str(error))
                    self.assertLess(time.monotonic() - started, LONG / 2)
                db.api.service_get_all(self.context)
        self.assertEqual([], db.api.service_get_all(other))

    def test_another_thread_waits(self) -> None:
        with futures.ThreadPoolExecutor(1) as pool:
            with db.api.transaction(self.context):
                db.api.service_get_all(self.context)
                asked = pool.submit(factories.create_service)
                time.sleep(0.1)
                self.assertFalse(asked.done())
            asked.result(LONG)

    def test_a_connection_that_nobody_has_any_more_is_free(self) -> None:
        connection = db.api.get_engine().connect()
        connection.execute(INSERT, {'id': '1'})
        del connection
        with db.api.get_engine().connect() as connection:
            self.assertEqual(0, connection.scalar(COUNT))
            connection.commit()
            connection.execute(INSERT, {'id': '1'})
            connection.commit()
        with db.api.get_engine().connect() as connection:
            self.assertEqual(1, connection.scalar(COUNT))

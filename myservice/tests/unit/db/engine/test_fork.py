"""What a forked child shares with its parent: nothing that is open."""

import contextlib
import functools
import os
import pickle
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import fixtures
import sqlalchemy as sa
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.engine import fork
from myservice.db.engine import sqlite_driver
from myservice.tests import base

# In seconds; for what takes far less where nothing is wrong.
_LONG = 60


class Child:
    """A forked child, which calls a function and sends what it returns."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._end, other = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # A child that waits for ever must not outlive the test.
            signal.alarm(_LONG)
            with os.fdopen(other, 'wb') as file:
                pickle.dump(_result(function), file)
            os._exit(0)
        os.close(other)

    def result(self) -> Any:
        """Wait for the child and return what it sent."""
        with os.fdopen(self._end, 'rb') as file:
            sent = file.read()
        os.waitpid(self.pid, 0)
        if not sent:
            raise AssertionError('the child was waiting for ever')
        result = pickle.loads(sent)
        if isinstance(result, AssertionError):
            raise result
        return result


def _result(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except exception.MyServiceError as error:
        return type(error).__name__, str(error)
    except BaseException:
        return AssertionError(traceback.format_exc())


def in_child(function: Callable[[], Any]) -> Any:
    return Child(function).result()


def create(ctx: context.RequestContext, host: str) -> str:
    """Create a service, and return its host."""
    row = db.api.service_create(ctx, {'host': host, 'binary': 'b'})
    return row.host


class ForkTestCase(base.DatabaseTestCase):
    def names(self) -> list[str]:
        rows = db.api.service_get_all(context.get_admin_context())
        return sorted(row.host for row in rows)

    def assert_refused(self, result: Any) -> None:
        name, message = result
        self.assertEqual('TransactionInUse', name)
        self.assertIn(f'belongs to process {os.getpid()}', message)


class TestTransactionOfTheParent(ForkTestCase):
    def test_calls_of_the_child_are_refused(self) -> None:
        def calls() -> list[Any]:
            return [
                _result(functools.partial(call, self.context))
                for call in self.calls()
            ]

        with db.api.transaction(self.context):
            create(self.context, 'parent')
            results = in_child(calls)
            rows = db.api.service_get_all(self.context)
        for result in results:
            self.assert_refused(result)
        self.assertEqual(['parent'], [row.host for row in rows])
        self.assertEqual(['parent'], self.names())

    def calls(self) -> list[Callable[[context.RequestContext], Any]]:
        def transaction(ctx: context.RequestContext) -> None:
            with db.api.transaction(ctx):
                pass

        def savepoint(ctx: context.RequestContext) -> None:
            with db.api.savepoint(ctx):
                pass

        return [
            db.api.service_get_all,
            lambda ctx: create(ctx, 'child'),
            lambda ctx: db.api.service_get_all(ctx.elevated()),
            lambda ctx: db.api.run_in_transaction(ctx, lambda _: None),
            lambda ctx: db.api.get_session(ctx, read_only=True),
            transaction,
            savepoint,
        ]

    def test_a_context_of_its_own_is_free(self) -> None:
        def call() -> list[str]:
            return self.names()

        with db.api.transaction(self.context):
            create(self.context, 'parent')
            self.assertEqual([], in_child(call))
        self.assertEqual(['parent'], self.names())

    def test_a_child_that_leaves_by_an_exception_ends_nothing(self) -> None:
        self.leave(KeyError('left'))

    def test_a_child_that_leaves_by_exit_ends_nothing(self) -> None:
        self.leave(SystemExit(0))

    def leave(self, error: BaseException) -> None:
        parent = os.getpid()
        children = []
        end, other = os.pipe()
        try:
            with db.api.transaction(self.context):
                create(self.context, 'before')
                children.append(os.fork())
                if children[0] == 0:
                    signal.alarm(_LONG)
                    raise error
                os.waitpid(children[0], 0)
                create(self.context, 'after')
        except BaseException as left:
            if os.getpid() == parent:
                raise
            # Having left, the child works with the same context.
            result = _result(lambda: len(db.api.service_get_all(self.context)))
            os.write(other, pickle.dumps((left is error, result)))
            os._exit(0)
        self.assertEqual((True, 0), pickle.loads(os.read(end, 10000)))
        self.assertEqual(['after', 'before'], self.names())

    def test_a_child_that_comes_to_the_end_is_refused(self) -> None:
        for form in ({}, {'core': True}, {'joined': True}):
            self.come_to_the_end(form, f'host-{form}')

    def come_to_the_end(self, form: dict[str, bool], host: str) -> None:
        parent = os.getpid()
        end, other = os.pipe()
        try:
            with self.block(form) as session:
                session.execute(
                    sa.insert(models.Service.__table__),
                    {'id': host, 'host': host, 'binary': 'b'},
                )
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                else:
                    signal.alarm(_LONG)
        except BaseException as error:
            if os.getpid() == parent:
                raise
            result = type(error).__name__, str(error)
            os.write(other, pickle.dumps(result))
            os._exit(0)
        if os.getpid() != parent:
            os._exit(1)
        self.assert_refused(pickle.loads(os.read(end, 10000)))
        self.assertIn(host, self.names())

    @contextlib.contextmanager
    def block(self, form: dict[str, bool]) -> Iterator[Any]:
        if form.get('joined'):
            with db.api.transaction(self.context) as session:
                yield session
        else:
            separate = db.api.get_session(self.context, **form)
            with separate.begin():
                yield separate


class TestSessionOfTheParent(ForkTestCase):
    FORMS: tuple[dict[str, bool], ...] = (
        {},
        {'read_only': True},
        {'autocommit': True},
        {'core': True},
    )

    def test_it_is_refused_in_each_form(self) -> None:
        statement = sa.select(sa.func.count()).select_from(models.Service)
        for form in self.FORMS:
            session: Any = db.api.get_session(self.context, **form)
            with session.begin():
                self.assertEqual(0, session.scalar(statement))
                self.assert_refused(
                    in_child(lambda s=session: s.scalar(statement))
                )
                self.assertEqual(0, session.scalar(statement))

    def test_one_that_has_not_begun_is_free(self) -> None:
        statement = sa.select(sa.func.count()).select_from(models.Service)

        def use() -> int:
            with session.begin():
                number: int = session.scalar(statement)
                return number

        for form in self.FORMS:
            session: Any = db.api.get_session(self.context, **form)
            self.assertEqual(0, in_child(use))

    def test_so_is_a_connection_of_the_engine(self) -> None:
        with db.api.get_engine().begin() as connection:
            connection.execute(sa.text('SELECT 1'))
            self.assert_refused(
                in_child(lambda: connection.execute(sa.text('SELECT 1')))
            )
            self.assert_refused(in_child(connection.commit))
            in_child(connection.rollback)
            self.assertEqual(
                1, connection.execute(sa.text('SELECT 1')).scalar()
            )


class TestPools(ForkTestCase):
    def connection_ids(self) -> set[Any]:
        """Return what the server calls the connections of the pools."""
        if self.backend == 'sqlite':
            return set()
        found = set()
        for form in ('transaction', 'autocommit', 'snapshot'):
            with self.database.engine(form).connect() as connection:
                driver: Any = connection.connection.driver_connection
                # A pooler tells each of its clients one of its own.
                found.add(
                    driver.thread_id()
                    if self.backend == 'mysql'
                    else driver.info.backend_pid
                )
        return found

    def test_a_child_that_disposes_leaves_those_of_the_parent(self) -> None:
        create(self.context, 'before')
        before = self.connection_ids()

        def use() -> Any:
            db.api.dispose()
            create(self.context, 'child')
            ids = self.connection_ids()
            db.api.dispose()
            return ids

        ids = in_child(use)
        self.assertEqual(set(), ids & before)
        self.assertEqual(before, self.connection_ids())
        self.assertEqual(['before', 'child'], self.names())

    def test_a_pool_that_is_used_up_is_not_that_of_the_child(self) -> None:
        self.database.configure(
            max_pool_size=1, max_overflow=0, pool_timeout=1
        )
        with self.database.engine('read').connect():
            self.assertEqual([], in_child(self.names))

    def test_an_engine_stays_the_one_that_others_listen_to(self) -> None:
        engine = db.api.get_engine()
        create(self.context, 'host')
        seen: list[str] = []
        event.listen(
            engine,
            'before_cursor_execute',
            lambda c, u, statement, *_: seen.append(statement),
        )

        def use() -> tuple[bool, list[str]]:
            with engine.connect() as connection:
                connection.execute(sa.text('SELECT 42'))
            return db.api.get_engine() is engine, seen[-1:]

        self.assertEqual((True, ['SELECT 42']), in_child(use))

    def test_an_engine_that_is_just_connecting_starts_anew(self) -> None:
        engine = db.api.get_engine()
        one = sa.text('SELECT 1')
        connecting, forked = threading.Event(), threading.Event()

        def wait(*_: Any) -> None:
            connecting.set()
            forked.wait(_LONG)

        # Before what connects.
        event.listen(engine, 'do_connect', wait, insert=True)
        thread = threading.Thread(target=lambda: engine.connect().close())
        thread.start()
        connecting.wait(_LONG)
        try:
            child = Child(lambda: db.api.get_engine().connect().scalar(one))
            self.assertEqual(1, child.result())
        finally:
            forked.set()
            thread.join()

    def test_statistics_begin_at_nothing(self) -> None:
        self.names()
        self.assertEqual({}, in_child(lambda: db.api.statistics().calls))
        self.assertLess(0, db.api.statistics().calls['service_get_all'])

    def test_children_of_children(self) -> None:
        def child() -> Any:
            create(self.context, 'child')
            with db.api.transaction(self.context):
                create(self.context, 'in doubt')
                refused = in_child(
                    lambda: db.api.service_get_all(self.context)
                )
            return refused, os.getpid(), in_child(self.names)

        (name, message), pid, names = in_child(child)
        self.assertEqual('TransactionInUse', name)
        self.assertIn(f'process {pid}', message)
        self.assertEqual(['child', 'in doubt'], names)


class TestWhileOthersWork(ForkTestCase):
    def test_a_child_has_its_turn_after_a_writer_of_the_parent(self) -> None:
        writing, forked = threading.Event(), threading.Event()

        def write() -> None:
            ctx = context.get_admin_context()
            with db.api.transaction(ctx):
                create(ctx, 'thread')
                writing.set()
                forked.wait(_LONG)

        thread = threading.Thread(target=write)
        thread.start()
        writing.wait(_LONG)
        child = Child(lambda: create(self.context, 'child'))
        forked.set()
        thread.join()
        self.assertEqual('child', child.result())
        self.assertEqual(['child', 'thread'], self.names())

    def test_nobody_gets_the_answer_of_another_one(self) -> None:
        services = [
            db.api.service_create(
                self.context, {'host': f'host-{number}', 'binary': 'b'}
            )
            for number in range(4)
        ]
        done = threading.Event()
        wrong: list[Any] = []

        def read(number: int) -> int:
            ctx = context.get_admin_context()
            row = db.api.service_get(ctx, services[number].id)
            db.api.service_update(
                ctx, services[number].id, {'topic': f'{os.getpid()}'}
            )
            return int(row.host != f'host-{number}')

        def keep_reading(number: int) -> None:
            try:
                while not done.is_set():
                    wrong.extend([number] * read(number))
            except Exception as error:
                wrong.append(error)

        threads = [
            threading.Thread(target=keep_reading, args=(number,))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        children = [
            Child(lambda: sum(read(3) for _ in range(20))) for _ in range(10)
        ]
        results = [child.result() for child in children]
        done.set()
        for thread in threads:
            thread.join()
        self.assertEqual([0] * 10, results)
        self.assertEqual([], wrong)


class TestSqlite(ForkTestCase):
    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'sqlite':
            self.skipTest('about SQLite')

    def test_nothing_is_lost_when_the_parent_closes_the_file(self) -> None:
        # It would remove the log, which the child would go on writing to, if
        # SQLite believed that the child holds the locks of its parent.
        create(self.context, 'parent')
        end, other = os.pipe()

        def write() -> None:
            create(self.context, 'child 1')
            os.read(end, 1)
            create(self.context, 'child 2')

        child = Child(write)
        while 'child 1' not in self.names():
            pass
        db.api.dispose()
        os.write(other, b'x')
        child.result()
        self.assertEqual(['child 1', 'child 2', 'parent'], self.names())

    def test_open_results_do_not_keep_the_file_open_in_the_child(self) -> None:
        path = self.database.connection.removeprefix('sqlite:///')
        for number in range(3):
            create(self.context, f'host-{number}')
        connection = sqlite3.connect(
            path, factory=sqlite_driver.Connection, check_same_thread=False
        )
        cursor = connection.execute('SELECT id FROM services')
        cursor.fetchone()

        def is_open() -> bool:
            links = (
                f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')
            )
            return any(
                os.path.exists(link) and os.path.samefile(link, path)
                for link in links
            )

        self.assertTrue(is_open())
        self.assertFalse(in_child(is_open))
        self.assertEqual(2, len(cursor.fetchall()))
        connection.close()

    def test_one_that_is_closed_is_closed_again(self) -> None:
        path = self.database.connection.removeprefix('sqlite:///')
        connection = sqlite3.connect(
            path, factory=sqlite_driver.Connection, check_same_thread=False
        )
        cursor = connection.execute('SELECT 1')
        connection.close()
        connection.close()
        del cursor

    def test_a_child_of_a_busy_parent_says_so(self) -> None:
        self.useFixture(fixtures.MockPatchObject(fork, 'PATIENCE', 0.1))
        path = self.database.connection.removeprefix('sqlite:///')
        connection = sqlite3.connect(
            path, factory=sqlite_driver.Connection, check_same_thread=False
        )
        inside, forked = threading.Event(), threading.Event()

        def wait() -> int:
            inside.set()
            forked.wait(_LONG)
            return 1

        connection.create_function('wait', 0, wait)
        thread = threading.Thread(
            target=connection.execute, args=('SELECT wait()',)
        )
        thread.start()
        inside.wait(_LONG)
        name, message = in_child(self.names)
        # A child of that child inherits what it could not close.
        name_there, _ = in_child(lambda: in_child(self.names))
        forked.set()
        thread.join()
        connection.close()
        self.assertEqual('ForkedWhileBusy', name)
        self.assertEqual('ForkedWhileBusy', name_there)
        self.assertIn('fork again', message)

    def test_nothing_is_in_the_file_before_commit(self) -> None:
        # A child that closes what it has inherited would undo it.
        path = self.database.connection.removeprefix('sqlite:///')
        connection = sqlite3.connect(
            path, factory=sqlite_driver.Connection, check_same_thread=False
        )
        connection.execute('PRAGMA journal_mode = WAL')
        connection.execute('CREATE TABLE big (value)')
        connection.commit()
        before = os.path.getsize(f'{path}-wal')
        connection.execute('BEGIN')
        for _ in range(100):
            connection.execute('INSERT INTO big VALUES (zeroblob(100000))')
        self.assertEqual(before, os.path.getsize(f'{path}-wal'))
        in_child(lambda: None)
        connection.commit()
        self.assertEqual(
            (100,), connection.execute('SELECT count(*) FROM big').fetchone()
        )
        self.assertEqual(
            ('ok',), connection.execute('PRAGMA integrity_check').fetchone()
        )
        connection.close()

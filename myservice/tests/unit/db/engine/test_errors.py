"""Whose an error is: only what a driver has raised is a driver's."""

import contextlib
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import event
from sqlalchemy import orm

from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

_SERVICES = models.Base.metadata.tables['services']


class TimeLimit(Exception):
    """What a task queue raises in a signal handler."""


class DriversLookalike(TimeoutError):
    """An OSError, as drivers meet on the network."""


# By their first argument, or by their class, each was once taken for an error
# of a driver, some of them for one that passes if it is tried again.
def foreign_errors() -> list[Exception]:
    return [
        KeyError(5),
        KeyError(),
        TimeLimit(),
        TimeLimit(
            5,
        ),
        TimeLimit(1213, 'x'),
        TimeLimit('40001'),
        ValueError('a database is locked'),
        LookupError(2013, 'Lost connection to MySQL server during query'),
        TimeoutError('too long'),
        DriversLookalike(4),
        NotImplementedError(),
        sa.exc.ResourceClosedError('theirs'),
        UnicodeEncodeError('ascii', 'ä', 0, 1, 'no'),
        OverflowError('theirs'),
        exception.ServiceNotFound(service_id='1'),
    ]


def few_errors() -> list[Exception]:
    """Return one of each kind, for what takes its time."""
    return [
        KeyError(5),
        TimeLimit(1213, 'x'),
        TimeoutError('too long'),
        UnicodeEncodeError('ascii', 'ä', 0, 1, 'no'),
    ]


class _Broken(sa.types.TypeDecorator[str]):
    """A type that raises what it is given, in one direction."""

    impl = sa.String(50)
    cache_ok = False

    def __init__(
        self, sent: Exception | None = None, got: Exception | None = None
    ) -> None:
        super().__init__()
        self._sent, self._got = sent, got

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if self._sent is not None:
            raise self._sent
        return value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        if self._got is not None:
            raise self._got
        return value


class ForeignTestCase(base.DatabaseTestCase):
    """A test of an error that passes through the layer."""

    def assert_untouched(
        self,
        error: BaseException,
        function: Callable[[], Any],
        in_doubt: bool = False,
    ) -> None:
        """Assert that a function lets one error out, the very same object.

        :param in_doubt: whether a note says that the outcome is unknown
        """
        cause = error.__cause__
        try:
            function()
        except BaseException as raised:
            if raised is not error:
                self.fail(f'{error!r} became {raised!r}')
        else:
            self.fail(f'{error!r} was lost')
        self.assertIs(cause, error.__cause__)
        self.assertEqual(in_doubt, len(getattr(error, '__notes__', [])))
        # Who walks along the causes comes to an end.
        traceback.format_exception(error)

    def attempts(self, function: Callable[[], Any], error: Exception) -> int:
        """Return how often a function is called in the end."""
        calls: list[None] = []

        def call(_: object) -> None:
            calls.append(None)
            function()

        self.assert_untouched(
            error, lambda: db.api.run_in_transaction(self.context, call)
        )
        return len(calls)


class TestTypes(ForeignTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = factories.create_service()

    def statement(self, broken: _Broken) -> Any:
        column = sa.type_coerce(_SERVICES.c.host, broken)
        return sa.select(column).where(column == 'h')

    def assert_in_each_form(self, error: Exception, statement: Any) -> None:
        for form in ({}, {'read_only': True}, {'autocommit': True}):
            session = db.api.get_session(self.context, **form)

            def execute(session: Any = session) -> None:
                with session.begin():
                    session.execute(statement).all()

            self.assert_untouched(error, execute)

        def on_connection() -> None:
            with db.api.get_engine().connect() as connection:
                connection.execute(statement).all()

        self.assert_untouched(error, on_connection)

        def joined() -> None:
            session = db.api.get_session(self.context)
            with session.begin():
                session.execute(statement).all()

        self.assertEqual(1, self.attempts(joined, error))

    def test_one_that_fails_as_it_sends(self) -> None:
        for error in foreign_errors():
            self.assert_in_each_form(error, self.statement(_Broken(error)))

    def test_one_that_fails_as_it_reads(self) -> None:
        host = self.service.host
        for error in foreign_errors():
            column = sa.type_coerce(_SERVICES.c.host, _Broken(got=error))
            self.assert_in_each_form(
                error, sa.select(column).where(_SERVICES.c.host == host)
            )

    def test_one_that_fails_in_a_flush(self) -> None:
        for error in foreign_errors():

            class Base(orm.DeclarativeBase):
                pass

            class Mine(Base):
                __tablename__ = 'services'
                id: orm.Mapped[str] = orm.mapped_column(
                    _Broken(error), primary_key=True
                )

            def flush(mine: Any = Mine) -> None:
                with db.api.transaction(self.context) as session:
                    session.add(mine(id='x'))
                    session.flush()

            self.assert_untouched(error, flush)


class TestListeners(ForeignTestCase):
    @contextlib.contextmanager
    def listener(self, target: Any, name: str, call: Any) -> Iterator[None]:
        event.listen(target, name, call)
        try:
            yield
        finally:
            event.remove(target, name, call)

    def raising(self, error: BaseException) -> Callable[..., None]:
        def call(*_: Any, **__: Any) -> None:
            raise error

        return call

    def test_an_error_of_a_listener_is_its_own(self) -> None:
        for name in (
            'before_cursor_execute',
            'after_cursor_execute',
            'before_execute',
            'after_execute',
            'do_execute',
            'begin',
            'commit',
            'checkout',
            'connect',
        ):
            for error in [*few_errors(), NotImplementedError()]:
                self.database.configure()
                engine = db.api.get_engine()
                if name != 'connect':
                    engine.connect().close()
                with self.listener(engine, name, self.raising(error)):
                    self.assert_untouched(error, self._use_engine)

    def _use_engine(self) -> None:
        with db.api.get_engine().begin() as connection:
            connection.execute(sa.select(_SERVICES)).all()

    def test_an_error_of_a_listener_is_raised_once(self) -> None:
        for form in ('transaction', 'autocommit'):
            self.database.engine(form).connect().close()
        for error in foreign_errors():
            engine = db.api.get_engine()
            with self.listener(engine, 'do_execute', self.raising(error)):

                def read() -> None:
                    session = db.api.get_session()
                    with session.begin():
                        session.execute(sa.select(_SERVICES))

                self.assert_untouched(error, read)
            engine = self.database.engine('autocommit')
            with self.listener(engine, 'do_execute', self.raising(error)):
                self.assert_untouched(
                    error, lambda: db.api.service_get_all(self.context)
                )

    def test_one_that_fails_as_the_first_connection_is_made(self) -> None:
        # SQLAlchemy asks the server what it is, before anybody else does.
        for position in range(4 if self.backend != 'sqlite' else 0):
            for error in (KeyError(5), TimeLimit(5), TimeoutError()):
                self.database.configure()
                self._fail_at(position, error)
                self.assert_untouched(
                    error, lambda: db.api.service_get_all(self.context)
                )
                event.remove(*self.listening)
                self.assertEqual([], db.api.service_get_all(self.context))

    def _fail_at(self, position: int, error: Exception) -> None:
        left = [None] * position

        def call(*_: Any) -> None:
            if not left:
                raise error
            left.pop()

        self.listening = self.database.engine('read'), 'do_execute', call
        event.listen(*self.listening)

    def test_others_see_the_error_once_as_what_it_means(self) -> None:
        for form in ('transaction', 'core', 'autocommit', 'read', 'snapshot'):
            self.database.configure()
            engine = self.database.engine(form)
            self._assert_seen_once(engine, engine)

    def test_a_listener_of_all_engines(self) -> None:
        for form in ('transaction', 'core', 'autocommit', 'read', 'snapshot'):
            self._assert_seen_once(sa.Engine, self.database.engine(form))

    def _assert_seen_once(self, target: Any, engine: sa.Engine) -> None:
        seen: list[Any] = []

        def listen(context: Any) -> None:
            seen.append(
                (context.original_exception, context.chained_exception)
            )

        with (
            self.listener(target, 'handle_error', listen),
            engine.connect() as connection,
        ):
            error = self.assertRaises(
                db_exception.DBNonExistentTable,
                connection.exec_driver_sql,
                'SELECT * FROM nosuch',
            )
        [(original, chained)] = seen
        self.assertIs(error.__cause__, original)
        self.assertIs(error, chained)

    def test_others_see_the_errors_of_calls(self) -> None:
        factories.create_service(host='h', binary='b')
        seen: list[Any] = []

        def listen(context: Any) -> None:
            seen.append(context.original_exception)

        with self.listener(sa.Engine, 'handle_error', listen):
            self.assertRaises(
                exception.ServiceExists,
                factories.create_service,
                host='h',
                binary='b',
            )
        self.assertEqual(1, len(seen))

    def test_others_may_raise_another_one(self) -> None:
        error = KeyError(5)
        engine = db.api.get_engine()
        with self.listener(engine, 'handle_error', self.raising(error)):
            with engine.connect() as connection:
                raised = self.assertRaises(
                    KeyError, connection.exec_driver_sql, 'SELEKT'
                )
        self.assertIs(error, raised)

    def test_no_words_of_a_text_are_looked_at(self) -> None:
        from oslo_db.sqlalchemy import exc_filters

        for form in ('transaction', 'autocommit', 'snapshot'):
            engine = self.database.engine(form)
            self.assertFalse(
                event.contains(engine, 'handle_error', exc_filters.handler)
            )
            self.assertNotIn(
                exc_filters.handler, list(engine.dialect.dispatch.handle_error)
            )

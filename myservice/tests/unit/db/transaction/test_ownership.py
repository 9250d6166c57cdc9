"""A part of a shared transaction does not end it, whatever it tries."""

import warnings
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base

OPERATIONS = models.Operation.__table__


def begin_in(block: Any) -> None:
    with block:
        pass


def end_bound_session(session: Any) -> None:
    """Roll a session back that works on the same connection."""
    other = orm.Session(session.connection())
    try:
        other.execute(sa.select(1))
    finally:
        other.rollback()


# What a part may try, by name, on the session that it got.
OF_THE_SESSION: dict[str, Callable[[Any], Any]] = {
    'reset': lambda s: s.reset(),
    'invalidate': lambda s: s.invalidate(),
    'commit': lambda s: s.get_transaction().commit(),
    'rollback': lambda s: s.get_transaction().rollback(),
    'close': lambda s: s.get_transaction().close(),
    'prepare': lambda s: s.get_transaction().prepare(),
    'session.prepare': lambda s: s.prepare(),
    'with': lambda s: begin_in(s.get_transaction()),
    'parent': lambda s: s.begin_nested().parent.rollback(),
}
OF_THE_CONNECTION: dict[str, Callable[[Any], Any]] = {
    'begin': lambda c: c.begin(),
    'commit': lambda c: c.commit(),
    'rollback': lambda c: c.rollback(),
    'close': lambda c: c.close(),
    'with': lambda c: begin_in(c),
    'invalidate': lambda c: c.invalidate(),
    'detach': lambda c: c.detach(),
    'transaction.commit': lambda c: c.get_transaction().commit(),
    'transaction.rollback': lambda c: c.get_transaction().rollback(),
    'transaction.close': lambda c: c.get_transaction().close(),
    'isolation_level': lambda c: c.execution_options(
        isolation_level='AUTOCOMMIT'
    ),
}
STATEMENTS = (
    'COMMIT',
    ' commit',
    'COMMIT AND CHAIN',
    'ROLLBACK',
    'rollback work',
    'BEGIN',
    'START TRANSACTION',
    'END',
    'SET autocommit=1',
    'SET SESSION autocommit = 1',
    'SET @@autocommit = 1',
    '-- a comment\nCOMMIT',
    '/* a comment */ COMMIT',
    "SELECT 'a' ; -- and so on\n COMMIT",
)
# Inside of a transaction these are harmless, where they are known.
HARMLESS = {
    'sqlite': (
        'CREATE TRIGGER t AFTER DELETE ON operations '
        "BEGIN SELECT 'a'; SELECT 'b'; END",
    ),
    'postgresql': (
        'DO $$ BEGIN PERFORM 1; END; $$',
        'DO $body$ BEGIN PERFORM 1; IF false THEN COMMIT; END IF; END $body$',
        'CREATE TABLE ended (a INT)',
    ),
    'mysql': (
        'ANALYZE SELECT 1',
        'CREATE OR REPLACE TEMPORARY TABLE begun (a INT)',
        'DROP TEMPORARY TABLE begun',
    ),
}


class OwnershipTestCase(base.DatabaseTestCase):
    def count(self) -> int:
        session = db.api.get_session(read_only=True)
        with session.begin():
            return int(
                session.scalar(
                    sa.select(sa.func.count()).select_from(OPERATIONS)
                )
            )

    def check_refused(
        self, attempt: Callable[[Any], Any], case: Any, **options: Any
    ) -> None:
        """Check that a part is refused, and that the owner's goes on."""
        before = self.count()
        with db.api.transaction(self.context, **options) as session:
            add(session)
            # Not yet flushed: it must not get lost either.
            session.add(models.Operation(attempt=7))
            part = db.api.get_session(self.context)
            error = self.assertRaises(
                exception.NotTransactionOwner, attempt, part
            )
            self.assertIn('savepoint', str(error), case)
            self.assertEqual(before, self.count(), case)
            add(session)
        self.assertEqual(before + 3, self.count(), case)
        self.check_rolls_back(attempt, **options)
        for pool in db.api.statistics().pools.values():
            self.assertEqual(0, pool['checked_out'], case)

    def check_rolls_back(
        self, attempt: Callable[[Any], Any], **options: Any
    ) -> None:
        """Check that the error of a part, let out, undoes all."""
        before = self.count()

        def work() -> None:
            with db.api.transaction(self.context, **options) as session:
                add(session)
                attempt(db.api.get_session(self.context))

        self.assertRaises(exception.NotTransactionOwner, work)
        self.assertEqual(before, self.count())


def add(session: Any) -> None:
    session.execute(sa.insert(models.Operation), {'attempt': 1})


class TestParts(OwnershipTestCase):
    def test_the_session_refuses_to_end(self) -> None:
        for options in ({}, {'handover': True}):
            for case, attempt in OF_THE_SESSION.items():
                self.check_refused(attempt, case, **options)

    def test_its_connection_refuses_to_end(self) -> None:
        for case, attempt in OF_THE_CONNECTION.items():
            self.check_refused(
                lambda s, attempt=attempt: attempt(s.connection()), case
            )

    def test_a_session_on_its_connection_does_not_end_it(self) -> None:
        self.check_refused(end_bound_session, 'a Session')

    def test_statements_that_end_it_are_not_sent(self) -> None:
        for sql in STATEMENTS:
            for attempt in (
                lambda s, sql=sql: s.execute(sa.text(sql)),
                lambda s, sql=sql: s.scalar(sa.text(sql)),
                lambda s, sql=sql: s.scalars(sa.text(sql)),
                lambda s, sql=sql: s.connection().execute(sa.text(sql)),
                lambda s, sql=sql: s.connection().scalar(sa.text(sql)),
                lambda s, sql=sql: s.connection().scalars(sa.text(sql)),
                lambda s, sql=sql: s.connection().exec_driver_sql(sql),
            ):
                self.check_refused(attempt, sql)

    def test_nor_is_ddl_where_it_would_commit(self) -> None:
        things = sa.Table(
            'things', sa.MetaData(), sa.Column('name', sa.String(9))
        )
        ddl: Any = sa.DDL
        for statement in (
            sa.schema.CreateTable(things),
            sa.text('CREATE TABLE things (name VARCHAR(9))'),
            ddl('CREATE TABLE things (name VARCHAR(9))'),
        ):
            if self.backend == 'mysql':
                self.check_refused(
                    lambda s, statement=statement: s.execute(statement),
                    str(statement),
                )
                continue
            with (
                self.assertRaises(ZeroDivisionError),
                db.api.transaction(self.context) as session,
            ):
                session.execute(statement)
                raise ZeroDivisionError
            names = sa.inspect(db.api.get_engine()).get_table_names()
            self.assertNotIn('things', names)

    def test_statements_that_only_look_like_it_are_sent(self) -> None:
        with (
            self.assertRaises(ZeroDivisionError),
            db.api.transaction(self.context) as session,
        ):
            add(session)
            session.execute(sa.text("SELECT 'a; COMMIT'"))
            session.execute(sa.text('SELECT 1 -- so far; COMMIT comes later'))
            session.execute(sa.text('SELECT 1 /* ; ROLLBACK */'))
            for sql in HARMLESS[self.backend]:
                session.connection().exec_driver_sql(sql)
            session.execute(sa.text('SAVEPOINT s'))
            add(session)
            session.execute(sa.text('ROLLBACK TO SAVEPOINT s'))
            session.execute(sa.text('RELEASE SAVEPOINT s'))
            raise ZeroDivisionError

        self.assertEqual(0, self.count())

    def test_a_savepoint_of_another_part_is_not_ended(self) -> None:
        for name in ('commit', 'rollback', 'close'):

            def work(name: str = name) -> None:
                with db.api.savepoint(self.context):
                    add(db.api.get_session(self.context))
                    part = db.api.get_session(self.context)
                    savepoint = part.get_nested_transaction()
                    self.assertRaises(
                        exception.NotTransactionOwner, getattr(savepoint, name)
                    )
                    on_the_wire = part.connection().get_nested_transaction()
                    self.assertRaises(
                        exception.NotTransactionOwner,
                        getattr(on_the_wire, name),
                    )
                    add(part)

            before = self.count()
            with db.api.transaction(self.context):
                work()
            self.assertEqual(before + 2, self.count(), name)

    def test_a_savepoint_of_its_own_a_part_may_end(self) -> None:
        with db.api.transaction(self.context) as session:
            part = db.api.get_session(self.context)
            for end in ('rollback', 'commit'):
                savepoint = part.begin_nested()
                add(part)
                getattr(savepoint, end)()
            with part.connection().begin_nested():
                add(part)
            # What is left open ends with the transaction.
            part.begin_nested()
            add(part)
            add(session)
        self.assertEqual(4, self.count())

    def test_reading_what_is_open_is_fine(self) -> None:
        with db.api.transaction(self.context) as session:
            add(session)
            transaction: Any = session.get_transaction()
            connection: Any = session.connection()
            self.assertEqual(
                (True, False, None, session),
                (
                    transaction.is_active,
                    transaction.nested,
                    transaction.parent,
                    transaction.session,
                ),
            )
            self.assertIs(True, connection.get_transaction().is_active)
            self.assertIs(True, connection.in_transaction())
            self.assertIsNone(connection.get_nested_transaction())
            self.assertIn(
                'operations', sa.inspect(connection).get_table_names()
            )
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                session.connection(
                    execution_options={'isolation_level': 'SERIALIZABLE'}
                )
            session.expunge_all()
            orm.close_all_sessions()
            add(session)
        self.assertEqual(2, self.count())

    def test_its_own_session_is_anybodys_own(self) -> None:
        ends: tuple[Callable[[Any], Any], ...] = (
            lambda s: s.reset(),
            lambda s: s.get_transaction().rollback(),
            lambda s: s.connection().rollback(),
        )
        for end in ends:
            session = db.api.get_session(self.context)
            session.begin()
            add(session)
            end(session)
            session.close()
            self.assertEqual(0, self.count())
        session = db.api.get_session(self.context)
        session.begin()
        add(session)
        begun = session.get_transaction()
        assert begun is not None
        begun.commit()
        self.assertEqual(1, self.count())

    def test_in_the_end_it_ends(self) -> None:
        with db.api.transaction(self.context) as session:
            add(session)
            connection = session.connection()
        self.assertIsNone(session.get_transaction())
        self.assertTrue(connection.closed)
        session.reset()
        session.invalidate()
        connection.close()
        self.assertRaises(
            exception.TransactionEnded, session.execute, sa.select(1)
        )

    def test_a_connection_of_ones_own_is_ones_own_again(self) -> None:
        with db.api.get_engine().connect() as connection:
            with db.api.transaction(self.context, bind=connection) as session:
                add(session)
                self.assertRaises(
                    exception.NotTransactionOwner, connection.commit
                )
            self.assertEqual(1, self.count())
            with connection.begin() as transaction:
                with db.api.transaction(
                    self.context, bind=connection
                ) as session:
                    add(session)
                transaction.rollback()
            with connection.begin():
                with db.api.transaction(
                    self.context, bind=connection
                ) as session:
                    add(session)
            connection.execute(sa.select(1))
            connection.commit()
        self.assertEqual(2, self.count())

    def test_a_listener_at_the_end_does_not_end_it_otherwise(self) -> None:
        for name in ('before_commit', 'before_flush', 'after_flush'):
            for attempt in (
                lambda s: s.connection().commit(),
                lambda s: s.execute(sa.text('COMMIT')),
                lambda s: s.get_transaction().commit(),
                lambda s: s.get_transaction().rollback(),
            ):

                def work(name: str = name, attempt: Any = attempt) -> None:
                    with db.api.transaction(self.context) as session:
                        add(session)
                        sa.event.listen(
                            session, name, lambda *_: attempt(session)
                        )
                        session.add(models.Operation(attempt=1))

                self.assertRaises(
                    (exception.NotTransactionOwner, sa.exc.SQLAlchemyError),
                    work,
                )
                self.assertEqual(0, self.count(), name)

    def test_an_independent_one_inside_is_ended_by_its_block_too(
        self,
    ) -> None:
        if self.backend == 'sqlite':
            self.skipTest('it has one writer')
        with db.api.transaction(self.context) as outer:
            add(outer)
            with db.api.transaction(self.context, independent=True) as inner:
                add(inner)
                for session in (outer, inner):
                    self.assertRaises(
                        exception.NotTransactionOwner,
                        OF_THE_SESSION['commit'],
                        session,
                    )
            self.assertEqual(1, self.count())
            self.assertRaises(exception.NotTransactionOwner, outer.reset)
        self.assertEqual(2, self.count())

    def test_another_thread_does_not_end_it_either(self) -> None:
        other = context.get_admin_context()
        with db.api.transaction(other, handover=True) as session:
            add(session)

            def attempt(_: int) -> None:
                shared = db.api.get_session(other).get_transaction()
                assert shared is not None
                shared.commit()

            (error,) = self.in_threads(1, attempt)
            self.assertIsInstance(error, exception.NotTransactionOwner)
            self.assertEqual(0, self.count())
        self.assertEqual(1, self.count())

"""What only reads does not write; what holds no lock does not ask for one."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.sql import write_detection
from myservice.db.sql.write_detection import Effect
from myservice.tests import base
from myservice.tests import factories

SERVICE = models.Service
TABLE: Any = models.Service.__table__
NEW = {'id': 'new', 'host': 'h', 'binary': 'b', 'version': 1, 'operation': ''}
INSERT = "INSERT INTO services (id) VALUES ('x')"

# By any object that a session gives into the hands of its user.
WRITES: dict[str, Callable[[Any], Any]] = {
    'an object that is added': lambda s: [s.add(SERVICE(**NEW)), s.flush()],
    'insert of a model': lambda s: s.execute(sa.insert(SERVICE), [NEW]),
    'insert that returns': lambda s: s.scalars(
        sa.insert(SERVICE).returning(SERVICE), [NEW]
    ),
    'update of a model': lambda s: s.execute(
        sa.update(SERVICE), [{'id': 'x', 'version': 2}]
    ),
    'bulk_insert_mappings': lambda s: s.bulk_insert_mappings(SERVICE, [NEW]),
    'bulk_update_mappings': lambda s: s.bulk_update_mappings(SERVICE, [NEW]),
    'bulk_save_objects': lambda s: s.bulk_save_objects([SERVICE(**NEW)]),
    'query': lambda s: s.query(SERVICE).update({'version': 2}),
    'lock': lambda s: s.execute(sa.select(SERVICE).with_for_update()),
    'get': lambda s: s.get(SERVICE, 'x', with_for_update=True),
    'connection': lambda s: s.connection().execute(sa.delete(TABLE)),
    'its scalar': lambda s: s.connection().scalar(sa.delete(TABLE)),
    'its scalars': lambda s: s.connection().scalars(sa.delete(TABLE)),
    'driver SQL': lambda s: s.connection().exec_driver_sql(INSERT),
}

# Statements, for a Core session too.
WRITTEN: list[Any] = [
    sa.insert(SERVICE),
    sa.select(sa.delete(SERVICE).returning(SERVICE.id).cte()),
    sa.select(SERVICE).from_statement(sa.text('DELETE FROM services')),
    sa.text('DELETE FROM services').columns(TABLE.c.id),
    sa.select(sa.text('1 INTO x')),
    sa.schema.CreateTable(TABLE),
    *map(
        sa.text,
        (
            '/* c */ delete from services',
            '-- c\nDELETE FROM services',
            '# c\nDELETE FROM services',
            'WITH x AS (DELETE FROM services RETURNING id) SELECT * FROM x',
            "SELECT * INTO OUTFILE '/tmp/x' FROM services",
            'select id into copy from services',
            r"select 'a\' into outfile '",
            "select 1--1 into outfile 'x'",
            'SELECT 1; DELETE FROM services',
            'SELECT 1 /*! INTO OUTFILE 1 */',
            'SELECT 1 /*M! INTO OUTFILE 1 */',
            'CALL something()',
            'EXPLAIN ANALYZE DELETE FROM services',
            'EXPLAIN (ANALYZE) CREATE TABLE x AS SELECT 1',
            'EXPLAIN SELECT 1; DELETE FROM services',
            'SET x = 1',
            'PRAGMA query_only = OFF',
            'DO something()',
            'TRUNCATE services',
        ),
    ),
]
LOCKING: list[Any] = [
    sa.select(TABLE).with_for_update(),
    sa.select(TABLE).with_for_update(read=True, skip_locked=True),
    sa.select(sa.select(TABLE).with_for_update().cte()),
    sa.union_all(sa.select(TABLE.c.id).with_for_update(), sa.select(1)),
    sa.text('SELECT id FROM services FOR  UPDATE'),
    sa.text('SELECT id FROM services FOR NO KEY UPDATE'),
    sa.text('SELECT id FROM services\nFOR\nSHARE'),
    sa.text('SELECT id FROM services LOCK IN SHARE MODE'),
]
READ: list[Any] = [
    sa.select(SERVICE),
    sa.select(SERVICE).from_statement(sa.text('SELECT * FROM services')),
    sa.text('SELECT id FROM services').columns(TABLE.c.id),
    *map(
        sa.text,
        (
            '/* c */ select 1',
            '-- delete it\nselect 1',
            '--delete it\nselect 1',
            "(select 1) union (select 'delete; into')",
            'WITH x AS (SELECT 1) SELECT * FROM x',
            '/* c */ with x as (select 1) select * from x',
            'EXPLAIN SELECT 1',
            'EXPLAIN DELETE FROM services',
            'EXPLAIN ANALYZE SELECT 1',
            'SHOW CREATE TABLE services',
            'TABLE services',
            'VALUES (1)',
            'DESC services',
            'SELECT "update", `delete`, \'insert\' FROM x;  -- done',
            'SELECT updated_at, deleted FROM services',
            r"SELECT 'it\'s', 'C:\'",
        ),
    ),
]


class TestEffects(base.TestCase):
    def test_what_writes_is_known(self) -> None:
        for statement in WRITTEN:
            self.assertEqual(
                Effect.WRITES,
                write_detection.effect_of(statement),
                str(statement),
            )

    def test_what_locks_is_known(self) -> None:
        for statement in LOCKING:
            self.assertEqual(
                Effect.LOCKS,
                write_detection.effect_of(statement),
                str(statement),
            )

    def test_what_only_reads_is_known(self) -> None:
        for statement in READ:
            self.assertEqual(
                Effect.READS,
                write_detection.effect_of(statement),
                str(statement),
            )

    def test_sql_is_known_as_its_text_is(self) -> None:
        for statement in (*WRITTEN, *LOCKING, *READ):
            if isinstance(statement, sa.TextClause):
                self.assertEqual(
                    write_detection.effect_of(statement),
                    write_detection.effect_of(statement.text),
                )

    def test_what_a_copy_adds_counts(self) -> None:
        reading = sa.select(TABLE.c.id)
        self.assertEqual(Effect.READS, write_detection.effect_of(reading))
        self.assertEqual(
            Effect.LOCKS, write_detection.effect_of(reading.with_for_update())
        )
        deleting = sa.delete(TABLE).returning(TABLE.c.id).cte()
        self.assertEqual(
            Effect.WRITES, write_detection.effect_of(reading.add_cte(deleting))
        )


class TestReadOnly(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service_id = factories.create_service(version=1).id

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        with db.api.transaction(self.context, read_only=True) as session:
            yield session

    @contextlib.contextmanager
    def bound(self) -> Iterator[Any]:
        engine = db.api.get_engine()
        session = db.api.get_session(bind=engine, read_only=True)
        with session.begin():
            yield session

    @contextlib.contextmanager
    def core(self) -> Iterator[Any]:
        session = db.api.get_session(read_only=True)
        with session.begin():
            yield session

    def test_every_way_to_write_is_refused_before_it_is_sent(self) -> None:
        for form in (self.transaction, self.bound):
            for name, write in WRITES.items():
                with self.commands() as sent, form() as session:
                    self.assertRaises(
                        exception.WriteInReadOnly, write, session
                    )
                    session.expunge_all()
                self.assertNotRegex(
                    ' '.join(sent), '(?i)insert|update|delete', name
                )
        self.assert_unchanged()

    def test_every_statement_that_writes_or_locks_is_refused(self) -> None:
        for form in (self.transaction, self.bound, self.core):
            for statement in (*WRITTEN, *LOCKING):
                with form() as session:
                    self.assertRaises(
                        exception.WriteInReadOnly, session.execute, statement
                    )
        self.assert_unchanged()

    def test_what_is_refused_ends_nothing(self) -> None:
        for form in (self.transaction, self.bound):
            with form() as session:
                for write in WRITES.values():
                    with contextlib.suppress(exception.WriteInReadOnly):
                        write(session)
                    session.expunge_all()
                self.assertEqual(
                    [self.service_id],
                    session.scalars(sa.select(TABLE.c.id)).all(),
                )

    def test_reading_is_fine_in_every_way(self) -> None:
        texts = {
            'sqlite': ['-- c\nEXPLAIN QUERY PLAN DELETE FROM services'],
            'mysql': ['/* c */ (SELECT 1)', '# c\nSHOW TABLES'],
            'postgresql': ['--c\n(SELECT 1)', 'SHOW TimeZone'],
        }[self.backend]
        texts += ['/* c */ WITH x AS (SELECT 1) SELECT * FROM x']
        texts += ['EXPLAIN SELECT id FROM services']
        for form in (self.transaction, self.bound, self.core):
            for text in texts:
                with form() as session:
                    session.execute(sa.text(text)).all()
        with self.transaction() as session:
            with db.api.savepoint(self.context):
                self.assertIsNotNone(session.get(SERVICE, self.service_id))
            connection = session.connection()
            self.assertEqual(
                1, connection.exec_driver_sql('SELECT 1').scalar()
            )

    def test_the_server_refuses_what_passes_by_us(self) -> None:
        self.assertRaises(exception.WriteInReadOnly, self.write_past_us)
        self.assert_unchanged()
        # Its connection goes back to the pool, which on SQLite is everybody's.
        db.api.service_update(self.context, self.service_id, {'version': 7})
        with self.transaction() as session:
            self.assertEqual(7, session.get(SERVICE, self.service_id).version)

    def write_past_us(self) -> None:
        with self.transaction() as session:
            connection = session.connection()
            sa.Connection.exec_driver_sql(connection, 'DELETE FROM services')

    def test_nor_does_its_engine_write(self) -> None:
        engine = db.api.get_engine(read_only=True)
        for _ in range(2):
            with engine.connect() as connection:
                self.assertRaises(
                    exception.WriteInReadOnly,
                    connection.execute,
                    sa.delete(TABLE),
                )
        self.assert_unchanged()

    def test_a_connection_of_ones_own_writes_again_afterwards(self) -> None:
        with db.api.get_engine().connect() as connection:
            session = db.api.get_session(bind=connection, read_only=True)
            with session.begin():
                self.assertRaises(
                    exception.WriteInReadOnly,
                    session.connection().execute,
                    sa.delete(TABLE),
                )
            connection.execute(sa.delete(TABLE))
            connection.commit()
        self.assertEqual([], db.api.service_get_all(self.context))

    def assert_unchanged(self) -> None:
        rows = db.api.service_get_all(self.context)
        self.assertEqual(
            [(self.service_id, 1)], [(row.id, row.version) for row in rows]
        )


class TestLocks(base.DatabaseTestCase):
    def test_a_session_that_commits_each_statement_holds_none(self) -> None:
        for statement in LOCKING:
            session = db.api.get_session(autocommit=True)
            with self.commands() as sent, session.begin():
                self.assertRaises(
                    exception.LockInAutocommit, session.execute, statement
                )
            self.assertEqual([], sent)

    def test_a_write_may_look_for_what_it_locks(self) -> None:
        factories.create_service()
        locked = sa.select(TABLE.c.id).with_for_update().subquery()
        session = db.api.get_session(autocommit=True)
        with session.begin():
            session.execute(
                sa.delete(TABLE).where(TABLE.c.id.in_(sa.select(locked.c.id)))
            )
        self.assertEqual([], db.api.service_get_all(self.context))

    def test_transactions_lock(self) -> None:
        for form in ({}, {'core': True}):
            session = db.api.get_session(self.context, **form)
            with session.begin():
                session.execute(LOCKING[0]).all()


class TestSavepoints(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.create('h')

    def create(self, host: str) -> None:
        db.api.service_create(self.context, {'host': host, 'binary': 'b'})

    def flush_another(self, session: Any) -> None:
        session.add(SERVICE(**NEW))
        session.flush()

    def assert_goes_on(self) -> None:
        """It commits what was written before and after the savepoint."""
        hosts = {row.host for row in db.api.service_get_all(self.context)}
        self.assertEqual({'h', 'before', 'after'}, hosts)

    @contextlib.contextmanager
    def around(self) -> Iterator[Any]:
        with db.api.transaction(self.context) as session:
            self.create('before')
            yield session
            self.create('after')
        self.assert_goes_on()

    def test_a_flush_that_fails_dooms_the_savepoint_only(self) -> None:
        with self.around() as session:
            with contextlib.suppress(db_exception.DBDuplicateEntry):
                with db.api.savepoint(self.context):
                    self.flush_another(session)

    def test_so_does_one_at_the_end_of_the_savepoint(self) -> None:
        with self.around() as session:
            with contextlib.suppress(db_exception.DBDuplicateEntry):
                with db.api.savepoint(self.context):
                    session.add(SERVICE(**NEW))

    def test_so_does_one_that_is_caught_in_it(self) -> None:
        def catch() -> None:
            with db.api.savepoint(self.context):
                self.assertRaises(
                    db_exception.DBDuplicateEntry, self.flush_another, session
                )

        with self.around() as session:
            self.assertRaises(exception.TransactionDoomed, catch)

    def test_so_does_a_bulk_that_fails(self) -> None:
        with self.around() as session:
            with contextlib.suppress(db_exception.DBDuplicateEntry):
                with db.api.savepoint(self.context):
                    session.bulk_insert_mappings(SERVICE, [NEW])

    def test_so_does_one_in_a_savepoint_in_a_savepoint(self) -> None:
        with self.around() as session:
            with db.api.savepoint(self.context):
                with contextlib.suppress(db_exception.DBDuplicateEntry):
                    with db.api.savepoint(self.context):
                        self.flush_another(session)

    def test_a_flush_that_fails_beside_it_dooms_the_transaction(self) -> None:
        def fail() -> None:
            with db.api.transaction(self.context) as session:
                with db.api.savepoint(self.context):
                    pass
                self.assertRaises(
                    db_exception.DBDuplicateEntry, self.flush_another, session
                )

        self.assertRaises(exception.TransactionDoomed, fail)

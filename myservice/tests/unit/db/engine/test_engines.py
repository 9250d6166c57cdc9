"""Sessions on other engines: the caller's own, two databases at once."""

import copy
import pathlib
import time
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import orm

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

VERSION = sa.select(models.Service.version)
RAISE = sa.update(models.Service).values(version=models.Service.version + 1)


class TestBind(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = factories.create_service(version=1)
        self.connection = self.useFixture(Connected()).connection

    def version(self) -> int:
        """Return what others see."""
        return int(db.api.service_get(self.context, self.service.id).version)

    def raise_version(self) -> None:
        db.api.service_update(self.context, self.service.id, {'version': 2})

    def fail_to_create(self) -> None:
        """Let a statement of a call fail, and catch what it raises."""
        again = {'host': self.service.host, 'binary': self.service.binary}
        self.assertRaises(
            exception.ServiceExists,
            db.api.service_create,
            self.context,
            again,
        )

    def test_a_session_works_on_the_connection_that_it_is_given(self) -> None:
        session = db.api.get_session(bind=self.connection)
        with session.begin():
            session.execute(RAISE)
            self.assertIs(self.connection, session.connection())
        self.assertFalse(self.connection.closed)
        self.assertFalse(self.connection.in_transaction())
        self.assertEqual(2, self.version())

    def test_who_began_the_transaction_of_a_connection_ends_it(self) -> None:
        for outcome in ('commit', 'rollback'):
            before = self.version()
            outer = self.connection.begin()
            session = db.api.get_session(self.context, bind=self.connection)
            with session.begin():
                session.execute(RAISE)
            self.assertEqual(before, self.version())
            getattr(outer, outcome)()
            grown = 1 if outcome == 'commit' else 0
            self.assertEqual(before + grown, self.version())

    def test_an_engine_of_anybody_will_do_for_a_session(self) -> None:
        own = sa.create_engine(self.database.connection)
        self.addCleanup(own.dispose)
        session = db.api.get_session(bind=own)
        with session.begin():
            session.execute(RAISE)
            self.assertEqual(1, own.pool.checkedout())  # type: ignore[attr-defined]
        self.assertEqual(2, self.version())

    def test_a_bound_session_can_be_for_reading_only(self) -> None:
        session = db.api.get_session(bind=self.connection, read_only=True)
        with session.begin():
            self.assertEqual(1, session.scalar(VERSION))
            self.assertRaises(
                exception.WriteInReadOnly, session.execute, RAISE
            )

    def test_calls_join_a_transaction_on_a_connection(self) -> None:
        outer = self.connection.begin()
        with db.api.transaction(self.context, bind=self.connection):
            self.raise_version()
            found = self.connection.scalar(VERSION)
        self.assertEqual(2, found)
        self.assertEqual(1, self.version())
        outer.rollback()
        self.assertEqual(1, self.version())

    def test_a_transaction_on_an_idle_connection_commits(self) -> None:
        with db.api.transaction(self.context, bind=self.connection):
            self.raise_version()
        self.assertEqual(2, self.version())
        self.assertFalse(self.connection.closed)

    def test_an_exception_rolls_back_what_was_begun_outside(self) -> None:
        outer = self.connection.begin()
        self.connection.execute(RAISE)
        with (
            self.assertRaisesRegex(ValueError, 'mine'),
            db.api.transaction(self.context, bind=self.connection),
        ):
            self.raise_version()
            raise ValueError('mine')
        self.assertFalse(outer.is_active)
        self.assertEqual(1, self.version())

    def test_a_failed_statement_dooms_a_bound_transaction(self) -> None:
        with (
            self.assertRaises(exception.TransactionDoomed),
            db.api.transaction(self.context, bind=self.connection),
        ):
            self.raise_version()
            self.fail_to_create()
        self.assertEqual(1, self.version())

    def test_each_session_on_a_connection_hears_of_its_failures(self) -> None:
        with (
            self.assertRaises(exception.TransactionDoomed),
            db.api.transaction(self.context) as session,
        ):
            other = db.api.get_session(bind=session.connection())
            other.execute(RAISE)
            self.fail_to_create()
        self.assertEqual(1, self.version())

    def test_a_connection_in_autocommit_is_refused(self) -> None:
        self.connection.execution_options(isolation_level='AUTOCOMMIT')
        with (
            self.assertRaisesRegex(exception.InvalidInput, 'in AUTOCOMMIT'),
            db.api.transaction(self.context, bind=self.connection),
        ):
            pass

    def test_what_is_no_connection_is_refused(self) -> None:
        wrong: Any
        for wrong in ('sqlite://', 1, {}, object()):
            for arguments in (
                {'bind': wrong},
                {'binds': {models.Base: wrong}},
            ):
                self.assertRaisesRegex(
                    exception.InvalidInput,
                    'is not an Engine or Connection',
                    db.api.get_session,
                    **arguments,
                )
        engine: Any = db.api.get_engine()
        with (
            self.assertRaisesRegex(
                exception.InvalidInput, 'not a connection of'
            ),
            db.api.transaction(self.context, bind=engine),
        ):
            pass

    def test_a_snapshot_takes_a_connection_for_reading(self) -> None:
        with (
            db.api.get_engine(read_only=True).connect() as connection,
            db.api.transaction(self.context, read_only=True, bind=connection),
        ):
            self.assertEqual(1, self.version())
            self.assertRaises(exception.WriteInReadOnly, self.raise_version)

    def test_a_connection_of_other_engines_is_refused(self) -> None:
        own = sa.create_engine(self.database.connection)
        self.addCleanup(own.dispose)
        for engine in (own, db.api.get_engine(read_only=True)):
            with (
                engine.connect() as connection,
                self.assertRaisesRegex(
                    exception.InvalidInput,
                    'bind: it is not a connection of get_engine',
                ),
                db.api.transaction(self.context, bind=connection),
            ):
                pass

    def test_a_bind_where_there_is_a_connection_already_is_refused(
        self,
    ) -> None:
        bound: dict[str, Any] = {'bind': self.connection}
        with db.api.transaction(self.context):
            self.assertRaisesRegex(
                exception.InvalidInput,
                'the transaction of the context is open',
                db.api.get_session,
                self.context,
                **bound,
            )
            with (
                self.assertRaisesRegex(exception.InvalidInput, 'is open'),
                db.api.transaction(self.context, **bound),
            ):
                pass

    def test_the_light_forms_take_no_bind(self) -> None:
        for form in ('autocommit', 'core'):
            arguments: dict[str, Any] = {form: True, 'bind': self.connection}
            self.assertRaisesRegex(
                exception.InvalidInput,
                'bind: it is for the default form',
                db.api.get_session,
                **arguments,
            )


class Connected(plain_fixtures.Fixture):
    """A connection of the engine for transactions."""

    def _setUp(self) -> None:
        self.connection = db.api.get_engine().connect()
        self.addCleanup(self.connection.close)


class Archived(orm.DeclarativeBase):
    """The models of the other database."""


class Note(Archived):
    __tablename__ = 'notes'
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column(sa.String(20), unique=True)


class TestBinds(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        other = self.useFixture(fixtures.OtherDatabase())
        self.elsewhere = self.context.using(other.engines)
        self.archive = db.api.get_engine(self.elsewhere)
        Archived.metadata.drop_all(self.archive)
        Archived.metadata.create_all(self.archive)
        self.addCleanup(Archived.metadata.drop_all, self.archive)
        self.service = factories.create_service(version=1)

    def session(self) -> Any:
        return db.api.get_session(binds={Archived: self.archive})

    def found(self) -> tuple[int, list[str]]:
        """Return what is in the two databases."""
        session = self.session()
        with session.begin():
            return session.scalar(VERSION), list(
                session.scalars(sa.select(Note.text))
            )

    def test_each_model_goes_to_its_own_database(self) -> None:
        session = self.session()
        with session.begin():
            session.execute(RAISE)
            session.add(Note(text='raised'))
        self.assertEqual((2, ['raised']), self.found())
        tables = sa.inspect(db.api.get_engine()).get_table_names()
        self.assertNotIn('notes', tables)

    def test_an_exception_rolls_back_both(self) -> None:
        session = self.session()
        with self.assertRaisesRegex(ValueError, 'mine'), session.begin():
            session.execute(RAISE)
            session.add(Note(text='raised'))
            session.flush()
            raise ValueError('mine')
        self.assertEqual((1, []), self.found())

    def test_one_of_two_commits_can_fail_alone(self) -> None:
        """That is no promise: it is why there is no API for it."""
        session = self.session()
        committed: list[sa.Connection] = []

        def fail_the_second(connection: sa.Connection) -> None:
            if committed:
                raise ValueError('mine')
            committed.append(connection)

        # SQLAlchemy warns that it cannot take the first one back.
        self.useFixture(
            plain_fixtures.WarningsFilter(
                [{'action': 'ignore', 'category': sa.exc.SAWarning}]
            )
        )
        with self.assertRaisesRegex(ValueError, 'mine'), session.begin():
            session.execute(RAISE)
            session.add(Note(text='raised'))
            session.flush()
            for model in (models.Service, Note):
                connection = session.connection({'mapper': model})
                sa.event.listen(connection, 'commit', fail_the_second)
        # SQLAlchemy commits them in any order.
        self.assertIn(self.found(), [(2, []), (1, ['raised'])])

    def test_a_transaction_of_the_context_has_one_database(self) -> None:
        with db.api.transaction(self.context):
            self.assertRaises(
                exception.InvalidInput,
                db.api.get_session,
                self.context,
                binds={Archived: self.archive},
            )


class TestUsing(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.useFixture(fixtures.OtherDatabase())
        self.there = self.context.using(self.other.engines)

    def hosts(self, ctx: context.RequestContext) -> list[str]:
        return [row.host for row in db.api.service_get_all(ctx)]

    def create(self, ctx: context.RequestContext, host: str) -> Any:
        return db.api.service_create(ctx, {'host': host, 'binary': 'b'})

    def test_calls_go_to_the_database_of_their_context(self) -> None:
        self.create(self.context, 'here')
        row = self.create(self.there, 'there')
        self.assertEqual(['here'], self.hosts(self.context))
        self.assertEqual(['there'], self.hosts(self.there))
        self.assertEqual(['there'], self.hosts(self.there.elevated()))
        self.assertEqual(['here'], self.hosts(self.there.using(None)))
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_heartbeat,
            self.context,
            row.id,
        )
        db.api.service_heartbeat(self.there, row.id)

    def test_each_database_has_its_own_transaction(self) -> None:
        with (
            db.api.transaction(self.context),
            self.assertRaisesRegex(ValueError, 'mine'),
            db.api.transaction(self.there),
        ):
            self.create(self.context, 'here')
            self.create(self.there, 'there')
            raise ValueError('mine')
        self.assertEqual(['here'], self.hosts(self.context))
        self.assertEqual([], self.hosts(self.there))

    def test_copies_for_the_same_engines_join(self) -> None:
        again = self.context.elevated().using(self.other.engines)
        with (
            self.assertRaisesRegex(ValueError, 'mine'),
            db.api.transaction(self.there),
        ):
            self.create(again, 'there')
            raise ValueError('mine')
        self.assertEqual([], self.hosts(self.there))

    def test_a_deep_copy_has_the_engines_and_no_transaction(self) -> None:
        with db.api.transaction(self.there):
            twin = copy.deepcopy(self.there)
            self.assertIs(self.other.engines, twin.engines)
            self.assertIsNone(twin.transaction_slot.transaction)

    def test_what_is_no_engines_is_refused(self) -> None:
        for wrong in ('sqlite://', self.other.engines.conf):
            self.assertRaises(
                exception.InvalidInput, self.context.using, wrong
            )
        path: Any = 'myservice.conf'
        self.assertRaises(exception.InvalidInput, db.api.Engines, path)
        self.assertRaises(exception.InvalidInput, db.api.configure, path)

    def test_run_in_transaction_is_of_the_database_of_the_context(
        self,
    ) -> None:
        db.api.run_in_transaction(self.there, self.create, 'there')
        self.assertEqual(['there'], self.hosts(self.there))
        self.assertEqual([], self.hosts(self.context))
        count = sa.select(sa.func.count()).select_from(models.Operation)
        with db.api.get_engine(self.there).connect() as connection:
            self.assertEqual(1, connection.scalar(count))
        with db.api.get_engine().connect() as connection:
            self.assertEqual(0, connection.scalar(count))

    def test_options_are_those_of_the_configuration_that_is_used(
        self,
    ) -> None:
        conf = self.other.engines.conf
        conf.set_override('down_time', 0.1, group='service')
        conf.set_override('default_limits', {'disks': 3}, group='quota')
        row = self.create(self.context, 'h')
        other = self.create(self.there, 'h')
        time.sleep(0.2)
        self.assertTrue(db.api.service_get(self.context, row.id).is_up)
        self.assertFalse(db.api.service_get(self.there, other.id).is_up)
        here = db.api.quota_usage_get_all(self.context, 'p1')
        there = db.api.quota_usage_get_all(self.there, 'p1')
        self.assertEqual({'resources', 'gigabytes'}, here.keys())
        self.assertEqual(here.keys() | {'disks'}, there.keys())
        self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.there,
            {'disks': 4},
            'p1',
        )

    def test_a_sqlite_file_serves_beside_a_server(self) -> None:
        path = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path, 'own.sqlite'
        )
        own = self.useFixture(
            fixtures.OtherDatabase(connection=f'sqlite:///{path}')
        )
        models.Base.metadata.create_all(
            db.api.get_engine(self.context.using(own.engines))
        )
        self.create(self.context.using(own.engines), 'in a file')
        self.assertEqual([], self.hosts(self.context))
        self.assertEqual(
            ['in a file'], self.hosts(self.context.using(own.engines))
        )

    def test_threads_with_contexts_of_two_databases_mix_nothing_up(
        self,
    ) -> None:
        def work(number: int) -> None:
            ctx = context.get_admin_context()
            if number % 2:
                ctx = ctx.using(self.other.engines)
            for each in range(20):
                self.create(ctx, f'{number % 2}-{number}-{each}')

        self.assertEqual([None] * 8, self.in_threads(8, work))
        here, there = self.hosts(self.context), self.hosts(self.there)
        self.assertEqual([80, 80], [len(here), len(there)])
        self.assertEqual({'0'}, {host[0] for host in here})
        self.assertEqual({'1'}, {host[0] for host in there})


class TestConfigureLate(base.TestCase):
    def configure(self, connection: str) -> None:
        self.useFixture(fixtures.Database(connection))

    def test_the_url_is_read_at_the_first_call(self) -> None:
        path = self.useFixture(plain_fixtures.TempDir()).path
        self.configure(f'sqlite:///{path}/nowhere/no.sqlite')
        session = db.api.get_session()
        self.configure(f'sqlite:///{path}/yes.sqlite')
        models.Base.metadata.create_all(db.api.get_engine())
        self.assertEqual(
            [], db.api.service_get_all(context.get_admin_context())
        )
        # What was made before keeps the engine that it was made with.
        with self.assertRaises(db_exception.DBError), session.begin():
            session.scalar(VERSION)

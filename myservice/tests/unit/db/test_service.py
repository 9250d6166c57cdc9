"""Services: what each call promises."""

import datetime
import time
import uuid
from typing import Any

import sqlalchemy as sa
import testtools

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.sql import clock
from myservice.tests import base
from myservice.tests import factories


class ServiceTestCase(base.DatabaseTestCase):
    def age(self, service_id: str, seconds: float) -> None:
        """Make the last sign of a service older."""
        table = models.Service.__table__
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(table)
                .where(table.c.id == service_id)
                .values(
                    last_seen_at=sa.func.coalesce(
                        table.c.last_seen_at, table.c.created_at
                    )
                )
            )
            row = connection.execute(
                sa.select(table.c.last_seen_at).where(table.c.id == service_id)
            ).scalar_one()
            past = row - datetime.timedelta(seconds=seconds)
            connection.execute(
                sa.update(table)
                .where(table.c.id == service_id)
                .values(last_seen_at=past, created_at=past)
            )

    def get(self, service_id: str) -> db.api.ServiceRow:
        return db.api.service_get(self.context, service_id)


class TestCreateAndGet(ServiceTestCase):
    def test_a_created_service_has_what_was_given_and_defaults(self) -> None:
        made = db.api.service_create(
            self.context,
            {
                'host': 'h1',
                'binary': 'agent',
                'topic': 'work',
                'availability_zone': 'west',
                'version': 3,
            },
        )
        self.assertEqual(
            ('h1', 'agent', 'work', 'west', 3, False, None, False, None, True),
            (
                made.host,
                made.binary,
                made.topic,
                made.availability_zone,
                made.version,
                made.disabled,
                made.disabled_reason,
                made.forced_down,
                made.last_seen_at,
                made.is_up,
            ),
        )
        self.assertEqual(made, self.get(made.id))

    def test_a_row_reads_by_attribute_and_by_name_and_cannot_change(
        self,
    ) -> None:
        made = factories.create_service(host='h1')
        self.assertEqual('h1', made['host'])
        self.assertEqual('h1', dict(made)['host'])
        self.assertRaises(KeyError, lambda: made['nonsense'])
        with testtools.ExpectedException(AttributeError):
            made.host = 'h2'

    def test_ids_are_in_the_order_of_creation(self) -> None:
        ids = [factories.create_service().id for _ in range(5)]
        self.assertEqual(sorted(ids), ids)
        self.assertEqual(
            ids, [row.id for row in db.api.service_get_all(self.context)]
        )

    def test_the_same_host_and_binary_exists_once_among_the_living(
        self,
    ) -> None:
        first = factories.create_service(host='h1', binary='a')
        error = self.assertRaises(
            exception.ServiceExists,
            factories.create_service,
            host='h1',
            binary='a',
        )
        self.assertEqual(('h1', 'a'), (error.host, error.binary))
        db.api.service_destroy(self.context, first.id)
        second = factories.create_service(host='h1', binary='a')
        db.api.service_destroy(self.context, second.id)
        factories.create_service(host='h1', binary='a')

    def test_identity_is_compared_exactly(self) -> None:
        for host in (
            'h1',
            'H1',
            'h1 ',
            'h_',
            'h%',
            '\uff481',
            'hé',
            'he\u0301',
        ):
            factories.create_service(host=host, binary='a')
        for host in (
            'h1',
            'H1',
            'h1 ',
            'h_',
            'h%',
            '\uff481',
            'hé',
            'he\u0301',
        ):
            found = db.api.service_get_by_host_and_binary(
                self.context, host, 'a'
            )
            self.assertEqual(host, found.host)
        self.assertRaises(
            exception.HostBinaryNotFound,
            db.api.service_get_by_host_and_binary,
            self.context,
            'h2',
            'a',
        )

    def test_hostile_text_is_stored_as_it_is(self) -> None:
        for text in (
            "'; DROP TABLE services; --",
            '\\',
            '%s',
            '😀',
            ' x ',
            '',
        ):
            made = factories.create_service(topic=text, disabled_reason=text)
            self.assertEqual(text, self.get(made.id).topic)
            self.assertEqual(text, self.get(made.id).disabled_reason)

    def test_an_id_that_is_not_there_is_not_found(self) -> None:
        error = self.assertRaises(exception.ServiceNotFound, self.get, 'x')
        self.assertEqual('x', error.service_id)
        self.assertEqual('Service x could not be found.', str(error))


class TestChosenId(ServiceTestCase):
    """A create with an id can be repeated."""

    def setUp(self) -> None:
        super().setUp()
        self.chosen = str(uuid.uuid4())
        self.values = {
            'id': self.chosen,
            'host': 'h',
            'binary': 'b',
            'version': 3,
        }

    def make(self, **changes: Any) -> db.api.ServiceRow:
        return db.api.service_create(self.context, self.values | changes)

    def refused(self, **changes: Any) -> None:
        error = self.assertRaises(
            exception.ServiceIdExists, self.make, **changes
        )
        self.assertIsInstance(error, exception.ServiceExists)
        self.assertEqual(
            (self.chosen, 'h', 'b'),
            (error.service_id, error.host, error.binary),
        )

    def test_again_with_the_same_values_it_returns_the_row(self) -> None:
        made = self.make()
        self.assertEqual(self.chosen, made.id)
        self.assertEqual(made, self.get(made.id))
        self.assertEqual(made, self.make(topic=None, disabled=False))
        self.assertEqual(1, len(db.api.service_get_all(self.context)))

    def test_with_other_values_it_is_refused(self) -> None:
        made = self.make()
        for changes in (
            {'host': 'other'},
            {'binary': 'other'},
            {'topic': 't'},
            {'version': 4},
            {'disabled': True},
        ):
            self.refused(**changes)
        del self.values['version']
        self.refused()
        self.assertEqual(made, self.get(made.id))

    def test_what_was_changed_since_is_not_compared_with_defaults(
        self,
    ) -> None:
        self.make()
        db.api.service_update(self.context, self.chosen, {'disabled': True})
        self.assertTrue(self.make().disabled)
        self.refused(disabled=False)

    def test_a_living_service_of_this_host_and_binary_is_told(self) -> None:
        self.make()
        error = self.assertRaises(
            exception.ServiceExists, self.make, id=str(uuid.uuid4())
        )
        self.assertIs(exception.ServiceExists, type(error))
        self.assertEqual(('h', 'b'), (error.host, error.binary))

    def test_one_that_was_destroyed_is_not_made_again(self) -> None:
        self.make()
        db.api.service_destroy(self.context, self.chosen)
        self.refused()
        self.assertEqual('h', self.make(id=str(uuid.uuid4())).host)

    def test_a_transaction_goes_on_after_a_refusal(self) -> None:
        self.make()
        with db.api.transaction(self.context):
            self.assertEqual(self.chosen, self.make().id)
            self.refused(version=4)
            self.assertRaises(
                exception.ServiceExists, self.make, id=str(uuid.uuid4())
            )
            made = self.make(id=str(uuid.uuid4()), host='other')
        self.assertEqual('other', self.get(made.id).host)

    def test_of_many_at_once_one_is_made(self) -> None:
        def make(number: int) -> str:
            admin = context.get_admin_context()
            return db.api.service_create(admin, self.values).id

        self.assertEqual([self.chosen] * 8, self.in_threads(8, make))
        self.assertEqual(1, len(db.api.service_get_all(self.context)))

    def test_what_is_no_uuid_is_refused(self) -> None:
        for value in (None, 5, uuid.uuid4(), '', 'x', self.chosen.upper()):
            error = self.assertRaises(
                exception.InvalidInput, self.make, id=value
            )
            self.assertEqual('id', error.field)
        error = self.assertRaises(
            exception.InvalidInput,
            db.api.service_register,
            self.context,
            self.values,
        )
        self.assertEqual('id', error.field)


class TestGetMany(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ids = [factories.create_service().id for _ in range(3)]

    def test_the_rows_are_in_the_order_of_the_ids(self) -> None:
        first, second, third = self.ids
        ids = [third, first, third, second]
        rows = db.api.service_get_many(self.context, ids)
        self.assertEqual(ids, [row.id for row in rows])
        self.assertEqual(
            db.api.service_get(self.context, third)[:-1], rows[0][:-1]
        )
        self.assertTrue(rows[0].is_up)
        self.assertEqual([], db.api.service_get_many(self.context, []))

    def test_those_that_are_missing_are_all_in_the_error(self) -> None:
        db.api.service_destroy(self.context, self.ids[1])
        error = self.assertRaises(
            exception.ServicesNotFound,
            db.api.service_get_many,
            self.context,
            ['b', *self.ids, 'a', 'b'],
        )
        self.assertIsInstance(error, exception.ServiceNotFound)
        self.assertEqual(['b', self.ids[1], 'a'], error.service_ids)
        self.assertEqual('b', error.service_id)
        self.assertIn(f'b, {self.ids[1]}, a', str(error))

    def test_it_is_for_administrators(self) -> None:
        self.assertRaises(
            exception.AdminRequired,
            db.api.service_get_many,
            context.RequestContext(project_id='p', overwrite=False),
            self.ids,
        )


class TestRegister(ServiceTestCase):
    def test_it_creates_and_then_updates_what_is_given(self) -> None:
        identity = {'host': 'h1', 'binary': 'a'}
        first = db.api.service_register(
            self.context, identity | {'topic': 't1', 'version': 1}
        )
        db.api.service_update(self.context, first.id, {'disabled': True})
        second = db.api.service_register(
            self.context, identity | {'version': 2}
        )
        self.assertEqual(first.id, second.id)
        self.assertEqual(
            ('t1', 2, True), (second.topic, second.version, second.disabled)
        )

    def test_it_is_a_sign_of_life(self) -> None:
        made = factories.create_service(host='h1', binary='a')
        self.age(made.id, 1000)
        self.assertFalse(self.get(made.id).is_up)
        registered = db.api.service_register(
            self.context, {'host': 'h1', 'binary': 'a'}
        )
        self.assertTrue(registered.is_up)

    def test_a_destroyed_row_stays_destroyed(self) -> None:
        made = factories.create_service(host='h1', binary='a')
        db.api.service_destroy(self.context, made.id)
        again = db.api.service_register(
            self.context, {'host': 'h1', 'binary': 'a'}
        )
        self.assertNotEqual(made.id, again.id)
        self.assertRaises(exception.ServiceNotFound, self.get, made.id)

    def test_sixteen_racing_threads_leave_one_row(self) -> None:
        for number in range(5):
            values = {'host': f'h{number}', 'binary': 'a'}
            results = self.in_threads(
                16,
                lambda _, values=values: (
                    db.api.service_register(
                        context.get_admin_context(), values
                    ).id
                ),
            )
            self.assertEqual(1, len(set(results)), results)
        self.assertEqual(5, len(db.api.service_get_all(self.context)))


class TestHeartbeat(ServiceTestCase):
    def test_a_silent_service_is_down_and_a_beat_brings_it_up(self) -> None:
        made = factories.create_service()
        self.age(made.id, 61)
        self.assertFalse(self.get(made.id).is_up)
        db.api.service_heartbeat(self.context, made.id)
        self.assertTrue(self.get(made.id).is_up)

    def test_down_time_counts_in_fractions_of_a_second(self) -> None:
        self.database.conf.set_override('down_time', 1.2, group='service')
        made = factories.create_service()
        db.api.service_heartbeat(self.context, made.id)
        time.sleep(0.3)
        self.assertTrue(self.get(made.id).is_up)
        time.sleep(1)
        self.assertFalse(self.get(made.id).is_up)

    def test_a_beat_from_the_near_future_counts_as_now(self) -> None:
        made = factories.create_service()
        self.sign(made.id, 50)
        self.assertTrue(self.get(made.id).is_up)
        self.assertEqual([made.id], self.ids(is_up=True))

    def test_one_from_the_far_future_does_not_count(self) -> None:
        made = factories.create_service()
        resource = db.api.resource_create(self.context, {'project_id': 'p'})
        db.api.resource_claim(self.context, resource.id, made.id)
        for ahead in (70, 3600, 10**9):
            self.sign(made.id, ahead)
            self.assertFalse(self.get(made.id).is_up)
            self.assertEqual([made.id], self.ids(is_up=False))
            self.assertEqual([], self.ids(is_up=True))
        self.assertEqual(1, db.api.claims_take_over(self.context))

    def test_nor_does_a_creation_in_the_far_future(self) -> None:
        made = factories.create_service()
        self.sign(made.id, 70, 'created_at')
        self.assertFalse(self.get(made.id).is_up)

    def test_the_next_beat_brings_it_up_again(self) -> None:
        made = factories.create_service()
        self.sign(made.id, 3600)
        db.api.service_heartbeat(self.context, made.id)
        self.assertTrue(self.get(made.id).is_up)

    def test_whoever_registers_goes_by_the_same_clock(self) -> None:
        made = factories.create_service()
        key = {'host': made.host, 'binary': made.binary}
        self.sign(made.id, 50)
        self.assertRaises(
            exception.ServiceAlive,
            db.api.service_register,
            self.context,
            key,
            only_if_silent_for=5,
        )
        self.sign(made.id, 70)
        row = db.api.service_register(self.context, key, only_if_silent_for=5)
        self.assertEqual((made.id, True), (row.id, row.is_up))

    def sign(
        self, service_id: str, ahead: int, column: str = 'last_seen_at'
    ) -> None:
        """Set a sign of life to a time in the future."""
        table = models.Service.__table__
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(table)
                .where(table.c.id == service_id)
                .values({column: clock.seconds_ago(-ahead)})
            )

    def ids(self, **filters: Any) -> list[str]:
        return [
            row.id for row in db.api.service_get_all(self.context, filters)
        ]

    def test_a_new_service_counts_from_its_creation(self) -> None:
        made = factories.create_service()
        self.assertIsNone(made.last_seen_at)
        self.assertTrue(made.is_up)

    def test_a_service_that_was_forced_down_is_down(self) -> None:
        made = factories.create_service(forced_down=True)
        db.api.service_heartbeat(self.context, made.id)
        self.assertFalse(self.get(made.id).is_up)

    def test_a_destroyed_service_is_never_revived(self) -> None:
        made = factories.create_service()
        db.api.service_destroy(self.context, made.id)
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_heartbeat,
            self.context,
            made.id,
        )
        self.assertRaises(exception.ServiceNotFound, self.get, made.id)

    def test_many_are_reached_at_once_and_the_dead_are_not(self) -> None:
        made = [factories.create_service() for _ in range(3)]
        for service in made:
            self.age(service.id, 1000)
        db.api.service_destroy(self.context, made[0].id)
        ids = [service.id for service in made]
        self.assertEqual(
            2,
            db.api.service_heartbeat_many(
                self.context, [*ids, ids[1], 'unknown']
            ),
        )
        self.assertEqual(
            [True, True],
            [row.is_up for row in db.api.service_get_all(self.context)],
        )
        self.assertEqual(0, db.api.service_heartbeat_many(self.context, []))


class TestUpdate(ServiceTestCase):
    def test_it_never_moves_the_heartbeat(self) -> None:
        made = factories.create_service()
        db.api.service_heartbeat(self.context, made.id)
        before = self.get(made.id)
        db.api.service_update(
            self.context,
            made.id,
            {'disabled': True, 'disabled_reason': 'maintenance'},
        )
        after = self.get(made.id)
        self.assertEqual(before.last_seen_at, after.last_seen_at)
        self.assertEqual((True, 'maintenance'), (after.disabled, after[7]))
        self.assertIsNone(before.updated_at)
        self.assertIsNotNone(after.updated_at)

    def test_the_same_value_again_is_no_error(self) -> None:
        made = factories.create_service()
        for _ in range(2):
            db.api.service_update(self.context, made.id, {'version': 7})
        self.assertEqual(7, self.get(made.id).version)

    def test_one_that_is_not_there_is_not_found(self) -> None:
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_update,
            self.context,
            'x',
            {'disabled': True},
        )


class TestMinimumVersion(ServiceTestCase):
    def test_it_is_the_lowest_of_those_that_count(self) -> None:
        for version in (5, 3, 4):
            factories.create_service(binary='a', version=version)
        factories.create_service(binary='a', version=1, forced_down=True)
        factories.create_service(binary='b', version=2)
        gone = factories.create_service(binary='a', version=1)
        db.api.service_destroy(self.context, gone.id)
        for binary, lowest in (('a', 3), ('b', 2), ('c', 0)):
            self.assertEqual(
                lowest,
                db.api.service_get_minimum_version(self.context, binary),
            )


class TestDestroy(ServiceTestCase):
    def test_it_is_a_soft_delete(self) -> None:
        made = factories.create_service()
        db.api.service_destroy(self.context, made.id)
        self.assertRaises(exception.ServiceNotFound, self.get, made.id)
        self.assertEqual([], db.api.service_get_all(self.context))
        for read_deleted in ('yes', 'only'):
            reader = context.get_admin_context(read_deleted=read_deleted)
            gone = db.api.service_get(reader, made.id)
            self.assertIsNotNone(gone.deleted_at)
            self.assertEqual([gone], db.api.service_get_all(reader))

    def test_of_many_threads_one_destroys_it(self) -> None:
        for _ in range(10):
            made = factories.create_service()
            results = self.in_threads(
                8,
                lambda _, made=made: db.api.service_destroy(
                    context.get_admin_context(), made.id
                ),
            )
            self.assertEqual(1, results.count(None))
            for error in results:
                if error is not None:
                    self.assertIsInstance(error, exception.ServiceNotFound)

    def test_delete_is_guarded_by_itself(self) -> None:
        made = factories.create_service()
        session = db.api.get_session()
        with session.begin():
            made.delete(session=session)
            self.assertRaises(
                exception.ServiceNotFound, made.delete, session=session
            )

    def test_the_living_one_is_found_among_its_predecessors(self) -> None:
        reader = context.get_admin_context(read_deleted='yes')
        ids = []
        for _ in range(3):
            made = factories.create_service(host='h1', binary='a')
            ids.append(made.id)
            db.api.service_destroy(self.context, made.id)
        found = db.api.service_get_by_host_and_binary(reader, 'h1', 'a')
        self.assertEqual(ids[-1], found.id)
        living = factories.create_service(host='h1', binary='a')
        found = db.api.service_get_by_host_and_binary(reader, 'h1', 'a')
        self.assertEqual(living.id, found.id)


class TestInput(ServiceTestCase):
    """Bad input is refused with the field's name, before any SQL."""

    def refuse(self, field: str, function: object, *args: object) -> None:
        with self.commands() as sent:
            error = self.assertRaises(
                exception.InvalidInput, function, self.context, *args
            )
        self.assertEqual(field, error.field)
        self.assertEqual([], sent)

    def test_values(self) -> None:
        good = {'host': 'h', 'binary': 'b'}
        for field, value in (
            ('host', 5),
            ('host', None),
            ('host', 'x' * 256),
            ('host', 'a\0b'),
            ('host', '\ud800'),
            ('topic', b'bytes'),
            ('version', '1'),
            ('version', True),
            ('version', 2**31),
            ('version', -(2**31) - 1),
            ('disabled', 1),
            ('disabled', None),
            ('id', 'x'),
            ('deleted', 'x'),
            ('last_seen_at', None),
            ('nonsense', 1),
        ):
            for function in (db.api.service_create, db.api.service_register):
                self.refuse(field, function, good | {field: value})
        for field in ('host', 'binary'):
            less = {name: 'x' for name in good if name != field}
            self.refuse(field, db.api.service_create, less)
        self.refuse('values', db.api.service_create, None)
        self.refuse('values', db.api.service_update, 'x', {})
        self.refuse('host', db.api.service_update, 'x', {'host': 'h'})

    def test_ids_and_names(self) -> None:
        for function in (
            db.api.service_get,
            db.api.service_heartbeat,
            db.api.service_destroy,
        ):
            for wrong in (None, 5, 'a\0b', '\ud800'):
                self.refuse('service_id', function, wrong)
        self.refuse('service_id', db.api.service_update, 5, {'version': 1})
        self.refuse('service_ids', db.api.service_heartbeat_many, 'x')
        self.refuse('service_ids', db.api.service_heartbeat_many, [5])
        self.refuse('binary', db.api.service_get_minimum_version, None)
        by_name = db.api.service_get_by_host_and_binary
        self.refuse('host', by_name, None, 'b')
        self.refuse('binary', by_name, 'h', None)

    def test_lists(self) -> None:
        get_all = db.api.service_get_all
        for field, arguments in (
            ('filters', ({'nonsense': 1},)),
            ('filters', ('host',)),
            ('disabled', ({'disabled': 'yes'},)),
            ('host', ({'host': ['a', 5]},)),
            ('limit', (None, -1)),
            ('limit', (None, '5')),
            ('limit', (None, True)),
            ('marker', (None, None, 5)),
            ('sort_keys', (None, None, None, ['nonsense'])),
            ('sort_keys', (None, None, None, ['is_up'])),
            ('sort_keys', (None, None, None, 'host')),
            ('sort_keys', (None, None, None, ['host', 'host'])),
            ('sort_dirs', (None, None, None, ['host'], ['up'])),
            ('sort_dirs', (None, None, None, ['host'], ['asc', 'asc'])),
        ):
            self.refuse(field, get_all, *arguments)

    def test_only_administrators(self) -> None:
        plain = context.RequestContext('user', 'project', overwrite=False)
        for function, arguments in (
            (db.api.service_create, ({},)),
            (db.api.service_register, ({},)),
            (db.api.service_get, ('x',)),
            (db.api.service_get_by_host_and_binary, ('h', 'b')),
            (db.api.service_get_all, ()),
            (db.api.service_heartbeat, ('x',)),
            (db.api.service_heartbeat_many, ([],)),
            (db.api.service_update, ('x', {})),
            (db.api.service_get_minimum_version, ('b',)),
            (db.api.service_destroy, ('x',)),
            (db.api.purge_operations, ()),
        ):
            error = self.assertRaises(
                exception.AdminRequired, function, plain, *arguments
            )
            self.assertEqual(
                ('user', function.__name__), (error.user_id, error.function)
            )
        self.assertRaises(exception.InvalidInput, db.api.service_get_all, None)

"""Registrations: of two processes with one name, one is told that it ends."""

import datetime
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

IDENTITY = {'host': 'h1', 'binary': 'agent'}
SERVICES: Any = models.Service.__table__


class RegistrationTestCase(base.DatabaseTestCase):
    def register(self, **arguments: Any) -> db.api.ServiceRow:
        """Register as the service that all these tests are about."""
        return db.api.service_register(self.context, IDENTITY, **arguments)

    def get(self, service_id: str) -> db.api.ServiceRow:
        return db.api.service_get(self.context, service_id)

    def set_silent_for(self, service_id: str, seconds: float) -> None:
        """Let a service have been seen some seconds ago, and not since."""
        seen = self.get(service_id).last_seen_at
        assert seen is not None
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(SERVICES).values(
                    last_seen_at=seen - datetime.timedelta(seconds=seconds)
                )
            )

    def create(self) -> str:
        """Create a resource that nobody holds, and return its id."""
        values = {'project_id': 'p'}
        return db.api.resource_create(self.context, values).id

    def holders(self) -> list[str | None]:
        """Return who holds the resources, oldest first."""
        rows = db.api.resource_get_all(self.context)
        return [row.service_id for row in rows]

    def replaced(
        self,
        service: db.api.ServiceRow,
        function: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Show that a call refuses the registration of a service's row."""
        error: Any = self.assertRaises(
            exception.ServiceReplaced, function, self.context, *args, **kwargs
        )
        self.assertEqual(
            (service.id, service.registration, 'h1', 'agent'),
            (error.service_id, error.registration, error.host, error.binary),
        )
        for part in (service.id, 'agent on host h1', '--host', '--binary'):
            self.assertIn(part, str(error))


class TestNumber(RegistrationTestCase):
    def test_each_registration_has_the_next_one(self) -> None:
        for number in (1, 2, 3):
            service = self.register()
            self.assertEqual(number, service.registration)
            self.assertEqual(service, self.get(service.id))

    def test_one_that_was_created_has_none_until_it_registers(self) -> None:
        made = factories.create_service(**IDENTITY)
        self.assertEqual(0, made.registration)
        service = self.register()
        self.assertEqual((made.id, 1), (service.id, service.registration))

    def test_one_that_was_destroyed_is_no_predecessor(self) -> None:
        db.api.service_destroy(self.context, self.register().id)
        self.assertEqual(1, self.register().registration)

    def test_nothing_else_raises_it(self) -> None:
        service = self.register()
        db.api.service_heartbeat(self.context, service.id)
        db.api.service_update(self.context, service.id, {'version': 2})
        db.api.service_unregister(self.context, service.id)
        self.assertEqual(1, self.get(service.id).registration)

    def test_sixteen_that_race_get_one_each(self) -> None:
        results = self.in_threads(
            16,
            lambda _: db.api.service_register(
                context.get_admin_context(), IDENTITY
            ),
        )
        self.assertEqual(
            list(range(1, 17)), sorted(row.registration for row in results)
        )
        (row,) = db.api.service_get_all(self.context)
        self.assertEqual(16, row.registration)

    def test_two_of_one_transaction_are_two(self) -> None:
        with db.api.transaction(self.context):
            numbers = [self.register().registration for _ in range(2)]
        self.assertEqual([1, 2], numbers)

    def test_a_caller_cannot_set_it(self) -> None:
        for field in ('registration', 'unregistered_at', 'operation'):
            error: Any = self.assertRaises(
                exception.InvalidInput,
                db.api.service_register,
                self.context,
                {**IDENTITY, field: 5},
            )
            self.assertEqual(field, error.field)


class TestHeartbeat(RegistrationTestCase):
    def test_the_old_one_is_told_and_leaves_no_trace(self) -> None:
        old = self.register()
        new = self.register()
        self.replaced(old, db.api.service_heartbeat, old.id, old.registration)
        self.assertEqual(new, self.get(new.id))

    def test_the_latest_one_beats(self) -> None:
        self.register()
        new = self.register()
        self.set_silent_for(new.id, 1000)
        db.api.service_heartbeat(self.context, new.id, new.registration)
        self.assertTrue(self.get(new.id).is_up)

    def test_without_a_registration_it_is_not_asked_for(self) -> None:
        service = self.register()
        self.register()
        db.api.service_heartbeat(self.context, service.id)
        db.api.service_heartbeat(self.context, service.id, None)

    def test_a_destroyed_service_is_not_found(self) -> None:
        service = self.register()
        db.api.service_destroy(self.context, service.id)
        self.register()
        for registration in (1, 2, None):
            error: Any = self.assertRaises(
                exception.ServiceNotFound,
                db.api.service_heartbeat,
                self.context,
                service.id,
                registration,
            )
            self.assertEqual(service.id, error.service_id)

    def test_of_many_the_replaced_are_not_reached(self) -> None:
        old = self.register()
        new = self.register()
        other = factories.create_service()
        third = db.api.service_register(
            self.context, {'host': 'h3', 'binary': 'agent'}
        )
        ended = db.api.service_register(
            self.context, {'host': 'h4', 'binary': 'agent'}
        )
        self.set_silent_for(new.id, 1000)
        db.api.service_unregister(self.context, ended.id)
        for pairs, reached in (
            ([(old.id, 1), (third.id, 1), (ended.id, 1), other.id], 2),
            ([(old.id, 1)], 0),
            ([(ended.id, 1), ('unknown', 1), 'unknown'], 0),
            ([(new.id, 2), (third.id, 1)], 2),
            ({new.id, third.id}, 2),
        ):
            self.assertEqual(
                reached, db.api.service_heartbeat_many(self.context, pairs)
            )
            # Each once, and the replaced and the ended ones never.
            if (old.id, 1) in pairs:
                self.assertFalse(self.get(new.id).is_up)
        self.assertEqual(
            [True, True, True, False],
            [row.is_up for row in db.api.service_get_all(self.context)],
        )

    def test_what_is_no_registration_is_refused(self) -> None:
        service = self.register()
        for wrong in ('1', 1.0, True, -1, 2**31, [1]):
            for function in (
                db.api.service_heartbeat,
                db.api.service_unregister,
            ):
                error: Any = self.assertRaises(
                    exception.InvalidInput,
                    function,
                    self.context,
                    service.id,
                    wrong,
                )
                self.assertEqual('registration', error.field)
            error = self.assertRaises(
                exception.InvalidInput,
                db.api.service_heartbeat_many,
                self.context,
                [(service.id, wrong)],
            )
            self.assertEqual('service_ids', error.field)


class TestCondition(RegistrationTestCase):
    def refused(self, service: db.api.ServiceRow, seconds: float) -> None:
        """Show that nobody else can register, and that nothing changes."""
        before = self.get(service.id)
        error: Any = self.assertRaises(
            exception.ServiceAlive,
            db.api.service_register,
            self.context,
            {**IDENTITY, 'topic': 'new', 'version': 5, 'disabled': True},
            only_if_silent_for=seconds,
        )
        self.assertEqual(before, self.get(service.id))
        self.assertEqual(
            (before.id, before.registration, 'h1', 'agent'),
            (error.service_id, error.registration, error.host, error.binary),
        )
        self.assertEqual(before.last_seen_at, error.last_seen_at)
        for part in (
            'agent on host h1',
            str(before.last_seen_at),
            '--host',
            '--binary',
            '--replace',
        ):
            self.assertIn(part, str(error))

    def test_one_that_was_seen_of_late_is_not_replaced(self) -> None:
        service = self.register()
        self.refused(service, 60)
        self.set_silent_for(service.id, 50)
        self.refused(service, 60)
        db.api.service_heartbeat(self.context, service.id, 1)
        self.refused(service, 60)

    def test_it_keeps_its_claims(self) -> None:
        service = self.register()
        claim = db.api.resource_claim(
            self.context, self.create(), service.id, service.registration
        )
        self.refused(service, 60)
        db.api.resource_update(
            self.context, claim.resource_id, {'status': 'x'}, claim=claim
        )

    def test_one_that_was_silent_for_so_long_is(self) -> None:
        service = self.register()
        db.api.resource_claim(self.context, self.create(), service.id, 1)
        self.set_silent_for(service.id, 70)
        new = db.api.service_register(
            self.context,
            {**IDENTITY, 'topic': 'new', 'version': 5, 'disabled': True},
            only_if_silent_for=60,
        )
        self.assertEqual(
            (service.id, 2, 'new', 5, True, True),
            (
                new.id,
                new.registration,
                new.topic,
                new.version,
                new.disabled,
                new.is_up,
            ),
        )
        self.assertEqual(new, self.get(new.id))
        self.assertEqual([None], self.holders())

    def test_where_nobody_was_registered_it_is_no_hindrance(self) -> None:
        self.assertEqual(1, self.register(only_if_silent_for=60).registration)
        db.api.service_destroy(self.context, self.register().id)
        self.assertEqual(1, self.register(only_if_silent_for=60).registration)

    def test_one_that_never_beat_does_not_live(self) -> None:
        factories.create_service(**IDENTITY)
        self.assertEqual(1, self.register(only_if_silent_for=60).registration)

    def test_one_that_was_ended_does_not_live(self) -> None:
        service = self.register()
        db.api.service_unregister(self.context, service.id, 1)
        again = self.register(only_if_silent_for=60)
        self.assertEqual((2, True), (again.registration, again.is_up))
        self.assertIsNone(again.unregistered_at)
        self.refused(again, 60)

    def test_one_that_was_forced_down_and_beats_lives(self) -> None:
        service = self.register()
        db.api.service_update(self.context, service.id, {'forced_down': True})
        self.refused(service, 60)

    def test_fractions_of_a_second_count(self) -> None:
        service = self.register()
        self.set_silent_for(service.id, 100)
        self.refused(service, 1e6 + 0.5)
        self.assertEqual(2, self.register(only_if_silent_for=0.5).registration)

    def test_of_many_that_race_one_registers(self) -> None:
        service = self.register()
        db.api.resource_claim(self.context, self.create(), service.id)
        self.set_silent_for(service.id, 1000)
        self.check_race(2)
        db.api.service_unregister(self.context, service.id)
        self.check_race(3)
        db.api.service_destroy(self.context, service.id)
        self.check_race(1)

    def check_race(self, registration: int) -> None:
        """Let many register on a condition, and show that one does."""
        results = self.in_threads(
            8,
            lambda _: db.api.service_register(
                context.get_admin_context(), IDENTITY, only_if_silent_for=60
            ),
        )
        errors = [r for r in results if isinstance(r, Exception)]
        self.assertEqual(7, len(errors), results)
        for error in errors:
            self.assertIsInstance(error, exception.ServiceAlive)
        (row,) = db.api.service_get_all(self.context)
        self.assertEqual(registration, row.registration)
        self.assertIn(row, results)

    def test_a_refusal_leaves_the_transaction_of_others_as_it_was(
        self,
    ) -> None:
        service = self.register()
        with db.api.transaction(self.context):
            db.api.service_update(self.context, service.id, {'version': 7})
            self.assertRaises(
                exception.ServiceAlive, self.register, only_if_silent_for=60
            )
        row = self.get(service.id)
        self.assertEqual((7, 1), (row.version, row.registration))

    def test_what_is_no_number_of_seconds_is_refused(self) -> None:
        for wrong in ('5', True, -1, float('nan'), float('inf'), [5]):
            with self.commands() as sent:
                error: Any = self.assertRaises(
                    exception.InvalidInput,
                    self.register,
                    only_if_silent_for=wrong,
                )
            self.assertEqual('only_if_silent_for', error.field)
            self.assertEqual([], sent)


class TestUnregister(RegistrationTestCase):
    def test_it_is_down_at_once_and_its_last_beat_is_kept(self) -> None:
        service = self.register()
        db.api.service_unregister(self.context, service.id, 1)
        row = self.get(service.id)
        self.assertFalse(row.is_up)
        self.assertEqual(service.last_seen_at, row.last_seen_at)
        assert row.unregistered_at is not None
        assert row.last_seen_at is not None
        self.assertTrue(row.last_seen_at <= row.unregistered_at)
        for is_up, found in ((True, []), (False, [row])):
            self.assertEqual(
                found,
                db.api.service_get_all(self.context, {'is_up': is_up}),
            )

    def test_twice_is_once(self) -> None:
        service = self.register()
        db.api.service_unregister(self.context, service.id, 1)
        first = self.get(service.id)
        for registration in (1, None):
            db.api.service_unregister(self.context, service.id, registration)
            self.assertEqual(first, self.get(service.id))

    def test_only_the_latest_can_be_ended(self) -> None:
        old = self.register()
        new = self.register()
        self.replaced(old, db.api.service_unregister, old.id, 1)
        self.assertEqual(new, self.get(new.id))

    def test_what_does_not_live_is_not_found(self) -> None:
        service = self.register()
        db.api.service_destroy(self.context, service.id)
        for service_id in (service.id, 'unknown'):
            for registration in (1, None):
                self.assertRaises(
                    exception.ServiceNotFound,
                    db.api.service_unregister,
                    self.context,
                    service_id,
                    registration,
                )

    def test_no_beat_revives_it(self) -> None:
        service = self.register()
        db.api.service_unregister(self.context, service.id, 1)
        self.replaced(service, db.api.service_heartbeat, service.id, 1)
        db.api.service_heartbeat(self.context, service.id)
        db.api.service_heartbeat_many(self.context, [service.id])
        self.assertFalse(self.get(service.id).is_up)
        self.assertTrue(self.register().is_up)

    def test_its_claims_can_be_taken_over_at_once(self) -> None:
        service = self.register()
        claim = db.api.resource_claim(
            self.context, self.create(), service.id, 1
        )
        self.assertEqual(0, db.api.claims_take_over(self.context))
        db.api.service_unregister(self.context, service.id, 1)
        self.assertEqual(1, db.api.claims_take_over(self.context))
        self.assertRaises(
            exception.ClaimLost, db.api.resource_release, self.context, claim
        )

    def test_only_administrators(self) -> None:
        plain = context.RequestContext('user', 'project', overwrite=False)
        error: Any = self.assertRaises(
            exception.AdminRequired, db.api.service_unregister, plain, 'x'
        )
        self.assertEqual('service_unregister', error.function)


class TestClaims(RegistrationTestCase):
    def test_they_carry_it(self) -> None:
        for number in (1, 2):
            service = self.register()
            made = self.create()
            claim = db.api.resource_claim(
                self.context, made, service.id, registration=number
            )
            self.assertEqual(db.api.Claim(made, service.id, 1, number), claim)
            made = self.create()
            claims = db.api.resource_claim_next(
                self.context, service.id, registration=number
            )
            # That of the last life, which is free, is older.
            self.assertEqual([number], [c.registration for c in claims])
            self.assertEqual(service.id, claims[0].service_id)

    def test_none_is_as_good_as_it_was(self) -> None:
        service = self.register()
        made = self.create()
        claim = db.api.resource_claim(self.context, made, service.id)
        self.assertEqual(db.api.Claim(made, service.id, 1), claim)
        self.assertIsNone(claim.registration)
        db.api.resource_release(self.context, claim)
        (claim,) = db.api.resource_claim_next(self.context, service.id)
        self.assertEqual(db.api.Claim(made, service.id, 3), claim)

    def test_it_writes_and_is_released(self) -> None:
        service = self.register()
        made = self.create()
        claim = db.api.resource_claim(self.context, made, service.id, 1)
        db.api.resource_update(
            self.context, made, {'status': 'x'}, claim=claim
        )
        db.api.resource_release(self.context, claim)
        self.assertEqual([None], self.holders())

    def check_that_it_claims_nothing(self, service: db.api.ServiceRow) -> None:
        free, held = self.create(), self.create()
        holder = factories.create_service()
        db.api.resource_claim(self.context, held, holder.id)
        before = db.api.resource_get_all(self.context)
        for resource_id in (free, held, 'unknown'):
            self.replaced(
                service,
                db.api.resource_claim,
                resource_id,
                service.id,
                registration=service.registration,
            )
        for arguments in (
            {},
            {'limit': 5},
            {'filters': {'status': 'requested'}},
            {'filters': {'status': 'nonsense'}},
        ):
            self.replaced(
                service,
                db.api.resource_claim_next,
                service.id,
                registration=service.registration,
                **arguments,
            )
        self.assertEqual(before, db.api.resource_get_all(self.context))

    def test_the_old_one_claims_nothing(self) -> None:
        old = self.register()
        self.register()
        self.check_that_it_claims_nothing(old)

    def test_the_one_that_was_ended_claims_nothing(self) -> None:
        service = self.register()
        db.api.service_unregister(self.context, service.id, 1)
        self.check_that_it_claims_nothing(service)

    def test_one_to_come_claims_nothing(self) -> None:
        self.create()
        service = self.register()
        for call in (
            lambda: db.api.resource_claim_next(
                self.context, service.id, registration=2
            ),
            lambda: db.api.service_heartbeat(self.context, service.id, 2),
        ):
            self.assertRaises(exception.ServiceReplaced, call)

    def test_a_destroyed_service_is_not_found(self) -> None:
        service = self.register()
        made = self.create()
        db.api.service_destroy(self.context, service.id)
        for call in (
            lambda: db.api.resource_claim(self.context, made, service.id, 1),
            lambda: db.api.resource_claim_next(
                self.context, service.id, registration=1
            ),
        ):
            self.assertRaises(exception.ServiceNotFound, call)

    def test_a_disabled_service_with_its_registration_gets_none(self) -> None:
        self.create()
        service = self.register()
        for column in ('disabled', 'forced_down'):
            for value, count in ((True, 0), (False, 1)):
                db.api.service_update(
                    self.context, service.id, {column: value}
                )
                claims = db.api.resource_claim_next(
                    self.context, service.id, registration=1
                )
                self.assertEqual(count, len(claims), column)
            db.api.resource_release(self.context, claims[0])

    def test_what_was_claimed_before_writes_no_more(self) -> None:
        old = self.register()
        claims = [
            db.api.resource_claim(self.context, self.create(), old.id, 1)
            for _ in range(2)
        ]
        self.register()
        self.assertEqual([None, None], self.holders())
        for claim in claims:
            for call in (
                lambda claim=claim: db.api.resource_release(
                    self.context, claim
                ),
                lambda claim=claim: db.api.resource_update(
                    self.context,
                    claim.resource_id,
                    {'status': 'x'},
                    claim=claim,
                ),
            ):
                error: Any = self.assertRaises(exception.ClaimLost, call)
                self.assertEqual(
                    (old.id, 1), (error.service_id, error.registration)
                )
        claims = db.api.resource_claim_next(
            self.context, old.id, limit=5, registration=2
        )
        self.assertEqual([3, 3], [claim.generation for claim in claims])

    def test_in_a_transaction_it_is_the_same(self) -> None:
        old = self.register()
        new = self.register()
        made = self.create()
        with db.api.transaction(self.context):
            self.replaced(
                old, db.api.resource_claim, made, old.id, registration=1
            )
            self.replaced(old, db.api.service_heartbeat, old.id, 1)
            claim = db.api.resource_claim(self.context, made, new.id, 2)
        self.assertEqual(2, claim.registration)
        self.assertEqual([new.id], self.holders())

    def test_what_is_no_registration_is_refused(self) -> None:
        for wrong in ('1', True, -1, 2**31):
            for call in (
                lambda wrong=wrong: db.api.resource_claim(
                    self.context, 'x', 'y', wrong
                ),
                lambda wrong=wrong: db.api.resource_claim_next(
                    self.context, 'y', registration=wrong
                ),
            ):
                error: Any = self.assertRaises(exception.InvalidInput, call)
                self.assertEqual('registration', error.field)

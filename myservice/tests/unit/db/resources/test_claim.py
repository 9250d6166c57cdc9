"""Claims: one holder, and a token that tells an old one from a new one."""

from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import factories
from myservice.tests.unit.db.resources import test_resource

SERVICES = models.Service.__table__


class ClaimTestCase(test_resource.ResourceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = factories.create_service()

    def claim_next(self, **arguments: Any) -> list[db.api.Claim]:
        return db.api.resource_claim_next(
            self.context, self.service.id, **arguments
        )

    def kill(self, service_id: str) -> None:
        """Make a service count as down."""
        db.api.service_update(self.context, service_id, {'forced_down': True})

    def lost(self, claim: db.api.Claim) -> None:
        """Show that nothing can be written under a claim any more."""
        before = db.api.resource_get_all(
            context.get_admin_context(read_deleted='yes')
        )
        for call, arguments in (
            (db.api.resource_release, (claim,)),
            (db.api.resource_claim_renew, (claim,)),
            (db.api.resource_claim_hand_over, (claim, self.service.id)),
            (db.api.resource_claim_hand_over, (claim, 'unknown')),
            (
                db.api.resource_update,
                (claim.resource_id, {'status': 'x'}, None, claim),
            ),
            (db.api.resource_destroy, (claim.resource_id, claim)),
            (db.api.resource_metadata_set, (claim.resource_id, {}, claim)),
            (db.api.resource_tags_set, (claim.resource_id, [], claim)),
        ):
            error: Any = self.assertRaises(
                exception.ClaimLost, call, self.context, *arguments
            )
            self.assertEqual(
                claim,
                db.api.Claim(
                    error.resource_id,
                    error.service_id,
                    error.generation,
                    error.registration,
                ),
            )
        self.assertEqual(
            before,
            db.api.resource_get_all(
                context.get_admin_context(read_deleted='yes')
            ),
        )


class TestClaim(ClaimTestCase):
    def test_it_makes_the_service_the_holder(self) -> None:
        made = self.create()
        claim = db.api.resource_claim(self.context, made.id, self.service.id)
        self.assertEqual((made.id, self.service.id, 1, None), tuple(claim))
        row = self.get(made)
        self.assertEqual(
            (self.service.id, 1, 1),
            (row.service_id, row.generation, row.claim_generation),
        )

    def test_there_is_one_holder(self) -> None:
        made = self.create()
        db.api.resource_claim(self.context, made.id, self.service.id)
        for service_id in (self.service.id, factories.create_service().id):
            error = self.assertRaises(
                exception.ResourceClaimed,
                db.api.resource_claim,
                self.context,
                made.id,
                service_id,
            )
            self.assertEqual(
                (made.id, self.service.id, self.service.host),
                (error.resource_id, error.service_id, error.host),
            )
            self.assertIn(f'on host {self.service.host}.', str(error))

    def test_a_refusal_names_no_host_of_a_holder_that_is_gone(self) -> None:
        made = self.create()
        db.api.resource_claim(self.context, made.id, self.service.id)
        # As a program of another kind may leave it.
        with self.database.engine().begin() as connection:
            connection.execute(sa.delete(SERVICES))
        for call, arguments in (
            (db.api.resource_claim, (factories.create_service().id,)),
            (db.api.resource_destroy, ()),
        ):
            error: Any = self.assertRaises(
                exception.ResourceClaimed,
                call,
                self.context,
                made.id,
                *arguments,
            )
            self.assertEqual(
                (self.service.id, None), (error.service_id, error.host)
            )

    def test_what_does_not_live_claims_nothing_and_is_not_claimed(
        self,
    ) -> None:
        made = self.create()
        gone = self.create()
        db.api.resource_destroy(self.user, gone.id)
        dead = factories.create_service()
        db.api.service_destroy(self.context, dead.id)
        for resource_id, service_id, error in (
            (gone.id, self.service.id, exception.ResourceNotFound),
            ('unknown', self.service.id, exception.ResourceNotFound),
            (made.id, dead.id, exception.ServiceNotFound),
            (made.id, 'unknown', exception.ServiceNotFound),
        ):
            self.assertRaises(
                error,
                db.api.resource_claim,
                self.context,
                resource_id,
                service_id,
            )
        self.assertIsNone(self.get(made).service_id)

    def test_of_many_one_gets_it(self) -> None:
        made = self.create()
        services = [factories.create_service() for _ in range(8)]
        results = self.in_threads(
            8,
            lambda number: db.api.resource_claim(
                context.get_admin_context(), made.id, services[number].id
            ),
        )
        claims = [r for r in results if isinstance(r, db.api.Claim)]
        self.assertEqual(1, len(claims), results)
        self.assertEqual(claims[0].service_id, self.get(made).service_id)

    def test_writes_under_it_keep_it(self) -> None:
        made = self.create()
        claim = self.claim(made)
        for status in ('one', 'two'):
            db.api.resource_update(
                self.context, made.id, {'status': status}, claim=claim
            )
        row = self.get(made)
        self.assertEqual(('two', 3), (row.status, row.generation))
        db.api.resource_release(self.context, claim)
        row = self.get(made)
        self.assertEqual(
            (None, None, 4),
            (row.service_id, row.claim_generation, row.generation),
        )

    def test_a_released_one_writes_no_more(self) -> None:
        made = self.create()
        claim = db.api.resource_claim(self.context, made.id, self.service.id)
        db.api.resource_release(self.context, claim)
        self.lost(claim)
        again = db.api.resource_claim(self.context, made.id, self.service.id)
        self.assertTrue(again.generation > claim.generation)
        # The same service, and still not the same claim.
        self.lost(claim)
        db.api.resource_release(self.context, again)

    def test_what_is_no_claim_is_refused(self) -> None:
        made = self.create()
        wrong: list[Any] = [
            None,
            made.id,
            (made.id, 'x', 1),
            made,
            db.api.Claim(made.id, None, None),
            db.api.Claim(made.id, 'x', '1'),
            db.api.Claim(made.id, 'x', 2**63),
            db.api.Claim(made.id, ['x'], 1),
            db.api.Claim(made.id, 'x', 1, '1'),
            db.api.Claim(made.id, 'x', 1, -1),
        ]
        for claim in wrong:
            for call, arguments in (
                (db.api.resource_release, ()),
                (db.api.resource_claim_renew, ()),
                (db.api.resource_claim_hand_over, (self.service.id,)),
            ):
                self.assertRaises(
                    exception.InvalidInput,
                    call,
                    self.context,
                    claim,
                    *arguments,
                )


class TestClaimNext(ClaimTestCase):
    def test_it_takes_free_ones_oldest_first(self) -> None:
        made = [self.create(name=name) for name in 'abcde']
        self.claim(made[1])
        db.api.resource_destroy(self.user, made[2].id)
        (first,) = self.claim_next()
        self.assertEqual((made[0].id, 1), (first.resource_id, 1))
        rest = self.claim_next(limit=10)
        self.assertEqual(
            [made[3].id, made[4].id], [c.resource_id for c in rest]
        )
        self.assertEqual([], self.claim_next())
        for claim in (first, *rest):
            db.api.resource_release(self.context, claim)

    def test_filters_say_which(self) -> None:
        made = [
            self.create(status=status, kind=kind)
            for status in ('requested', 'done')
            for kind in 'ab'
        ]
        (claim,) = self.claim_next(
            filters={'status': 'requested', 'kind': 'b'}, limit=5
        )
        self.assertEqual(made[1].id, claim.resource_id)
        claims = self.claim_next(filters={'status': 'done'}, limit=5)
        self.assertEqual(
            [made[2].id, made[3].id], [c.resource_id for c in claims]
        )
        self.assertRaises(
            exception.InvalidInput, self.claim_next, filters={'colour': 'red'}
        )
        for limit in (0, -1, '1', None, True):
            self.assertRaises(
                exception.InvalidInput, self.claim_next, limit=limit
            )

    def test_a_service_that_does_not_live_gets_none(self) -> None:
        for resources in (0, 1):
            for _ in range(resources):
                self.create()
            self.assertRaises(
                exception.ServiceNotFound,
                db.api.resource_claim_next,
                self.context,
                'unknown',
            )
        (row,) = db.api.resource_get_all(self.user)
        self.assertIsNone(row.service_id)

    def test_a_disabled_service_gets_no_new_work(self) -> None:
        self.create()
        for column in ('disabled', 'forced_down'):
            for value, count in ((True, 0), (False, 1)):
                db.api.service_update(
                    self.context, self.service.id, {column: value}
                )
                claims = self.claim_next()
                self.assertEqual(count, len(claims), column)
            db.api.resource_release(self.context, claims[0])

    def test_side_by_side_nobody_gets_the_same(self) -> None:
        made = {self.create().id for _ in range(40)}

        def work(number: int) -> list[str]:
            found: list[str] = []
            while claims := db.api.resource_claim_next(
                context.get_admin_context(), self.service.id, limit=2
            ):
                found += [claim.resource_id for claim in claims]
            return found

        results = self.in_threads(4, work)
        found = [resource_id for result in results for resource_id in result]
        # What is passed by is not waited for: somebody may stop too early.
        found += [c.resource_id for c in self.claim_next(limit=40)]
        self.assertEqual((40, made), (len(found), set(found)))


class TestRenew(ClaimTestCase):
    def test_the_holder_gets_a_new_token(self) -> None:
        made = self.create()
        claim = db.api.resource_claim(self.context, made.id, self.service.id)
        db.api.resource_update(
            self.context, made.id, {'status': 'x'}, claim=claim
        )
        renewed = db.api.resource_claim_renew(self.context, claim)
        self.assertEqual(claim._replace(generation=3), renewed)
        row = self.get(made)
        self.assertEqual(
            (self.service.id, 3, 3, 'x'),
            (
                row.service_id,
                row.generation,
                row.claim_generation,
                row.status,
            ),
        )
        self.lost(claim)
        db.api.resource_release(self.context, renewed)

    def test_the_registration_stays(self) -> None:
        made = self.create()
        service = db.api.service_register(
            self.context, {'host': 'h', 'binary': 'b'}
        )
        claim = db.api.resource_claim(self.context, made.id, service.id, 1)
        renewed = db.api.resource_claim_renew(self.context, claim)
        self.assertEqual(1, renewed.registration)

    def test_one_that_is_lost_is_neither_renewed_nor_handed_over(self) -> None:
        released, taken, destroyed = (
            self.claim(self.create()) for _ in range(3)
        )
        db.api.resource_release(self.context, released)
        self.kill(taken.service_id)
        db.api.claims_take_over(self.context)
        for claim in (released, taken):
            self.lost(claim)
        db.api.resource_destroy(self.context, destroyed.resource_id, destroyed)
        unknown = released._replace(resource_id='unknown')
        for claim in (destroyed, unknown):
            for call, arguments in (
                (db.api.resource_claim_renew, ()),
                (db.api.resource_claim_hand_over, (self.service.id,)),
            ):
                self.assertRaises(
                    exception.ClaimLost, call, self.context, claim, *arguments
                )

    def test_of_many_one_renews_it(self) -> None:
        claim = self.claim(self.create())
        results = self.in_threads(
            8,
            lambda _: db.api.resource_claim_renew(
                context.get_admin_context(), claim
            ),
        )
        (renewed,) = [r for r in results if isinstance(r, db.api.Claim)]
        for result in results:
            if result is not renewed:
                self.assertIsInstance(result, exception.ClaimLost)
        db.api.resource_release(self.context, renewed)


class TestHandOver(ClaimTestCase):
    def hand_over(self, claim: db.api.Claim, *arguments: Any) -> db.api.Claim:
        return db.api.resource_claim_hand_over(self.context, claim, *arguments)

    def test_the_other_service_holds_it(self) -> None:
        made = self.create()
        claim = self.claim(made)
        new = self.hand_over(claim, self.service.id)
        self.assertEqual(db.api.Claim(made.id, self.service.id, 2), new)
        row = self.get(made)
        self.assertEqual(
            (self.service.id, 2, 2),
            (row.service_id, row.generation, row.claim_generation),
        )
        self.lost(claim)
        # Nothing is left to those who gave it away.
        db.api.service_destroy(self.context, claim.service_id)
        db.api.resource_update(
            self.context, made.id, {'status': 'x'}, claim=new
        )
        db.api.resource_release(self.context, new)

    def test_it_comes_back_with_another_token(self) -> None:
        claim = self.claim(self.create())
        back = self.hand_over(
            self.hand_over(claim, self.service.id), claim.service_id
        )
        self.assertEqual(claim._replace(generation=3), back)
        self.lost(claim)

    def test_the_registration_of_the_other_has_to_hold(self) -> None:
        values = {'host': 'h', 'binary': 'b'}
        old, new = (
            db.api.service_register(self.context, values) for _ in range(2)
        )
        claim = self.claim(self.create())
        error = self.assertRaises(
            exception.ServiceReplaced,
            self.hand_over,
            claim,
            old.id,
            old.registration,
        )
        self.assertEqual(
            (old.id, 1, 'h'),
            (error.service_id, error.registration, error.host),
        )
        given = self.hand_over(claim, new.id, new.registration)
        self.assertEqual(2, given.registration)
        db.api.service_register(self.context, values)
        self.lost(given)

    def test_a_service_that_does_not_live_gets_nothing(self) -> None:
        made = self.create()
        claim = self.claim(made)
        dead = factories.create_service()
        db.api.service_destroy(self.context, dead.id)
        for service_id in (dead.id, 'unknown'):
            for registration in (None, 0):
                self.assertRaises(
                    exception.ServiceNotFound,
                    self.hand_over,
                    claim,
                    service_id,
                    registration,
                )
        self.assertEqual(
            (claim.service_id, 1),
            (self.get(made).service_id, self.get(made).generation),
        )

    def test_of_many_one_gets_it(self) -> None:
        made = self.create()
        claim = self.claim(made)
        services = [factories.create_service() for _ in range(8)]
        results = self.in_threads(
            8,
            lambda number: db.api.resource_claim_hand_over(
                context.get_admin_context(), claim, services[number].id
            ),
        )
        (new,) = [r for r in results if isinstance(r, db.api.Claim)]
        for result in results:
            if result is not new:
                self.assertIsInstance(result, exception.ClaimLost)
        self.assertEqual(new.service_id, self.get(made).service_id)

    def test_services_that_are_destroyed_meanwhile_hold_nothing(self) -> None:
        made = [self.create() for _ in range(8)]
        claims = [self.claim(resource) for resource in made]
        heirs = [factories.create_service() for _ in made]

        def work(number: int) -> Any:
            admin = context.get_admin_context()
            if number % 2:
                return db.api.service_destroy(
                    admin, heirs[number // 2].id, force=True
                )
            return db.api.resource_claim_hand_over(
                admin, claims[number // 2], heirs[number // 2].id
            )

        results = self.in_threads(16, work)
        for number, result in enumerate(results):
            if number % 2:
                self.assertIsNone(result)
            elif not isinstance(result, db.api.Claim):
                self.assertIsInstance(result, exception.ServiceNotFound)
        heir_ids = {heir.id for heir in heirs}
        for resource in made:
            self.assertNotIn(self.get(resource).service_id, heir_ids)

    def test_services_that_swap_their_work_end(self) -> None:
        services = [factories.create_service() for _ in range(2)]
        claims = [
            db.api.resource_claim(self.context, self.create().id, each.id)
            for each in services
        ]

        def work(number: int) -> None:
            admin, mine = context.get_admin_context(), number % 2
            for turn in range(20):
                if number < 2:
                    to = services[(mine + turn + 1) % 2].id
                    claims[mine] = db.api.resource_claim_hand_over(
                        admin, claims[mine], to
                    )
                else:
                    db.api.service_heartbeat(admin, services[mine].id)

        self.assertEqual([None] * 4, self.in_threads(4, work))
        for claim in claims:
            db.api.resource_release(self.context, claim)


class TestTakeOver(ClaimTestCase):
    def test_the_claims_of_the_dead_are_freed_and_no_others(self) -> None:
        dead, living = (self.claim(self.create()) for _ in range(2))
        self.assertEqual(0, db.api.claims_take_over(self.context))
        self.kill(dead.service_id)
        self.assertEqual(1, db.api.claims_take_over(self.context))
        self.assertEqual(0, db.api.claims_take_over(self.context))
        self.lost(dead)
        row = db.api.resource_get(self.context, dead.resource_id)
        self.assertEqual((None, 2), (row.service_id, row.generation))
        db.api.resource_update(
            self.context, living.resource_id, {'status': 'x'}, claim=living
        )

    def test_a_service_that_registers_again_starts_without_claims(
        self,
    ) -> None:
        claim = db.api.resource_claim(
            self.context, self.create().id, self.service.id
        )
        other = self.claim(self.create())
        again = db.api.service_register(
            self.context,
            {'host': self.service.host, 'binary': self.service.binary},
        )
        self.assertEqual(self.service.id, again.id)
        self.lost(claim)
        db.api.resource_release(self.context, other)

    def test_a_service_with_claims_is_destroyed_by_force_only(self) -> None:
        claims = [
            db.api.resource_claim(
                self.context, self.create().id, self.service.id
            )
            for _ in range(2)
        ]
        error = self.assertRaises(
            exception.ServiceInUse,
            db.api.service_destroy,
            self.context,
            self.service.id,
        )
        self.assertEqual(
            (self.service.id, 2), (error.service_id, error.claims)
        )
        db.api.service_destroy(self.context, self.service.id, force=True)
        for claim in claims:
            self.lost(claim)

    def test_a_service_without_claims_is_just_destroyed(self) -> None:
        claim = db.api.resource_claim(
            self.context, self.create().id, self.service.id
        )
        db.api.resource_release(self.context, claim)
        db.api.service_destroy(self.context, self.service.id)
        rows: list[db.api.ServiceRow] = db.api.service_get_all(self.context)
        self.assertEqual([], rows)


class TestComposition(ClaimTestCase):
    def test_claim_write_and_release_are_one_transaction(self) -> None:
        made = self.create()

        def work() -> None:
            with db.api.transaction(self.context):
                claim = db.api.resource_claim(
                    self.context, made.id, self.service.id
                )
                db.api.resource_update(
                    self.context, made.id, {'status': 'done'}, claim=claim
                )
                (other,) = self.claim_next(filters={'name': 'other'})
                db.api.resource_release(self.context, claim)
                db.api.resource_release(self.context, other)
                raise ValueError

        self.create(name='other')
        before = db.api.resource_get_all(self.user)
        self.assertRaises(ValueError, work)
        self.assertEqual(before, db.api.resource_get_all(self.user))

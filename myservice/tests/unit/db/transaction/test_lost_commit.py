"""COMMITs whose reply is lost, one by one; SQLite has no wire to lose them."""

from collections.abc import Callable

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories
from myservice.tests import proxy

RESOURCES = models.Resource.__table__
SERVICES = models.Service.__table__
USAGES = models.QuotaUsage.__table__
IDENTITY = {'host': 'h', 'binary': 'b'}


class TestLostCommit(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        if self.backend == 'sqlite':
            self.skipTest('nothing travels')
        self.direct = sa.create_engine(
            self.database.connection, poolclass=sa.NullPool
        )
        self.between = self.use_proxy()
        for form in ('transaction', 'autocommit'):
            self.database.engine(form).connect().close()
        self.before = db.api.statistics()

    def lose(
        self,
        what: str,
        action: proxy.Action,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Lose the first command that is of a kind, or begins like this."""
        left = [1]

        def decide(command: proxy.Command) -> proxy.Action | None:
            hit = command.kind == what or command.sql.startswith(what)
            if not hit or not left:
                return None
            left.clear()
            meanwhile()
            return action

        self.between.decide = decide

    def doubts(self) -> tuple[int, int]:
        after = db.api.statistics()
        return (
            after.in_doubt_resolved - self.before.in_doubt_resolved,
            after.in_doubt_unresolved - self.before.in_doubt_unresolved,
        )

    def test_a_create_finds_its_own_row(self) -> None:
        self.lose('INSERT INTO services', proxy.DropAfter())
        made = factories.create_service(host='h', binary='b')
        rows = db.api.service_get_all(self.context)
        self.assertEqual([made], rows)
        self.assertEqual((1, 0), self.doubts())

    def test_a_destroy_finds_its_own_mark(self) -> None:
        made = factories.create_service()
        self.lose('commit', proxy.DropAfter())
        db.api.service_destroy(self.context, made.id)
        self.assertEqual((1, 0), self.doubts())
        self.assertEqual([], db.api.service_get_all(self.context))

    def test_a_destroy_that_never_arrived_is_done_again(self) -> None:
        made = factories.create_service()
        self.lose('commit', proxy.DropBefore())
        db.api.service_destroy(self.context, made.id)
        self.assertEqual((1, 0), self.doubts())
        self.assertEqual([], db.api.service_get_all(self.context))

    def registered(self) -> int:
        """Return the registration on the only row."""
        (row,) = db.api.service_get_all(self.context)
        return row.registration

    def test_a_registration_counts_once(self) -> None:
        number = 0
        for conditions in ({}, {'only_if_silent_for': 0}):
            for action in (
                proxy.DropAfter(),
                proxy.DropBefore(),
                proxy.DeliverLate(0.5),
            ):
                self.lose('commit', action)
                service = db.api.service_register(
                    self.context, IDENTITY, **conditions
                )
                number += 1
                self.assertEqual(number, service.registration)
                self.assertEqual(number, self.registered())
        self.assertEqual((6, 0), self.doubts())

    def test_its_own_registration_is_nobody_that_lives(self) -> None:
        self.lose('commit', proxy.DropAfter())
        service = db.api.service_register(
            self.context, IDENTITY, only_if_silent_for=60
        )
        self.assertEqual((1, 1), (service.registration, self.registered()))

    def lose_and_replace(self) -> None:
        """Lose the reply of COMMIT; then somebody else registers."""
        steps = ['commit', 'INSERT INTO services']

        def decide(command: proxy.Command) -> proxy.Action | None:
            first = steps[0] if steps else '-'
            if command.kind != first and not command.sql.startswith(first):
                return None
            steps.pop(0)
            if steps:
                return proxy.DropAfter()
            with self.direct.begin() as connection:
                connection.execute(
                    sa.update(SERVICES).values(
                        registration=SERVICES.c.registration + 1,
                        operation='of another',
                    )
                )
            return None

        self.between.decide = decide

    def test_a_registration_is_never_an_old_one(self) -> None:
        self.lose_and_replace()
        service = db.api.service_register(self.context, IDENTITY)
        self.assertEqual((3, 3), (service.registration, self.registered()))
        db.api.service_heartbeat(self.context, service.id, 3)
        self.assertEqual((1, 0), self.doubts())

    def test_who_was_replaced_in_doubt_does_not_replace(self) -> None:
        self.lose_and_replace()
        error = self.assertRaises(
            exception.CommitUnknown,
            db.api.service_register,
            self.context,
            IDENTITY,
            only_if_silent_for=60,
        )
        self.assertIn('Another process runs as b on host h', error.known)
        self.assertEqual(2, self.registered())

    def test_the_end_of_a_registration_is_repeated(self) -> None:
        for number, action in enumerate(
            (proxy.DropAfter(), proxy.DropBefore()), 1
        ):
            service = db.api.service_register(self.context, IDENTITY)
            self.assertEqual(number, service.registration)
            self.lose('UPDATE services', action)
            db.api.service_unregister(self.context, service.id, number)
            row = db.api.service_get(self.context, service.id)
            self.assertFalse(row.is_up)
        self.assertEqual((2, 0), self.doubts())

    def test_claims_of_a_registration_are_found_again(self) -> None:
        made = [
            db.api.resource_create(self.context, {'project_id': 'p'}).id
            for _ in range(2)
        ]
        service = db.api.service_register(self.context, IDENTITY)
        claiming = {'mysql': 'UPDATE resources', 'postgresql': 'WITH living'}
        self.lose(claiming[self.backend], proxy.DropAfter())
        self.assertEqual(
            db.api.Claim(made[0], service.id, 1, 1),
            db.api.resource_claim(self.context, made[0], service.id, 1),
        )
        self.lose('commit', proxy.DropAfter())
        self.assertEqual(
            [db.api.Claim(made[1], service.id, 1, 1)],
            db.api.resource_claim_next(
                self.context, service.id, registration=1
            ),
        )
        self.assertEqual((2, 0), self.doubts())

    def test_claims_are_renewed_and_handed_over_once(self) -> None:
        made = db.api.resource_create(self.context, {'project_id': 'p'})
        services = [factories.create_service() for _ in range(2)]
        claim = db.api.resource_claim(self.context, made.id, services[0].id)
        handing = {'mysql': 'UPDATE resources', 'postgresql': 'WITH living'}
        for turn, action in enumerate(
            (proxy.DropAfter(), proxy.DropBefore(), proxy.DeliverLate(0.5)), 1
        ):
            self.lose('UPDATE resources', action)
            claim = db.api.resource_claim_renew(self.context, claim)
            self.assertEqual(2 * turn, claim.generation)
            self.lose(handing[self.backend], action)
            claim = db.api.resource_claim_hand_over(
                self.context, claim, services[turn % 2].id
            )
            self.assertEqual(2 * turn + 1, claim.generation)
            row = db.api.resource_get(self.context, made.id)
            self.assertEqual(
                (claim.service_id, claim.generation),
                (row.service_id, row.claim_generation),
            )
        self.assertEqual((6, 0), self.doubts())
        db.api.resource_release(self.context, claim)

    def test_who_cannot_tell_says_so(self) -> None:
        made = factories.create_service()

        def somebody_else() -> None:
            # Nobody comes back before it is done.
            self.between.refuse = True
            self.between.drop_all()
            with self.direct.begin() as connection:
                connection.execute(sa.update(SERVICES).values(deleted='x'))
            self.between.refuse = False

        self.lose('UPDATE services', proxy.DropBefore(), somebody_else)
        # Lost before COMMIT: it is known that it was somebody else.
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_destroy,
            self.context,
            made.id,
        )
        made = factories.create_service()
        self.lose('UPDATE services', proxy.DropBefore(), somebody_else)
        # This one commits by itself.
        error = self.assertRaises(
            exception.CommitUnknown,
            db.api.service_heartbeat,
            self.context,
            made.id,
        )
        self.assertEqual('service_heartbeat', error.function)
        self.assertIn(f'Service {made.id} could not be found', error.known)
        self.assertEqual(1, self.doubts()[1])

    def usage(self) -> dict[str, int]:
        usages = db.api.quota_usage_get_all(self.context, 'p')
        return usages['gigabytes']

    def test_a_reserve_finds_its_own_reservations(self) -> None:
        db.api.quota_reserve(self.context, {'gigabytes': 1}, 'p')
        for action in (proxy.DropAfter(), proxy.DropBefore()):
            before = self.usage()['reserved']
            self.lose('commit', action)
            ids = db.api.quota_reserve(
                self.context, {'gigabytes': 2, 'resources': 1}, 'p'
            )
            self.assertEqual(before + 2, self.usage()['reserved'])
            db.api.reservation_commit(self.context, ids, 'p')
        self.assertEqual((2, 0), self.doubts())

    def test_reservations_end_once(self) -> None:
        for end, in_use in (
            (db.api.reservation_commit, 2),
            (db.api.reservation_rollback, 0),
        ):
            for action in (proxy.DropAfter(), proxy.DropBefore()):
                before = self.usage()['in_use']
                ids = db.api.quota_reserve(
                    self.context, {'gigabytes': 2, 'resources': 1}, 'p'
                )
                self.lose('commit', action)
                end(self.context, ids, 'p')
                self.assertEqual(before + in_use, self.usage()['in_use'])
                self.assertEqual(0, self.usage()['reserved'])
        self.assertEqual((4, 0), self.doubts())

    def test_a_new_size_takes_quota_once(self) -> None:
        made = db.api.resource_create(
            self.context, {'project_id': 'p', 'size': 5}
        )
        service = factories.create_service()
        claim = db.api.resource_claim(self.context, made.id, service.id)
        size = made.size
        for expects in (False, True):
            for action in (
                proxy.DropAfter(),
                proxy.DropBefore(),
                proxy.DeliverLate(0.5),
            ):
                expected = {'size': size} if expects else None
                size += 2
                self.lose('commit', action)
                db.api.resource_update(
                    self.context, made.id, {'size': size}, expected, claim
                )
                row = db.api.resource_get(self.context, made.id)
                self.assertEqual(size, row.size)
                self.assertEqual(size, self.usage()['in_use'])
        self.assertEqual(1 + 6, row.generation)
        self.assertEqual((6, 0), self.doubts())

    def test_a_size_that_was_changed_since_leaves_the_usage_right(
        self,
    ) -> None:
        made = db.api.resource_create(
            self.context, {'project_id': 'p', 'size': 5}
        )
        values = {'size': 7}
        self.lose_and_resize()
        db.api.resource_update(self.context, made.id, values)
        self.assertEqual(7, self.usage()['in_use'])
        self.lose_and_resize()
        # Its own 7 was there, and is no longer what it expects.
        self.assertRaises(
            exception.CommitUnknown,
            db.api.resource_update,
            self.context,
            made.id,
            values,
            values,
        )
        row = db.api.resource_get(self.context, made.id)
        self.assertEqual((8, 8), (row.size, self.usage()['in_use']))

    def lose_and_resize(self) -> None:
        """Lose the reply of COMMIT; then somebody else adds a gigabyte."""
        steps = ['commit', 'SELECT resources']

        def decide(command: proxy.Command) -> proxy.Action | None:
            first = steps[0] if steps else '-'
            if command.kind != first and not command.sql.startswith(first):
                return None
            steps.pop(0)
            if steps:
                return proxy.DropAfter()
            with self.direct.begin() as connection:
                connection.execute(
                    sa.update(RESOURCES).values(
                        size=RESOURCES.c.size + 1, operation='of another'
                    )
                )
                connection.execute(
                    sa.update(USAGES)
                    .where(USAGES.c.resource == 'gigabytes')
                    .values(in_use=USAGES.c.in_use + 1)
                )
            return None

        self.between.decide = decide

    def test_limits_are_made_and_destroyed_once(self) -> None:
        for kind in ('quota', 'quota_class'):
            create = getattr(db.api, f'{kind}_create')
            destroy = getattr(db.api, f'{kind}_destroy')
            self.lose('INSERT INTO quota', proxy.DropAfter())
            made = create(self.context, 'x', 'gigabytes', 5)
            self.assertEqual(5, made.limit)
            self.lose('UPDATE quota', proxy.DropAfter())
            destroy(self.context, 'x', 'gigabytes')
            rows = getattr(db.api, f'{kind}_get_all')(self.context)
            self.assertEqual([], rows)
        self.assertEqual((4, 0), self.doubts())

    def test_a_transaction_returns_what_the_lost_attempt_did(self) -> None:
        results: list[int] = []

        def body(ctx: context.RequestContext) -> int:
            db.api.service_create(
                ctx, {'host': f'h{len(results)}', 'binary': 'b'}
            )
            results.append(len(results))
            return results[-1]

        self.lose('commit', proxy.DropAfter())
        self.assertEqual(0, db.api.run_in_transaction(self.context, body))
        rows = db.api.service_get_all(self.context)
        self.assertEqual(['h0'], [row.host for row in rows])
        self.assertEqual((1, 0), self.doubts())

    def test_a_lost_commit_of_another_transaction_is_not_its_own(
        self,
    ) -> None:
        made = factories.create_service(version=0)

        def work(ctx: context.RequestContext) -> None:
            own = db.api.get_session()
            with own.begin():
                own.execute(
                    sa.update(SERVICES).values(version=SERVICES.c.version + 1)
                )

        engine = self.database.engine()
        # A new connection to MariaDB sends a COMMIT by itself.
        with engine.connect(), engine.connect():
            pass
        self.lose('commit', proxy.DropAfter())
        self.assertRaises(
            exception.CommitUnknown,
            db.api.run_in_transaction,
            self.context,
            work,
        )
        row = db.api.service_get(self.context, made.id)
        self.assertEqual(1, row.version)

    def test_a_plain_transaction_cannot_be_settled(self) -> None:
        def work() -> None:
            with db.api.transaction(self.context):
                db.api.service_create(
                    self.context, {'host': 'h', 'binary': 'b'}
                )

        self.lose('commit', proxy.DropAfter())
        error = self.assertRaises(exception.CommitUnknown, work)
        self.assertIn('transaction', error.function)
        self.assertEqual(1, len(db.api.service_get_all(self.context)))

    def test_reads_are_simply_repeated(self) -> None:
        made = factories.create_service()
        for action in (
            proxy.DropBefore(),
            proxy.DropAfter(),
            proxy.DropMiddle(),
        ):
            self.lose('SELECT services', action)
            self.assertEqual(made, db.api.service_get(self.context, made.id))
        self.assertEqual((0, 0), self.doubts())

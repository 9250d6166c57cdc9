"""Reservations: what fits, what does not, and what becomes of it."""

import datetime
import time
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests.unit.db.quotas import test_quota

RESERVATIONS = models.Reservation.__table__
USAGES = models.QuotaUsage.__table__


class ReservationTestCase(test_quota.QuotaTestCase):
    def limit(self, limit: int, resource: str = 'gigabytes') -> None:
        """Give project 'p' a limit."""
        db.api.quota_create(self.context, 'p', resource, limit)

    def reserve(self, _expire: Any = None, **deltas: int) -> list[str]:
        return db.api.quota_reserve(self.user, deltas, expire=_expire)

    def over(self, **deltas: int) -> exception.OverQuota:
        """Return the error of a reserve that does not fit."""
        before = db.api.quota_usage_get_all(self.user)
        rows = self.states()
        error: exception.OverQuota = self.assertRaises(
            exception.OverQuota, self.reserve, **deltas
        )
        self.assertEqual(before, db.api.quota_usage_get_all(self.user))
        self.assertEqual(rows, self.states())
        return error

    def states(self) -> dict[str, str]:
        """Return the states of all reservations, by id."""
        with self.database.engine().connect() as connection:
            return {
                row.id: row.state
                for row in connection.execute(sa.select(RESERVATIONS))
            }


class TestReserve(ReservationTestCase):
    def test_it_takes_all_of_what_is_asked_for(self) -> None:
        ids = self.reserve(resources=1, gigabytes=10)
        self.assertEqual(2, len(set(ids)))
        self.assertEqual((1000, 0, 10), self.usage())
        self.assertEqual((100, 0, 1), self.usage('resources'))

    def test_the_ids_come_in_the_order_of_the_deltas(self) -> None:
        for names in (('resources', 'gigabytes'), ('gigabytes',)):
            ids = db.api.quota_reserve(self.user, dict.fromkeys(names, 1))
            with self.database.engine().connect() as connection:
                resources = [
                    connection.scalar(
                        sa.select(RESERVATIONS.c.resource).where(
                            RESERVATIONS.c.id == reservation_id
                        )
                    )
                    for reservation_id in ids
                ]
            self.assertEqual(list(names), resources)

    def test_it_fits_up_to_the_limit_and_not_beyond(self) -> None:
        self.limit(10)
        self.use(4)
        self.reserve(gigabytes=5)
        self.assertEqual((10, 4, 5), self.usage())
        error = self.over(gigabytes=2)
        self.assertEqual(
            (
                ['gigabytes'],
                {'gigabytes': 10},
                {'gigabytes': {'in_use': 4, 'reserved': 5}},
                'p',
            ),
            (error.overs, error.quotas, error.usages, error.project_id),
        )
        self.assertEqual(
            'Project p is over quota: gigabytes: 4 in use, 5 reserved, 2 '
            'asked for, limit 10.',
            str(error),
        )
        self.reserve(gigabytes=1)
        self.assertEqual((10, 4, 6), self.usage())

    def test_all_or_nothing(self) -> None:
        self.limit(10)
        error = self.over(resources=1, gigabytes=11)
        self.assertEqual(['gigabytes'], error.overs)
        self.assertEqual({}, self.states())
        self.assertEqual((100, 0, 0), self.usage('resources'))

    def test_the_error_names_all_that_is_over(self) -> None:
        self.limit(10)
        self.limit(0, 'resources')
        error = self.over(resources=1, gigabytes=11)
        self.assertEqual(['gigabytes', 'resources'], error.overs)
        self.assertEqual({'gigabytes': 10, 'resources': 0}, error.quotas)
        self.assertEqual({'gigabytes', 'resources'}, set(error.usages))

    def test_minus_one_is_unlimited_and_zero_is_nothing(self) -> None:
        self.limit(-1)
        self.limit(0, 'resources')
        self.reserve(gigabytes=2**62)
        self.over(resources=1)
        self.reserve(resources=0)

    def test_limits_beyond_32_bits(self) -> None:
        self.limit(2**31)
        self.use(2**31 - 1)
        self.over(gigabytes=2)
        self.use(1)
        self.assertEqual((2**31, 2**31, 0), self.usage())

    def test_a_counter_cannot_overflow(self) -> None:
        for limit in (-1, 2**63 - 1):
            project = self.user = self.of_project(f'of {limit}')
            db.api.quota_create(
                self.context, f'of {limit}', 'gigabytes', limit
            )
            self.use(2**63 - 2)
            before = self.usage()
            error = self.assertRaises(
                exception.QuotaUsageOverflow
                if limit == -1
                else exception.OverQuota,
                db.api.quota_reserve,
                project,
                {'gigabytes': 2},
            )
            self.assertIn('9223372036854775807', str(error))
            self.assertEqual(before, self.usage())
            self.reserve(gigabytes=1)
            self.assertEqual((limit, 2**63 - 2, 1), self.usage())

    def test_a_negative_delta_always_fits_and_frees_at_commit(self) -> None:
        self.use(10)
        self.limit(5)
        ids = self.reserve(gigabytes=-4)
        self.assertEqual((5, 10, 0), self.usage())
        db.api.reservation_commit(self.user, ids)
        self.assertEqual((5, 6, 0), self.usage())

    def test_a_usage_never_falls_below_nothing(self) -> None:
        self.use(3)
        ids = [*self.reserve(gigabytes=-2), *self.reserve(gigabytes=-2)]
        db.api.reservation_commit(self.user, ids)
        self.assertEqual((1000, 0, 0), self.usage())

    def test_a_zero_delta_does_not_fit_where_the_limit_is_passed(self) -> None:
        self.use(10)
        self.limit(10)
        self.reserve(gigabytes=0)
        db.api.quota_update(self.context, 'p', 'gigabytes', 9)
        self.over(gigabytes=0)

    def test_a_limit_below_the_usage_stops_what_is_new_only(self) -> None:
        self.use(10)
        ids = self.reserve(gigabytes=5)
        self.limit(3)
        self.over(gigabytes=1)
        db.api.reservation_commit(self.user, ids)
        self.assertEqual((3, 15, 0), self.usage())

    def test_projects_do_not_share(self) -> None:
        self.limit(10)
        self.reserve(gigabytes=10)
        for name in ('P', 'p ', 'q'):
            db.api.quota_reserve(self.of_project(name), {'gigabytes': 10})
        self.assertEqual((10, 0, 10), self.usage())

    def test_an_administrator_names_the_project(self) -> None:
        ids = db.api.quota_reserve(self.context, {'gigabytes': 1}, 'p')
        db.api.reservation_commit(self.context, ids, 'p')
        self.assertEqual((1000, 1, 0), self.usage())
        error = self.assertRaises(
            exception.InvalidInput,
            db.api.quota_reserve,
            self.context,
            {'gigabytes': 1},
        )
        self.assertEqual('project_id', error.field)

    def test_what_is_no_delta_is_refused(self) -> None:
        wrong: list[Any] = [
            None,
            {},
            [],
            'gigabytes',
            {'gigabytes': None},
            {'gigabytes': '1'},
            {'gigabytes': 1.0},
            {'gigabytes': True},
            {'gigabytes': 2**63},
        ]
        for deltas in wrong:
            error = self.assertRaises(
                exception.InvalidInput,
                db.api.quota_reserve,
                self.user,
                deltas,
            )
            self.assertTrue(error.field.startswith('deltas'), error.field)

    def test_resources_without_a_quota_are_named(self) -> None:
        error = self.assertRaises(
            exception.QuotaResourceUnknown,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 1, 'tapes': 1, 'floppies': 1, 5: 1},
        )
        self.assertEqual(['5', 'floppies', 'tapes'], error.unknown)
        self.assertIn('[quota] default_limits', str(error))
        self.assertEqual({}, self.states())


class TestEnd(ReservationTestCase):
    def refused(
        self, error: type[exception.MyServiceError], ids: list[str]
    ) -> Any:
        """Try to end reservations, which changes nothing."""
        before = db.api.quota_usage_get_all(self.user)
        states = self.states()
        for call in (
            db.api.reservation_commit,
            db.api.reservation_rollback,
        ):
            raised = self.assertRaises(error, call, self.user, ids)
            self.assertEqual(before, db.api.quota_usage_get_all(self.user))
            self.assertEqual(states, self.states())
        return raised

    def test_a_commit_turns_reserved_into_used(self) -> None:
        ids = self.reserve(resources=1, gigabytes=10)
        self.assertIsNone(db.api.reservation_commit(self.user, ids))
        self.assertEqual((1000, 10, 0), self.usage())
        self.assertEqual((100, 1, 0), self.usage('resources'))

    def test_a_rollback_gives_back(self) -> None:
        self.use(3)
        ids = self.reserve(resources=1, gigabytes=10)
        self.assertIsNone(db.api.reservation_rollback(self.user, ids))
        self.assertEqual((1000, 3, 0), self.usage())
        self.assertEqual((100, 0, 0), self.usage('resources'))

    def test_a_rollback_of_a_negative_delta_changes_nothing(self) -> None:
        self.use(3)
        ids = self.reserve(gigabytes=-2)
        db.api.reservation_rollback(self.user, ids)
        self.assertEqual((1000, 3, 0), self.usage())

    def test_several_reservations_of_one_resource_end_together(self) -> None:
        ids = [
            *self.reserve(gigabytes=10),
            *self.reserve(gigabytes=20),
            *self.reserve(gigabytes=-5),
        ]
        db.api.reservation_commit(self.user, ids)
        self.assertEqual((1000, 25, 0), self.usage())

    def test_some_of_a_reserve_can_end_before_the_others(self) -> None:
        one, two = self.reserve(resources=1, gigabytes=10)
        db.api.reservation_commit(self.user, [two])
        db.api.reservation_rollback(self.user, (one,))
        self.assertEqual((1000, 10, 0), self.usage())
        self.assertEqual((100, 0, 0), self.usage('resources'))

    def test_what_has_ended_does_not_end_again(self) -> None:
        for end in (db.api.reservation_commit, db.api.reservation_rollback):
            ids = self.reserve(gigabytes=10)
            end(self.user, ids)
            error = self.refused(exception.ReservationNotFound, ids)
            self.assertEqual(ids, error.reservation_ids)
            self.assertIn(ids[0], str(error))

    def test_what_never_was_is_not_found(self) -> None:
        self.refused(exception.ReservationNotFound, ['unknown'])

    def test_what_is_of_another_project_is_not_found(self) -> None:
        other = self.of_project('other')
        ids = db.api.quota_reserve(other, {'gigabytes': 1})
        self.refused(exception.ReservationNotFound, ids)
        db.api.reservation_commit(other, ids)

    def test_the_living_among_the_dead_stay_as_they_are(self) -> None:
        dead = self.reserve(gigabytes=1)
        db.api.reservation_commit(self.user, dead)
        living = self.reserve(gigabytes=2, resources=1)
        error = self.refused(
            exception.ReservationNotFound, [*living, *dead, 'unknown']
        )
        self.assertEqual(sorted([*dead, 'unknown']), error.reservation_ids)
        overdue = self.reserve(-1, gigabytes=4)
        error = self.refused(exception.ReservationExpired, living + overdue)
        self.assertEqual(overdue, error.reservation_ids)
        db.api.reservation_commit(self.user, living)

    def test_an_id_that_is_named_twice_counts_once(self) -> None:
        ids = self.reserve(gigabytes=10)
        db.api.reservation_commit(self.user, ids * 2)
        self.assertEqual((1000, 10, 0), self.usage())

    def test_nothing_can_be_ended(self) -> None:
        db.api.reservation_commit(self.user, [])
        db.api.reservation_rollback(self.user, ())

    def test_what_is_no_list_of_ids_is_refused(self) -> None:
        for ids in ('id', None, [5], {'id': 1}):
            self.refused(exception.InvalidInput, ids)

    def test_of_many_that_end_the_same_one_does(self) -> None:
        for _ in range(5):
            ids = self.reserve(gigabytes=10, resources=1)

            def end(number: int, ids: list[str] = ids) -> None:
                call = (
                    db.api.reservation_commit
                    if number % 2
                    else db.api.reservation_rollback
                )
                call(self.of_project('p'), ids)

            results = self.in_threads(6, end)
            self.assertEqual(1, results.count(None), results)
            committed = any(results[n] is None for n in (1, 3, 5))
            self.assertEqual((1000, 10 * committed, 0), self.usage())
            if committed:
                self.use(-10)
                self.use(-1, 'resources')


class TestExpiry(ReservationTestCase):
    def expire_at(self, reservation_id: str) -> datetime.datetime:
        with self.database.engine().connect() as connection:
            found: datetime.datetime = connection.execute(
                sa.select(RESERVATIONS.c.expire_at).where(
                    RESERVATIONS.c.id == reservation_id
                )
            ).scalar_one()
            return found

    def assert_expires_in(self, seconds: float, reservation_id: str) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        left = (self.expire_at(reservation_id) - now).total_seconds()
        self.assertTrue(seconds - 30 < left < seconds + 5, left)

    def test_it_is_said_as_seconds_timedelta_or_datetime(self) -> None:
        naive = datetime.datetime(2031, 1, 2, 3, 4, 5, 678901)
        aware = naive.replace(
            tzinfo=datetime.timezone(datetime.timedelta(hours=2))
        )
        for expire, seconds in (
            (3600, 3600),
            (7200.5, 7200.5),
            (datetime.timedelta(days=2), 2 * 86400),
            (-3600, -3600),
        ):
            (reservation_id,) = self.reserve(expire, gigabytes=1)
            self.assert_expires_in(seconds, reservation_id)
        (reservation_id,) = self.reserve(naive, gigabytes=1)
        self.assertEqual(naive, self.expire_at(reservation_id))
        (reservation_id,) = self.reserve(aware, gigabytes=1)
        self.assertEqual(
            naive - datetime.timedelta(hours=2), self.expire_at(reservation_id)
        )

    def test_what_says_no_time_is_refused(self) -> None:
        wrong: list[Any] = [
            'tomorrow',
            True,
            [],
            float('nan'),
            float('inf'),
            10**12,
            datetime.timedelta.max,
        ]
        for expire in wrong:
            error = self.assertRaises(
                exception.InvalidInput, self.reserve, expire, gigabytes=1
            )
            self.assertEqual('expire', error.field)

    def test_reservation_expire_is_the_default(self) -> None:
        (reservation_id,) = self.reserve(gigabytes=1)
        self.assert_expires_in(86400, reservation_id)
        self.configure(reservation_expire=7200)
        (reservation_id,) = self.reserve(gigabytes=1)
        self.assert_expires_in(7200, reservation_id)

    def test_what_is_overdue_cannot_be_ended_any_more(self) -> None:
        ids = self.reserve(0.2, gigabytes=10)
        time.sleep(0.3)
        for reaped in (False, True):
            if reaped:
                self.assertEqual(1, db.api.reservation_expire(self.context))
            for call in (
                db.api.reservation_commit,
                db.api.reservation_rollback,
            ):
                error = self.assertRaises(
                    exception.ReservationExpired, call, self.user, ids
                )
                self.assertEqual(ids, error.reservation_ids)
        self.assertEqual((1000, 0, 0), self.usage())

    def test_it_is_given_back_and_what_is_alive_stays(self) -> None:
        living = self.reserve(gigabytes=1, resources=1)
        dead = [
            *self.reserve(-1, gigabytes=10, resources=2),
            *self.reserve(-1, gigabytes=-5),
        ]
        other = self.of_project('other')
        dead += db.api.quota_reserve(other, {'gigabytes': 7}, expire=-1)
        self.assertEqual(4, db.api.reservation_expire(self.context))
        self.assertEqual((1000, 0, 1), self.usage())
        self.assertEqual((100, 0, 1), self.usage('resources'))
        self.assertEqual(
            0, db.api.quota_usage_get_all(other)['gigabytes']['reserved']
        )
        self.assertEqual(
            dict.fromkeys(living, 'reserved') | dict.fromkeys(dead, 'expired'),
            self.states(),
        )
        self.assertEqual(0, db.api.reservation_expire(self.context))
        db.api.reservation_commit(self.user, living)

    def test_all_of_many_are_given_back_in_batches(self) -> None:
        for number in range(25):
            db.api.quota_reserve(
                self.of_project(f'p{number % 3}'),
                {'gigabytes': 1},
                expire=number - 100,
            )
        self.assertEqual(25, db.api.reservation_expire(self.context, 10))
        self.assertEqual({'expired'}, set(self.states().values()))
        for number in range(3):
            self.assertEqual(
                {},
                db.api.quota_usage_check(self.context, f'p{number}'),
            )

    def test_a_batch_has_at_least_one(self) -> None:
        for size in (0, -1, '5', None, True):
            for call in (
                db.api.reservation_expire,
                db.api.reservation_purge,
                db.api.purge_operations,
            ):
                self.assertRaises(
                    exception.InvalidInput, call, self.context, size
                )

    def test_many_that_expire_at_once_do_it_once(self) -> None:
        for _ in range(100):
            self.reserve(-1, gigabytes=1)
        results = self.in_threads(
            4,
            lambda _: db.api.reservation_expire(
                context.get_admin_context(), batch_size=10
            ),
        )
        self.assertEqual(
            100,
            sum(results) + db.api.reservation_expire(self.context),
            results,
        )
        self.assertEqual((1000, 0, 0), self.usage())

    def test_what_is_overdue_keeps_no_project_from_its_quota(self) -> None:
        self.limit(10)
        self.limit(2, 'resources')
        dead = self.reserve(-1, gigabytes=10, resources=2)
        self.assertEqual((10, 0, 10), self.usage())
        ids = self.reserve(gigabytes=10, resources=1)
        self.assertEqual((10, 0, 10), self.usage())
        self.assertEqual((2, 0, 1), self.usage('resources'))
        self.assertEqual(
            dict.fromkeys(dead, 'expired') | dict.fromkeys(ids, 'reserved'),
            self.states(),
        )
        self.over(gigabytes=1)
        self.assertEqual(0, db.api.reservation_expire(self.context))

    def test_one_that_is_overdue_when_it_is_made_is_not_given_back(
        self,
    ) -> None:
        self.limit(10)
        first = self.reserve(-1, gigabytes=10)
        second = self.reserve(-1, gigabytes=10)
        self.assertEqual(
            {first[0]: 'expired', second[0]: 'reserved'}, self.states()
        )
        self.assertEqual((10, 0, 10), self.usage())
        self.assertEqual({}, db.api.quota_usage_check(self.user))

    def test_what_is_overdue_does_not_make_room_for_more(self) -> None:
        self.limit(10)
        self.reserve(-1, gigabytes=5)
        self.use(5)
        error = self.over(gigabytes=6)
        self.assertEqual(
            {'gigabytes': {'in_use': 5, 'reserved': 0}}, error.usages
        )

    def test_what_somebody_else_ends_just_now_is_waited_for(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('there is one writer at a time')
        self.limit(10)
        self.reserve(-1, gigabytes=10)
        ended: list[str] = []

        def expire() -> None:
            ctx = context.get_admin_context()
            with db.api.transaction(ctx) as session:
                session.execute(sa.select(RESERVATIONS).with_for_update())
                time.sleep(0.5)
                db.api.reservation_expire(ctx)
                ended.append('expired')

        def reserve() -> None:
            time.sleep(0.2)
            self.reserve(gigabytes=10)
            ended.append('reserved')

        results = self.in_threads(
            2, lambda number: (expire, reserve)[number]()
        )
        self.assertEqual([None, None], results)
        self.assertEqual(['expired', 'reserved'], ended)
        self.assertEqual((10, 0, 10), self.usage())

    def test_what_ended_long_ago_is_purged(self) -> None:
        committed = self.reserve(gigabytes=1)
        db.api.reservation_commit(self.user, committed)
        rolled_back = self.reserve(gigabytes=1)
        db.api.reservation_rollback(self.user, rolled_back)
        expired = self.reserve(-1, gigabytes=1)
        db.api.reservation_expire(self.context)
        living = self.reserve(gigabytes=1)
        self.assertEqual(0, db.api.reservation_purge(self.context))
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(RESERVATIONS).values(
                    expire_at=datetime.datetime(2020, 1, 1)
                )
            )
        self.assertEqual(3, db.api.reservation_purge(self.context, 2))
        self.assertEqual({living[0]: 'reserved'}, self.states())
        self.assertEqual(
            set(), {*committed, *rolled_back, *expired} & set(self.states())
        )


class TestComposition(ReservationTestCase):
    def test_reserve_create_and_commit_are_one_transaction(self) -> None:
        def work() -> None:
            with db.api.transaction(self.user) as session:
                ids = self.reserve(gigabytes=10)
                session.execute(sa.select(1))
                db.api.reservation_commit(self.user, ids)
                self.assertEqual((1000, 10, 0), self.usage())
                raise ValueError

        self.assertRaises(ValueError, work)
        self.assertEqual((1000, 0, 0), self.usage())
        self.assertEqual({}, self.states())

    def test_two_reserves_in_one_transaction_are_two(self) -> None:
        def work(ctx: context.RequestContext) -> list[str]:
            one = db.api.quota_reserve(ctx, {'gigabytes': 1})
            return one + db.api.quota_reserve(ctx, {'gigabytes': 2})

        ids = db.api.run_in_transaction(self.user, work)
        self.assertEqual(2, len(set(ids)))
        with db.api.transaction(self.user):
            ids += work(self.user)
        self.assertEqual((1000, 0, 6), self.usage())
        db.api.reservation_commit(self.user, ids)
        self.assertEqual((1000, 6, 0), self.usage())

    def test_who_catches_a_refusal_commits_no_half_of_it(self) -> None:
        self.limit(10)
        dead = self.reserve(gigabytes=1)
        db.api.reservation_rollback(self.user, dead)
        living = self.reserve(gigabytes=4)
        with db.api.transaction(self.user):
            first = self.reserve(resources=1, gigabytes=1)
            self.assertRaises(
                exception.OverQuota, self.reserve, resources=5, gigabytes=6
            )
            self.assertRaises(
                exception.ReservationNotFound,
                db.api.reservation_commit,
                self.user,
                living + dead,
            )
            self.assertRaises(
                exception.ReservationNotFound,
                db.api.reservation_rollback,
                self.user,
                living + dead,
            )
        self.assertEqual((10, 0, 5), self.usage())
        self.assertEqual((100, 0, 1), self.usage('resources'))
        self.assertEqual(
            dict.fromkeys(living + first, 'reserved')
            | {dead[0]: 'rolled_back'},
            self.states(),
        )
        self.assertEqual({}, db.api.quota_usage_check(self.user))

    def test_a_whole_transaction_is_repeated_as_a_unit(self) -> None:
        attempts: list[int] = []

        def work(ctx: context.RequestContext) -> None:
            ids = db.api.quota_reserve(ctx, {'gigabytes': 1})
            db.api.reservation_commit(ctx, ids)
            attempts.append(1)
            if len(attempts) == 1:
                raise db_exception.DBDeadlock

        db.api.run_in_transaction(self.user, work)
        self.assertEqual(2, len(attempts))
        self.assertEqual((1000, 1, 0), self.usage())


class TestFirstUse(ReservationTestCase):
    def test_racing_callers_share_one_usage(self) -> None:
        self.limit(5)
        results = self.in_threads(
            12,
            lambda number: db.api.quota_reserve(
                self.of_project('p'),
                {'gigabytes': 1, 'resources': 1}
                if number % 2
                else {'resources': 1, 'gigabytes': 1},
            ),
        )
        self.assertEqual(
            5, len([r for r in results if isinstance(r, list)]), results
        )
        self.assertEqual(
            7, len([r for r in results if isinstance(r, exception.OverQuota)])
        )
        self.assertEqual((5, 0, 5), self.usage())
        self.assertEqual((100, 0, 5), self.usage('resources'))
        with self.database.engine().connect() as connection:
            self.assertEqual(
                2, len(connection.execute(sa.select(USAGES)).all())
            )

"""Changes of the size of a resource, which change the use of quota."""

import random
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.tests.unit.db.resources import test_resource

LARGEST = 2**63 - 1


class SizeTestCase(test_resource.ResourceTestCase):
    def limit(self, gigabytes: int) -> None:
        db.api.quota_set(self.context, 'p', 'gigabytes', gigabytes)

    def resize(
        self,
        resource: db.api.ResourceRow,
        size: Any,
        *arguments: Any,
        **values: Any,
    ) -> None:
        db.api.resource_update(
            self.user, resource.id, {'size': size, **values}, *arguments
        )

    def refused(
        self, error: type[Exception], *arguments: Any, **values: Any
    ) -> Any:
        """Return the error that refuses a resize, which changes nothing."""
        before = self.rows()
        refusal = self.assertRaises(error, self.resize, *arguments, **values)
        self.assertEqual(before, self.rows())
        return refusal

    def rows(self) -> tuple[list[db.api.ResourceRow], tuple[int, int]]:
        return db.api.resource_get_all(self.context), self.usage()


class TestSize(SizeTestCase):
    def test_a_larger_size_takes_the_difference(self) -> None:
        made = self.create(size=5)
        self.resize(made, 8, status='extended')
        row = self.get(made)
        self.assertEqual(
            (8, 'extended', 1), (row.size, row.status, row.generation)
        )
        self.assertEqual((1, 8), self.usage())

    def test_a_smaller_size_gives_the_difference_back(self) -> None:
        made = self.create(size=5)
        for size in (2, 0):
            self.resize(made, size)
            self.assertEqual((1, size), self.usage())
        db.api.resource_destroy(self.user, made.id)
        self.assertEqual((0, 0), self.usage())

    def test_what_had_no_size_gets_one(self) -> None:
        # No usage of gigabytes is there yet.
        others = [self.create() for _ in range(2)]
        self.resize(others[0], 4)
        self.assertEqual((2, 4), self.usage())
        self.resize(others[1], 3)
        self.assertEqual((2, 7), self.usage())

    def test_one_that_does_not_fit_is_refused(self) -> None:
        self.limit(10)
        made = self.create(size=5)
        self.create(size=2)
        error = self.refused(exception.OverQuota, made, 9, name='new')
        self.assertEqual((['gigabytes'], 'p'), (error.overs, error.project_id))
        self.resize(made, 8)
        self.assertEqual((2, 10), self.usage())

    def test_what_is_reserved_counts(self) -> None:
        self.limit(10)
        made = self.create(size=5)
        db.api.quota_reserve(self.user, {'gigabytes': 4})
        self.refused(exception.OverQuota, made, 7)
        self.resize(made, 6)

    def test_what_is_overdue_makes_room(self) -> None:
        self.limit(10)
        made = self.create(size=5)
        db.api.quota_reserve(self.user, {'gigabytes': 4}, expire=-1)
        self.resize(made, 10)
        self.assertEqual((1, 10), self.usage())

    def test_a_smaller_or_the_same_size_fits_where_the_limit_is_passed(
        self,
    ) -> None:
        made = self.create(size=8)
        self.limit(3)
        self.resize(made, 8, name='same')
        self.resize(made, 7)
        self.assertEqual((1, 7), self.usage())
        self.refused(exception.OverQuota, made, 8)

    def test_a_size_that_no_counter_holds_is_refused(self) -> None:
        self.limit(-1)
        made = self.create(size=1)
        self.create(size=1)
        self.refused(exception.QuotaUsageOverflow, made, LARGEST)
        self.resize(made, LARGEST - 1)
        self.assertEqual((2, LARGEST), self.usage())

    def test_what_is_no_size_is_refused(self) -> None:
        made = self.create(size=1)
        wrong: list[Any] = [-1, 1.0, '1', None, True, LARGEST + 1, [1]]
        for size in wrong:
            error = self.refused(exception.InvalidInput, made, size)
            self.assertEqual('size', error.field)

    def test_it_is_compared_and_swapped(self) -> None:
        made = self.create(size=5)
        error = self.refused(exception.ResourceConflict, made, 9, {'size': 4})
        self.assertEqual(
            ({'size': 4}, {'size': 5}), (error.expected, error.actual)
        )
        self.resize(made, 9, {'size': 5})
        self.assertEqual((1, 9), self.usage())
        self.refused(exception.ResourceConflict, made, 9, {'size': 5})

    def test_it_is_written_under_a_claim(self) -> None:
        made = self.create(size=5)
        claim = self.claim(made)
        self.resize(made, 6, None, claim)
        self.assertEqual((1, 6), self.usage())
        db.api.resource_release(self.context, claim)
        self.refused(exception.ClaimLost, made, 7, None, claim)

    def test_those_of_others_and_destroyed_ones_are_not_found(self) -> None:
        made = self.create(size=5)
        gone = self.create(size=5)
        db.api.resource_destroy(self.user, gone.id)
        for user, resource in ((self.other, made), (self.user, gone)):
            for sees in (user, user.with_deleted('yes')):
                self.assertRaises(
                    exception.ResourceNotFound,
                    db.api.resource_update,
                    sees,
                    resource.id,
                    {'size': 6},
                )
        self.assertEqual((1, 5), self.usage())

    def test_an_administrator_changes_the_use_of_its_project(self) -> None:
        made = self.create(size=5)
        admin = context.get_admin_context()
        db.api.resource_update(admin, made.id, {'size': 6})
        self.assertEqual((1, 6), self.usage())


class TestComposition(SizeTestCase):
    def test_a_refusal_that_is_caught_leaves_nothing(self) -> None:
        self.limit(10)
        made = self.create(size=5)
        with db.api.transaction(self.user):
            self.resize(made, 6)
            for arguments, error in (
                ((11,), exception.OverQuota),
                ((7, {'size': 5}), exception.ResourceConflict),
            ):
                self.assertRaises(
                    error, self.resize, made, *arguments, name='refused'
                )
            db.api.resource_update(self.user, made.id, {'kind': 'after'})
        row = self.get(made)
        self.assertEqual((6, 'n', 'after'), (row.size, row.name, row.kind))
        self.assertEqual((1, 6), self.usage())

    def test_it_is_undone_with_its_transaction(self) -> None:
        made = self.create(size=5)

        def work() -> None:
            with db.api.transaction(self.user):
                self.resize(made, 9)
                db.api.resource_destroy(self.user, made.id)
                raise ValueError

        before = self.rows()
        self.assertRaises(ValueError, work)
        self.assertEqual(before, self.rows())

    def test_what_is_created_in_the_transaction_can_be_resized(self) -> None:
        with db.api.transaction(self.user):
            made = self.create(size=5)
            self.resize(made, 9)
        self.assertEqual((1, 9), self.usage())


class TestSideBySide(SizeTestCase):
    THREADS = 8
    CALLS = 30

    def setUp(self) -> None:
        super().setUp()
        self.limit(40)
        db.api.quota_set(self.context, 'p', 'resources', -1)
        self.shared = [self.create(size=2).id for _ in range(4)]

    def work(self, number: int) -> None:
        """Create, resize and destroy, some of it what others resize too."""
        user = context.RequestContext('user', 'p', overwrite=False)
        chance = random.Random(number)
        own: list[str] = []
        for _ in range(self.CALLS):
            size = chance.randrange(12)
            try:
                match chance.randrange(4):
                    case 0:
                        made = db.api.resource_create(user, {'size': size})
                        own.append(made.id)
                    case 1 if own:
                        db.api.resource_destroy(user, own.pop())
                    case _:
                        one = chance.choice(self.shared + own)
                        db.api.resource_update(user, one, {'size': size})
            except exception.OverQuota:
                pass

    def test_usages_stay_what_there_is(self) -> None:
        results = self.in_threads(self.THREADS, self.work)
        self.assertEqual([None] * self.THREADS, results)
        rows = db.api.resource_get_all(self.user)
        self.assertEqual(
            (len(rows), sum(row.size for row in rows)), self.usage()
        )
        self.assertLessEqual(self.usage()[1], 40)

    def test_of_many_that_swap_one_gets_it(self) -> None:
        made = self.create(size=1)
        results = self.in_threads(
            self.THREADS,
            lambda number: db.api.resource_update(
                context.get_admin_context(),
                made.id,
                {'size': 2 + number},
                {'size': 1},
            ),
        )
        self.assertEqual(1, results.count(None), results)
        for result in results:
            if result is not None:
                self.assertIsInstance(result, exception.ResourceConflict)
        self.assertEqual(8 + self.get(made).size, self.usage()[1])

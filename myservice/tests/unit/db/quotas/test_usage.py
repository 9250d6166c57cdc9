"""Usages: what is counted, compared and put right."""

from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db import models
from myservice.db.quotas import counters
from myservice.tests import factories
from myservice.tests.unit.db.quotas import test_quota

SERVICES = models.Service.__table__
USAGES = models.QuotaUsage.__table__


class UsageTestCase(test_quota.QuotaTestCase):
    """Services stand for what is counted: their topic is the project."""

    def count_services(self) -> None:
        of_project = (
            SERVICES.c.topic == counters.PROJECT,
            SERVICES.c.deleted == '',
        )
        counted = sa.select(sa.func.count()).select_from(SERVICES)
        summed = sa.select(sa.func.sum(SERVICES.c.version))
        self.useFixture(
            fixtures.QuotaCounters(
                resources=counted.where(*of_project),
                gigabytes=summed.where(*of_project),
            )
        )

    def make(self, size: int) -> None:
        """Make something that is counted, and nothing else."""
        factories.create_service(topic='p', version=size)

    def set_usage(self, resource: str, **values: int) -> None:
        """Change a usage behind the back of the API."""
        with self.database.engine().begin() as connection:
            connection.execute(
                sa.update(USAGES)
                .where(USAGES.c.resource == resource)
                .values(**values)
            )


class TestCount(UsageTestCase):
    def test_a_project_that_never_reserved_has_what_it_has(self) -> None:
        self.assertEqual((1000, 0, 0), self.usage())
        self.count_services()
        self.make(5)
        self.make(7)
        self.assertEqual((1000, 12, 0), self.usage())
        self.assertEqual((100, 2, 0), self.usage('resources'))

    def test_the_first_reserve_starts_from_what_there_is(self) -> None:
        self.count_services()
        self.make(15)
        db.api.quota_create(self.context, 'p', 'gigabytes', 20)
        self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 6},
        )
        db.api.quota_reserve(self.user, {'gigabytes': 5})
        self.assertEqual((20, 15, 5), self.usage())

    def test_a_negative_delta_starts_from_what_there_is_too(self) -> None:
        self.count_services()
        self.make(15)
        with db.api.transaction(self.user):
            ids = db.api.quota_reserve(self.user, {'gigabytes': -15})
            (made,) = db.api.service_get_all(self.user.elevated())
            db.api.service_destroy(self.user.elevated(), made.id)
            db.api.reservation_commit(self.user, ids)
        self.assertEqual((1000, 0, 0), self.usage())
        self.assertEqual({}, db.api.quota_usage_check(self.user))

    def test_racing_first_uses_count_once(self) -> None:
        self.count_services()
        self.make(15)

        def create(number: int) -> None:
            ctx = self.of_project('p')

            def body(ctx: context.RequestContext) -> None:
                ids = db.api.quota_reserve(
                    ctx, {'gigabytes': 10, 'resources': 1}
                )
                db.api.service_create(
                    ctx.elevated(),
                    {
                        'host': f'racing {number}',
                        'binary': 'b',
                        'topic': 'p',
                        'version': 10,
                    },
                )
                db.api.reservation_commit(ctx, ids)

            db.api.run_in_transaction(ctx, body)

        results = self.in_threads(6, create)
        self.assertEqual([None] * 6, results)
        self.assertEqual((1000, 75, 0), self.usage())
        self.assertEqual((100, 7, 0), self.usage('resources'))
        self.assertEqual({}, db.api.quota_usage_check(self.user))


class TestCheckAndSync(UsageTestCase):
    def both(self) -> tuple[Any, Any]:
        """Return what a check and a sync say."""
        return (
            db.api.quota_usage_check(self.user),
            db.api.quota_usage_sync(self.context, 'p'),
        )

    def test_where_all_is_well_they_say_nothing(self) -> None:
        self.assertEqual(({}, {}), self.both())
        self.count_services()
        self.make(5)
        self.assertEqual(({}, {}), self.both())
        db.api.quota_reserve(self.user, {'gigabytes': 5, 'resources': -1})
        db.api.quota_reserve(self.user, {'gigabytes': 3}, expire=-1)
        self.assertEqual(({}, {}), self.both())
        self.assertEqual((1000, 5, 8), self.usage())

    def test_what_differs_is_said_and_put_right(self) -> None:
        self.count_services()
        self.make(5)
        db.api.quota_reserve(self.user, {'gigabytes': 2, 'resources': 1})
        self.set_usage('gigabytes', in_use=9, reserved=3)
        self.set_usage('resources', reserved=0)
        difference = {
            'gigabytes': {
                'in_use': {'recorded': 9, 'counted': 5},
                'reserved': {'recorded': 3, 'counted': 2},
            },
            'resources': {'reserved': {'recorded': 0, 'counted': 1}},
        }
        self.assertEqual((difference, difference), self.both())
        self.assertEqual((1000, 5, 2), self.usage())
        self.assertEqual((100, 1, 1), self.usage('resources'))
        self.assertEqual(({}, {}), self.both())

    def test_without_a_counter_only_reservations_are_compared(self) -> None:
        self.use(5)
        self.make(7)
        self.set_usage('gigabytes', in_use=9)
        self.assertEqual(({}, {}), self.both())
        self.set_usage('gigabytes', reserved=9)
        self.assertEqual(['gigabytes'], [*self.both()[1]])
        self.assertEqual((1000, 9, 0), self.usage())

    def test_other_projects_stay_as_they_are(self) -> None:
        self.use(5)
        other = self.of_project('other')
        db.api.quota_reserve(other, {'gigabytes': 5})
        self.set_usage('gigabytes', reserved=1)
        self.assertEqual(1, len(db.api.quota_usage_sync(self.context, 'p')))
        self.assertEqual(
            {'gigabytes': {'reserved': {'recorded': 1, 'counted': 5}}},
            db.api.quota_usage_check(other),
        )

    def test_a_sync_among_writers_changes_nothing(self) -> None:
        self.count_services()
        self.make(5)
        self.use(0)

        def body(ctx: context.RequestContext, host: str) -> None:
            ids = db.api.quota_reserve(ctx, {'gigabytes': 1})
            values = {'host': host, 'binary': 'b', 'topic': 'p', 'version': 1}
            db.api.service_create(ctx.elevated(), values)
            db.api.reservation_commit(ctx, ids)

        def work(number: int) -> None:
            for step in range(10):
                if number == 0:
                    found = db.api.quota_usage_sync(
                        context.get_admin_context(), 'p'
                    )
                    self.assertEqual({}, found)
                    found = db.api.quota_usage_check(self.of_project('p'))
                    self.assertEqual({}, found)
                else:
                    db.api.run_in_transaction(
                        self.of_project('p'), body, f'{number} {step}'
                    )

        self.assertEqual([None] * 4, self.in_threads(4, work))
        self.assertEqual((1000, 35, 0), self.usage())


class TestProjects(UsageTestCase):
    def test_those_with_usages_are_listed_in_pages(self) -> None:
        for name in ('b', 'a', 'C'):
            db.api.quota_reserve(
                self.of_project(name), {'gigabytes': 1, 'resources': 1}
            )
        call = db.api.quota_usage_get_projects
        self.assertEqual(['C', 'a', 'b'], call(self.context))
        self.assertEqual(['C', 'a'], call(self.context, limit=2))
        self.assertEqual(['b'], call(self.context, 2, 'a'))
        self.assertEqual([], call(self.context, marker='b'))
        for arguments in ((-1, None), ('1', None), (1, 5)):
            self.assertRaises(
                exception.InvalidInput, call, self.context, *arguments
            )

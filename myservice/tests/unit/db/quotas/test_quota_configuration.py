"""What is counted never depends on configuration; limits do."""

import itertools
import random
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.agent import process as myservice_agent
from myservice.db import models
from myservice.tests import base

# What operators write, and what they leave out.
LIMITS: list[dict[str, int]] = [
    {},
    {'gigabytes': 2000},
    {'resources': 60},
    {'tapes': 3},
    {'resources': -1, 'gigabytes': -1},
]


class ConfigurationTestCase(base.DatabaseTestCase):
    """A test with a user of project 'p', and resources that are counted."""

    def setUp(self) -> None:
        super().setUp()
        self.user = self.new_user()

    def new_user(self) -> context.RequestContext:
        return context.RequestContext('user', 'p', overwrite=False)

    def configure(self, limits: Any) -> None:
        """Override [quota] default_limits."""
        self.database.conf.set_override('default_limits', limits, 'quota')

    def node(self, limits: dict[str, int]) -> db.api.Engines:
        """Return another node on this database, with limits of its own."""
        other = self.useFixture(
            fixtures.OtherDatabase(connection=self.database.connection)
        )
        other.engines.conf.set_override('default_limits', limits, 'quota')
        return other.engines

    def usage(self, resource: str) -> tuple[int, int, int]:
        """Return limit, in_use and reserved of project 'p'."""
        usages = db.api.quota_usage_get_all(self.user)
        limit, in_use, reserved = usages[resource].values()
        return limit, in_use, reserved

    def assert_exact(self, size: int | None = None) -> None:
        """Check that the usages are what there is.

        :param size: how many gigabytes there are; None is any number
        """
        rows = db.api.resource_get_all(self.user)
        there = sum(row.size for row in rows)
        self.assertIn(size, (None, there))
        self.assertEqual({}, db.api.quota_usage_check(self.user))
        self.assertEqual(
            (len(rows), there),
            (self.usage('resources')[1], self.usage('gigabytes')[1]),
        )


class TestCounted(ConfigurationTestCase):
    def test_what_default_limits_leaves_out_is_counted(self) -> None:
        db.api.quota_create(self.context, 'p', 'gigabytes', 10)
        reserved = db.api.quota_reserve(self.user, {'gigabytes': 1})
        db.api.reservation_rollback(self.user, reserved)
        for limits in LIMITS:
            self.configure(limits)
            made = db.api.resource_create(self.user, {'size': 10})
            self.assert_exact(10)
            error = self.assertRaises(
                exception.OverQuota,
                db.api.resource_create,
                self.user,
                {'size': 1},
            )
            self.assertEqual(['gigabytes'], error.overs)
            db.api.resource_destroy(self.user, made.id)
            self.assert_exact(0)

    def test_a_change_of_default_limits_between_two_calls_is_none(
        self,
    ) -> None:
        for created, destroyed in itertools.pairwise(LIMITS):
            self.configure(created)
            one = db.api.resource_create(self.user, {'size': 3})
            db.api.resource_create(self.user, {'size': 1})
            self.assert_exact()
            self.configure(destroyed)
            db.api.resource_destroy(self.user, one.id)
            self.assert_exact()

    def test_what_it_leaves_out_keeps_its_built_in_limit(self) -> None:
        for limits, expected in (
            ({}, {'resources': 100, 'gigabytes': 1000}),
            ({'gigabytes': 2000}, {'resources': 100, 'gigabytes': 2000}),
            ({'resources': 0}, {'resources': 0, 'gigabytes': 1000}),
            (
                {'tapes': 3},
                {'resources': 100, 'gigabytes': 1000, 'tapes': 3},
            ),
        ):
            self.configure(limits)
            usages = db.api.quota_usage_get_all(self.user)
            found = {name: usage['limit'] for name, usage in usages.items()}
            self.assertEqual(expected, found)
        error = self.assertRaises(
            exception.OverQuota,
            db.api.resource_create,
            self.user,
            {'size': 1001},
        )
        self.assertEqual({'gigabytes': 1000}, error.quotas)

    def test_limits_of_projects_and_classes_count_though_it_is_left_out(
        self,
    ) -> None:
        self.configure({'tapes': 3})
        db.api.quota_class_create(self.context, 'default', 'gigabytes', 20)
        self.assertEqual(20, self.usage('gigabytes')[0])
        db.api.quota_create(self.context, 'p', 'gigabytes', 10)
        db.api.quota_update(self.context, 'p', 'gigabytes', 5)
        self.assertEqual(5, self.usage('gigabytes')[0])
        self.assertRaises(
            exception.OverQuota, db.api.resource_create, self.user, {'size': 6}
        )

    def test_what_an_older_release_did_not_count_is_put_right(self) -> None:
        old = [db.api.resource_create(self.user, {'size': 4}) for _ in '12']
        usages = models.QuotaUsage.__table__
        with self.database.engine().begin() as connection:
            connection.execute(sa.update(usages).values(in_use=0))
        db.api.resource_create(self.user, {'size': 1})
        db.api.resource_destroy(self.user, old[0].id)
        self.assertEqual(0, self.usage('gigabytes')[1])
        found = db.api.quota_usage_sync(self.context, 'p')
        self.assertEqual(['gigabytes', 'resources'], sorted(found))
        self.assert_exact(5)
        db.api.resource_destroy(self.user, old[1].id)
        self.assert_exact(1)


class TestSideBySide(ConfigurationTestCase):
    """Nodes with different configurations, as in a rolling change."""

    def work(self, engines: db.api.Engines, seed: int) -> None:
        """Do random things on a node."""
        chance = random.Random(seed)
        ctx = self.new_user().using(engines)
        mine: list[str] = []
        for _ in range(15):
            size = chance.randrange(5)
            try:
                if mine and chance.random() < 0.4:
                    db.api.resource_destroy(ctx, mine.pop())
                elif chance.random() < 0.3:
                    ids = db.api.quota_reserve(
                        ctx, {'gigabytes': size, 'resources': 1}
                    )
                    made = db.api.run_in_transaction(
                        ctx, self.create_reserved, ids, size
                    )
                    mine.append(made)
                else:
                    made = db.api.resource_create(ctx, {'size': size}).id
                    mine.append(made)
            except exception.OverQuota:
                pass

    def create_reserved(
        self, ctx: context.RequestContext, ids: list[str], size: int
    ) -> str:
        db.api.reservation_rollback(ctx, ids)
        return str(db.api.resource_create(ctx, {'size': size}).id)

    def test_usages_stay_exact(self) -> None:
        db.api.quota_create(self.context, 'p', 'gigabytes', 40)
        nodes = [self.node(limits) for limits in LIMITS]
        results = self.in_threads(
            len(nodes), lambda number: self.work(nodes[number], number)
        )
        self.assertEqual([None] * len(nodes), results)
        self.assert_exact()
        self.assertEqual(0, self.usage('gigabytes')[2])
        rows = db.api.resource_get_all(self.user)
        for row, node in zip(rows, itertools.cycle(nodes), strict=False):
            db.api.resource_destroy(self.user.using(node), row.id)
        self.assert_exact(0)

    def test_what_one_creates_another_one_destroys(self) -> None:
        nodes = [self.node(limits) for limits in LIMITS]
        for creator in nodes:
            for destroyer in nodes:
                db.api.resource_create(self.user, {'size': 2})
                made = db.api.resource_create(
                    self.user.using(creator), {'size': 7}
                )
                db.api.resource_destroy(self.user.using(destroyer), made.id)
                self.assert_exact()

    def test_reservations_end_where_their_resource_is_unknown(self) -> None:
        knows = self.user.using(self.node({'tapes': 10}))
        other = self.user.using(self.node({'gigabytes': 5}))
        for end, in_use in (
            (db.api.reservation_commit, 2),
            (db.api.reservation_rollback, 2),
            (db.api.reservation_commit, 4),
        ):
            ids = db.api.quota_reserve(knows, {'tapes': 2})
            end(other, ids)
            self.assertEqual(
                {'limit': 10, 'in_use': in_use, 'reserved': 0},
                db.api.quota_usage_get_all(knows)['tapes'],
            )
        db.api.quota_reserve(knows, {'tapes': 2}, expire=-1)
        admin = self.context.using(other.engines)
        self.assertEqual(1, db.api.reservation_expire(admin))
        self.assertEqual({}, db.api.quota_usage_sync(admin, 'p'))
        self.assertEqual(
            {'limit': 10, 'in_use': 4, 'reserved': 0},
            db.api.quota_usage_get_all(knows)['tapes'],
        )

    def test_a_resource_that_a_node_does_not_know_is_refused_there(
        self,
    ) -> None:
        knows = self.user.using(self.node({'tapes': 10}))
        db.api.reservation_commit(
            knows, db.api.quota_reserve(knows, {'tapes': 2})
        )
        for delta in (1, 0, -1):
            self.assertRaises(
                exception.QuotaResourceUnknown,
                db.api.quota_reserve,
                self.user,
                {'tapes': delta},
            )
        self.assertNotIn('tapes', db.api.quota_usage_get_all(self.user))
        usages = db.api.quota_usage_get_all(knows)
        self.assertEqual(2, usages['tapes']['in_use'])


class TestOption(ConfigurationTestCase):
    def test_what_no_quota_could_be_is_refused_before_any_sql(self) -> None:
        wrong: list[dict[Any, Any]] = [
            {'gigabytes': -2},
            {'gigabytes': 2**63},
            {'gigabytes': None},
            {'gigabytes': '5'},
            {'gigabytes': True},
            {'': 5},
            {5: 5},
            {'x' * 256: 5},
            {'nul\0': 5},
        ]
        for limits in wrong:
            self.configure(limits)
            with self.commands() as sent:
                for call, arguments in (
                    (db.api.quota_reserve, ({'gigabytes': 1},)),
                    (db.api.quota_usage_get_all, ()),
                ):
                    error = self.assertRaises(
                        exception.InvalidInput, call, self.user, *arguments
                    )
                    self.assertIn('[quota] default_limits', error.field)
            self.assertEqual([], sent, limits)
        self.configure(None)
        self.assertEqual((1000, 0, 0), self.usage('gigabytes'))


class TestLog(ConfigurationTestCase):
    """What is in force is logged once, and again where it has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.logger = self.useFixture(
            plain_fixtures.FakeLogger('myservice.db.quotas.limits')
        )

    def logged(self) -> list[str]:
        """Return what was logged since the last call."""
        lines = self.logger.output.splitlines()
        self.logger.reset_output()
        return [line.rpartition('default_limits: ')[2] for line in lines]

    def test_limits_are_logged_at_their_first_use(self) -> None:
        db.api.resource_create(self.user, {})
        db.api.quota_reserve(self.user, {'gigabytes': 1})
        db.api.quota_usage_get_all(self.user)
        self.assertEqual(['gigabytes:1000, resources:100.'], self.logged())

    def test_a_change_and_what_is_built_in_or_not_counted_is_said(
        self,
    ) -> None:
        self.configure({'gigabytes': -1, 'tapes': 3})
        expected = (
            'gigabytes:-1, resources:100 (built in), tapes:3 (not counted).'
        )
        for _ in range(2):
            db.api.quota_usage_get_all(self.user)
        self.assertEqual([expected], self.logged())
        self.configure({})
        db.api.quota_usage_get_all(self.user)
        self.assertEqual(
            ['gigabytes:1000 (built in), resources:100 (built in).'],
            self.logged(),
        )

    def test_each_configuration_has_its_own(self) -> None:
        other = self.user.using(self.node({'gigabytes': 5}))
        for ctx in (self.user, other, self.user, other):
            db.api.quota_usage_get_all(ctx)
        self.assertEqual(
            [
                'gigabytes:1000, resources:100.',
                'gigabytes:5, resources:100 (built in).',
            ],
            self.logged(),
        )
        self.assertEqual(
            {'gigabytes': 5, 'resources': 100},
            db.api.quota_get_defaults(other),
        )
        self.assertEqual([], self.logged())

    def test_an_agent_logs_them_at_its_start(self) -> None:
        values = {'host': 'h', 'binary': 'b'}
        agent = myservice_agent.Agent(self.database.conf, values)
        agent.stop()
        agent.run()
        self.assertEqual(['gigabytes:1000, resources:100.'], self.logged())

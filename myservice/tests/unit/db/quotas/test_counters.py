"""Counters of the callers' own: what is refused, counted, and corrected."""

import json
import subprocess
import sys
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import orm

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.db.quotas import counters
from myservice.tests import base


class Base(orm.DeclarativeBase):
    pass


class Snapshot(Base):
    """What a caller has in a table of their own."""

    __tablename__ = 'snapshots_of_a_caller'
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    size: orm.Mapped[int]
    rate: orm.Mapped[float] = orm.mapped_column(default=1.0)
    name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))


TABLE: Any = Snapshot.__table__
OF_PROJECT = TABLE.c.project_id == db.api.PROJECT
COUNT = sa.select(sa.func.count()).select_from(TABLE).where(OF_PROJECT)


class CounterTestCase(base.DatabaseTestCase):
    """A test with a user of project 'p', and a table that is counted."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.QuotaCounters(**counters.registered()))
        Base.metadata.create_all(db.api.get_engine())
        self.addCleanup(self.drop)
        self.user = context.RequestContext('user', 'p', overwrite=False)

    def drop(self) -> None:
        engine = sa.create_engine(self.database.connection)
        Base.metadata.drop_all(engine)
        engine.dispose()

    def make(self, count: int = 1, project_id: str = 'p') -> None:
        """Make snapshots of 3 gigabytes, and reserve nothing."""
        session = db.api.get_session()
        with session.begin():
            for _ in range(count):
                values = {'project_id': project_id, 'size': 3}
                session.execute(sa.insert(Snapshot), values)

    def create(self, ctx: context.RequestContext, number: int = 1) -> None:
        """Create a snapshot, and use quota for so many."""
        with db.api.transaction(ctx) as session:
            ids = db.api.quota_reserve(ctx, {'snapshots': number})
            values = {'project_id': 'p', 'size': 3}
            session.execute(sa.insert(Snapshot), values)
            db.api.reservation_commit(ctx, ids)

    def usage(self, resource: str = 'snapshots') -> tuple[int, int, int]:
        """Return limit, in_use and reserved of project 'p'."""
        usages = db.api.quota_usage_get_all(self.user)
        limit, in_use, reserved = usages[resource].values()
        return limit, in_use, reserved


class TestRegister(CounterTestCase):
    def test_it_is_counted_from_the_first_use_on(self) -> None:
        self.make(2)
        self.make(5, 'other')
        db.api.quota_counter_register('snapshots', COUNT)
        self.assertEqual((-1, 2, 0), self.usage())
        self.create(self.user)
        self.assertEqual((-1, 3, 0), self.usage())
        self.assertEqual({}, db.api.quota_usage_check(self.user))
        self.make()
        difference = {'snapshots': {'in_use': {'recorded': 3, 'counted': 4}}}
        self.assertEqual(difference, db.api.quota_usage_check(self.user))
        self.assertEqual(
            difference, db.api.quota_usage_sync(self.context, 'p')
        )
        self.assertEqual((-1, 4, 0), self.usage())

    def test_each_form_of_a_select_will_do(self) -> None:
        self.make(2)
        text = (
            'SELECT sum(size) AS number FROM snapshots_of_a_caller '
            'WHERE project_id = :counted_project_id'
        )
        inner = sa.select(Snapshot.size).where(OF_PROJECT).subquery()
        for number, statement, expected in (
            (1, sa.select(sa.func.sum(TABLE.c.size)).where(OF_PROJECT), 6),
            (2, sa.select(sa.func.max(TABLE.c.rate)).where(OF_PROJECT), 1),
            (
                3,
                sa.select(sa.func.count(Snapshot.id)).where(
                    Snapshot.project_id == db.api.PROJECT, Snapshot.size > 1
                ),
                2,
            ),
            (4, sa.select(sa.func.sum(inner.c.size)), 6),
            (5, sa.text(text).columns(sa.column('number', sa.Integer)), 6),
            (
                6,
                sa.select(sa.literal_column('count(*)'))
                .select_from(TABLE)
                .where(OF_PROJECT),
                2,
            ),
        ):
            name = f'snapshots {number}'
            db.api.quota_counter_register(name, statement)
            self.assertEqual((-1, expected, 0), self.usage(name), name)
            db.api.quota_reserve(self.user, {name: 1})
            self.assertEqual({}, db.api.quota_usage_check(self.user))
            self.assertEqual((-1, expected, 1), self.usage(name), name)

    def test_a_default_limit_counts_where_nobody_says_another_one(
        self,
    ) -> None:
        db.api.quota_counter_register('snapshots', COUNT, default_limit=2)
        # It leaves out this one, too.
        self.database.conf.set_override(
            'default_limits', {'gigabytes': 5}, 'quota'
        )
        self.assertEqual(
            {'resources': 100, 'snapshots': 2, 'gigabytes': 5},
            db.api.quota_get_defaults(self.user),
        )
        self.create(self.user)
        self.create(self.user)
        error = self.assertRaises(exception.OverQuota, self.create, self.user)
        self.assertEqual({'snapshots': 2}, error.quotas)
        self.database.conf.set_override(
            'default_limits', {'snapshots': 3}, 'quota'
        )
        self.create(self.user)
        db.api.quota_class_create(self.context, 'default', 'snapshots', 4)
        self.create(self.user)
        db.api.quota_create(self.context, 'p', 'snapshots', 5)
        self.create(self.user)
        self.assertRaises(exception.OverQuota, self.create, self.user)
        self.assertEqual((5, 5, 0), self.usage())

    def test_who_registers_again_replaces_it(self) -> None:
        self.make(2)
        total = sa.select(sa.func.sum(TABLE.c.size)).where(OF_PROJECT)
        db.api.quota_counter_register('snapshots', total, 5)
        self.assertEqual((5, 6, 0), self.usage())
        db.api.quota_counter_register('snapshots', COUNT)
        self.assertEqual((-1, 2, 0), self.usage())

    def test_what_is_no_counter_is_refused(self) -> None:
        count = sa.func.count()
        elsewhere = TABLE.c.id == sa.bindparam('snapshot_id')
        wrong: list[tuple[str, tuple[Any, ...]]] = [
            ('resource', ('', COUNT)),
            ('resource', (5, COUNT)),
            ('resource', ('x' * 256, COUNT)),
            ('resource', ('resources', COUNT)),
            ('resource', ('gigabytes', COUNT)),
            ('default_limit', ('snapshots', COUNT, -2)),
            ('default_limit', ('snapshots', COUNT, '5')),
            ('default_limit', ('snapshots', COUNT, None)),
            ('default_limit', ('snapshots', COUNT, 2**63)),
        ]
        wrong += [
            ('statement', ('snapshots', statement))
            for statement in (
                None,
                'SELECT count(*) FROM snapshots_of_a_caller',
                sa.text('SELECT 1'),
                count,
                COUNT.scalar_subquery(),
                sa.delete(TABLE).where(OF_PROJECT),
                lambda project_id: COUNT,
                sa.select(count).select_from(TABLE),
                sa.select(count).where(TABLE.c.project_id == 'p'),
                sa.select(TABLE.c.id, TABLE.c.size).where(OF_PROJECT),
                sa.select(TABLE.c.name).where(OF_PROJECT),
                sa.select(Snapshot).where(OF_PROJECT),
                sa.select(TABLE.c.id == 1).where(OF_PROJECT),
                COUNT.where(elsewhere),
            )
        ]
        before = counters.registered()
        for field, arguments in wrong:
            error = self.assertRaises(
                exception.InvalidInput,
                db.api.quota_counter_register,
                *arguments,
            )
            self.assertEqual(field, error.field, arguments)
        self.assertEqual(before, counters.registered())

    def test_one_that_cannot_run_says_why_and_nothing_is_reserved(
        self,
    ) -> None:
        gone = sa.table('nowhere', sa.column('project_id'))
        db.api.quota_counter_register(
            'snapshots',
            sa.select(sa.func.count())
            .select_from(gone)
            .where(gone.c.project_id == db.api.PROJECT),
        )
        for call, arguments in (
            (db.api.quota_reserve, ({'snapshots': 1},)),
            (db.api.quota_usage_get_all, ()),
            (db.api.quota_usage_check, ()),
        ):
            error = self.assertRaises(
                db_exception.DBError, call, self.user, *arguments
            )
            self.assertIn('nowhere', str(error))
        # What has nothing to do with it goes on.
        made = db.api.resource_create(self.user, {'size': 1})
        db.api.resource_destroy(self.user, made.id)
        db.api.quota_counter_register('snapshots', COUNT)
        self.assertEqual((-1, 0, 0), self.usage())
        self.create(self.user)
        self.assertEqual({}, db.api.quota_usage_check(self.user))

    def test_many_at_once_are_all_counted(self) -> None:
        self.make(2)
        db.api.quota_counter_register('snapshots', COUNT, default_limit=12)

        def work(number: int) -> None:
            ctx = context.RequestContext('user', 'p', overwrite=False)
            for _ in range(5):
                db.api.run_in_transaction(ctx, self.create)

        results = self.in_threads(4, work)
        kinds = {type(result) for result in results if result is not None}
        self.assertEqual({exception.OverQuota}, kinds, results)
        self.assertEqual((12, 12, 0), self.usage())
        self.assertEqual({}, db.api.quota_usage_check(self.user))


class TestUncounted(CounterTestCase):
    """Who has no counter corrects nothing, and says so."""

    def manage(self, *arguments: str) -> tuple[int, Any, str]:
        """Return what another process answers, which has no counter."""
        path = self.create_tempfiles(
            [('p', f'[database]\nconnection={self.database.connection}\n')],
            '.conf',
        )[0]
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'myservice.cmd.manage'),
                *('--config-file', path, 'quota', *arguments, '--json'),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    def test_another_process_leaves_it_as_it_is(self) -> None:
        db.api.quota_counter_register('snapshots', COUNT)
        self.create(self.user)
        self.create(self.user, 3)
        difference = {'snapshots': {'in_use': {'recorded': 4, 'counted': 2}}}
        self.assertEqual(difference, db.api.quota_usage_check(self.user))
        said = (
            'These have no counter here, so their usage is not compared: '
            'snapshots\n'
        )
        for arguments in (('check',), ('check', 'p'), ('sync', '--all')):
            self.assertEqual((0, {}, said), self.manage(*arguments))
        self.assertEqual((0, {}, ''), self.manage('check', 'other'))
        self.assertEqual(difference, db.api.quota_usage_check(self.user))

    def test_they_are_named_for_a_project_or_for_all(self) -> None:
        self.database.conf.set_override(
            'default_limits', {'tapes': 5, 'disks': 5}, 'quota'
        )
        for project_id, names in (('p', ['tapes']), ('q', ['tapes', 'disks'])):
            deltas = dict.fromkeys([*names, 'gigabytes'], 1)
            db.api.quota_reserve(self.context, deltas, project_id)
        # Whoever took it out of the configuration still has it.
        self.database.conf.set_override('default_limits', {}, 'quota')
        call = db.api.quota_usage_get_uncounted
        self.assertEqual(['disks', 'tapes'], call(self.context))
        self.assertEqual(['tapes'], call(self.context, 'p'))
        self.assertEqual(['tapes'], call(self.user))
        self.assertEqual([], call(self.context, 'r'))
        self.assertRaises(exception.ProjectForbidden, call, self.user, 'q')
        self.assertRaises(exception.InvalidInput, call, self.context, '')
        total = sa.select(sa.func.count()).where(OF_PROJECT)
        db.api.quota_counter_register('tapes', total)
        self.assertEqual(['disks'], call(self.context))

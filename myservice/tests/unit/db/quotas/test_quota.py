"""Limits: of projects, of classes, and which of them counts."""

from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.tests import base

FUNCTIONS = ('create', 'get', 'get_all', 'update', 'destroy')


class QuotaTestCase(base.DatabaseTestCase):
    """A test with a user of project 'p', beside the administrator."""

    def setUp(self) -> None:
        super().setUp()
        self.user = self.of_project('p')
        # Here things are reserved and committed that nobody creates.
        self.useFixture(fixtures.QuotaCounters())

    def of_project(self, project_id: str) -> context.RequestContext:
        return context.RequestContext('user', project_id, overwrite=False)

    def configure(self, **options: Any) -> None:
        """Override options of [quota]."""
        for name, value in options.items():
            self.database.conf.set_override(name, value, group='quota')

    def usage(self, resource: str = 'gigabytes') -> tuple[int, int, int]:
        """Return limit, in_use and reserved of project 'p'."""
        usages = db.api.quota_usage_get_all(self.user)
        limit, in_use, reserved = usages[resource].values()
        return limit, in_use, reserved

    def use(self, number: int, resource: str = 'gigabytes') -> None:
        """Let project 'p' have some more of a resource."""
        ids = db.api.quota_reserve(self.user, {resource: number})
        db.api.reservation_commit(self.user, ids)


class TestLimits(QuotaTestCase):
    """The same calls, for projects and for classes."""

    def calls(self, kind: str) -> Any:
        return [getattr(db.api, f'{kind}_{name}') for name in FUNCTIONS]

    def test_a_limit_lives_from_create_to_destroy(self) -> None:
        for kind, owner in (
            ('quota', 'project_id'),
            ('quota_class', 'class_name'),
        ):
            create, get, get_all, update, destroy = self.calls(kind)
            made = create(self.context, 'x', 'gigabytes', 5)
            self.assertEqual(
                ('x', 'gigabytes', 5, None, ''),
                (
                    made[owner],
                    made.resource,
                    made.limit,
                    made.updated_at,
                    made.deleted,
                ),
            )
            self.assertEqual(made, get(self.context, 'x', 'gigabytes'))
            self.assertEqual([made], get_all(self.context))
            self.assertIsNone(update(self.context, 'x', 'gigabytes', 6))
            changed = get(self.context, 'x', 'gigabytes')
            self.assertEqual((made.id, 6), (changed.id, changed.limit))
            self.assertIsNotNone(changed.updated_at)
            self.assertIsNone(destroy(self.context, 'x', 'gigabytes'))
            self.assertEqual([], get_all(self.context))
            again = create(self.context, 'x', 'gigabytes', 7)
            self.assertNotEqual(made.id, again.id)

    def test_one_that_is_not_there_is_not_found(self) -> None:
        for kind, error in (
            ('quota', exception.QuotaNotFound),
            ('quota_class', exception.QuotaClassNotFound),
        ):
            create, get, _, update, destroy = self.calls(kind)
            create(self.context, 'x', 'gigabytes', 5)
            for call, arguments in (
                (get, ('x', 'resources')),
                (get, ('X', 'gigabytes')),
                (get, ('x ', 'gigabytes')),
                (update, ('y', 'gigabytes', 5)),
                (destroy, ('x', 'resources')),
            ):
                found: Any = self.assertRaises(
                    error, call, self.context, *arguments
                )
                self.assertEqual(arguments[1], found.resource)
                self.assertIn(arguments[0], str(found))

    def test_there_is_one_of_each(self) -> None:
        for kind, error in (
            ('quota', exception.QuotaExists),
            ('quota_class', exception.QuotaClassExists),
        ):
            create, get, *_ = self.calls(kind)
            create(self.context, 'x', 'gigabytes', 5)
            self.assertRaises(error, create, self.context, 'x', 'gigabytes', 6)
            self.assertEqual(5, get(self.context, 'x', 'gigabytes').limit)

    def test_of_many_that_create_at_once_one_does(self) -> None:
        results = self.in_threads(
            8,
            lambda number: db.api.quota_create(
                context.get_admin_context(), 'p', 'gigabytes', number
            ),
        )
        errors = [r for r in results if isinstance(r, exception.QuotaExists)]
        self.assertEqual((8, 7), (len(results), len(errors)), results)

    def test_a_limit_can_be_anything_that_a_counter_holds(self) -> None:
        for limit in (-1, 0, 2**31, 2**63 - 1):
            db.api.quota_create(self.context, f'{limit}', 'gigabytes', limit)
            made = db.api.quota_get(self.context, f'{limit}', 'gigabytes')
            self.assertEqual(limit, made.limit)

    def test_what_is_no_limit_is_refused(self) -> None:
        for kind in ('quota', 'quota_class'):
            create, *_, update, _ = self.calls(kind)
            for limit in (-2, 2**63, '5', 1.5, True, None):
                for call in (create, update):
                    error = self.assertRaises(
                        exception.InvalidInput,
                        call,
                        self.context,
                        'x',
                        'gigabytes',
                        limit,
                    )
                    self.assertEqual('limit', error.field)

    def test_what_is_no_name_is_refused(self) -> None:
        for name in ('', None, 5, 'x' * 256, 'nul\0'):
            for kind in ('quota', 'quota_class'):
                create, get, *_, destroy = self.calls(kind)
                for call, arguments in (
                    (create, (name, 'gigabytes', 5)),
                    (create, ('x', name, 5)),
                    (get, ('x', name)),
                    (destroy, (name, 'gigabytes')),
                ):
                    self.assertRaises(
                        exception.InvalidInput, call, self.context, *arguments
                    )

    def test_a_resource_without_a_quota_gets_no_limit(self) -> None:
        for kind in ('quota', 'quota_class'):
            create, *_, update, _ = self.calls(kind)
            for call in (create, update):
                error = self.assertRaises(
                    exception.QuotaResourceUnknown,
                    call,
                    self.context,
                    'x',
                    'floppies',
                    5,
                )
                self.assertEqual(['floppies'], error.unknown)
                self.assertIn('have one: gigabytes, resources', str(error))

    def test_a_limit_of_what_has_no_quota_any_more_can_be_destroyed(
        self,
    ) -> None:
        db.api.quota_create(self.context, 'p', 'resources', 5)
        self.configure(default_limits={'gigabytes': 1})
        self.assertEqual(
            {'gigabytes': {'limit': 1, 'in_use': 0, 'reserved': 0}},
            db.api.quota_usage_get_all(self.user),
        )
        db.api.quota_destroy(self.context, 'p', 'resources')
        self.assertEqual([], db.api.quota_get_all(self.context))

    def test_lists_are_filtered_sorted_and_paged(self) -> None:
        for kind, owner in (
            ('quota', 'project_id'),
            ('quota_class', 'class_name'),
        ):
            create, _, get_all, _, _ = self.calls(kind)
            made = [
                create(self.context, name, resource, limit)
                for limit, name in enumerate('abc')
                for resource in ('gigabytes', 'resources')
            ]
            self.assertEqual(made[2:4], get_all(self.context, 'b'))
            self.assertEqual(
                made[2:4], get_all(self.context, filters={owner: ['b']})
            )
            self.assertEqual(
                [made[3]],
                get_all(self.context, 'b', {'resource': 'resources'}),
            )
            page = get_all(
                self.context,
                limit=2,
                marker=made[4].id,
                sort_keys=['limit'],
                sort_dirs=['desc'],
            )
            self.assertEqual([made[3], made[2]], page)
            self.assertRaises(
                exception.InvalidInput, get_all, self.context, filters={'x': 1}
            )
            self.assertRaises(
                exception.InvalidInput, get_all, self.context, filters=5
            )


class TestWhoMay(QuotaTestCase):
    def test_a_project_sees_its_own_limits_only(self) -> None:
        mine = db.api.quota_create(self.context, 'p', 'gigabytes', 5)
        db.api.quota_create(self.context, 'other', 'gigabytes', 5)
        self.assertEqual(mine, db.api.quota_get(self.user, 'p', 'gigabytes'))
        self.assertEqual([mine], db.api.quota_get_all(self.user))
        self.assertEqual([mine], db.api.quota_get_all(self.user, 'p'))
        for call, arguments in (
            (db.api.quota_get, ('other', 'gigabytes')),
            (db.api.quota_get_all, ('other',)),
            (db.api.quota_usage_get_all, ('other',)),
            (db.api.quota_usage_check, ('other',)),
            (db.api.quota_reserve, ({'gigabytes': 1}, 'other')),
            (db.api.reservation_commit, ([], 'other')),
            (db.api.reservation_rollback, ([], 'other')),
        ):
            error = self.assertRaises(
                exception.ProjectForbidden, call, self.user, *arguments
            )
            self.assertEqual(
                ('user', 'other', call.__name__),
                (error.user_id, error.project_id, error.function),
            )

    def test_a_filter_does_not_show_another_project(self) -> None:
        db.api.quota_create(self.context, 'other', 'gigabytes', 5)
        self.assertEqual(
            [],
            db.api.quota_get_all(self.user, filters={'project_id': 'other'}),
        )

    def test_everybody_sees_the_classes(self) -> None:
        made = db.api.quota_class_create(self.context, 'c', 'gigabytes', 5)
        self.assertEqual([made], db.api.quota_class_get_all(self.user))
        self.assertEqual(
            made, db.api.quota_class_get(self.user, 'c', 'gigabytes')
        )

    def test_limits_are_set_by_administrators(self) -> None:
        for call, arguments in (
            (db.api.quota_create, ('p', 'gigabytes', 5)),
            (db.api.quota_update, ('p', 'gigabytes', 5)),
            (db.api.quota_destroy, ('p', 'gigabytes')),
            (db.api.quota_class_create, ('c', 'gigabytes', 5)),
            (db.api.quota_class_update, ('c', 'gigabytes', 5)),
            (db.api.quota_class_destroy, ('c', 'gigabytes')),
            (db.api.quota_usage_sync, ('p',)),
            (db.api.quota_usage_get_projects, ()),
            (db.api.reservation_expire, ()),
            (db.api.reservation_purge, ()),
        ):
            self.assertRaises(
                exception.AdminRequired, call, self.user, *arguments
            )


class TestWhichLimitCounts(QuotaTestCase):
    def test_the_project_then_the_class_then_the_option(self) -> None:
        self.assertEqual((1000, 0, 0), self.usage())
        db.api.quota_class_create(self.context, 'default', 'gigabytes', 20)
        self.assertEqual((20, 0, 0), self.usage())
        db.api.quota_create(self.context, 'p', 'gigabytes', 10)
        self.assertEqual((10, 0, 0), self.usage())
        error = self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 11},
        )
        self.assertEqual({'gigabytes': 10}, error.quotas)
        self.use(10)
        db.api.quota_destroy(self.context, 'p', 'gigabytes')
        self.assertEqual((20, 10, 0), self.usage())
        self.use(10)
        self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 1},
        )
        db.api.quota_class_destroy(self.context, 'default', 'gigabytes')
        self.use(980)
        error = self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 1},
        )
        self.assertEqual({'gigabytes': 1000}, error.quotas)

    def test_default_limits_are_the_resources_and_their_defaults(self) -> None:
        self.configure(default_limits={'floppies': 2, 'tapes': -1})
        self.assertEqual(
            {
                'floppies': {'limit': 2, 'in_use': 0, 'reserved': 0},
                'tapes': {'limit': -1, 'in_use': 0, 'reserved': 0},
            },
            db.api.quota_usage_get_all(self.user),
        )
        self.use(2, 'floppies')
        self.use(2**40, 'tapes')
        self.assertRaises(
            exception.OverQuota,
            db.api.quota_reserve,
            self.user,
            {'floppies': 1},
        )
        self.assertRaises(
            exception.QuotaResourceUnknown,
            db.api.quota_reserve,
            self.user,
            {'gigabytes': 1},
        )

    def test_default_class_names_the_class_that_counts(self) -> None:
        db.api.quota_class_create(self.context, 'default', 'gigabytes', 5)
        db.api.quota_class_create(self.context, 'gold', 'gigabytes', 50)
        self.configure(default_class='gold')
        self.assertEqual((50, 0, 0), self.usage())
        self.use(50)
        self.configure(default_class='')
        self.assertEqual((1000, 50, 0), self.usage())

    def test_a_limit_of_one_project_is_none_of_another(self) -> None:
        db.api.quota_create(self.context, 'P', 'gigabytes', 1)
        db.api.quota_create(self.context, 'p ', 'gigabytes', 1)
        self.use(2)
        self.assertEqual((1000, 2, 0), self.usage())


class TestSet(base.DatabaseTestCase):
    """A limit that is created, or changed where there is one."""

    CALLS = (
        (db.api.quota_set, db.api.quota_get, db.api.quota_destroy),
        (
            db.api.quota_class_set,
            db.api.quota_class_get,
            db.api.quota_class_destroy,
        ),
    )

    def test_it_is_created_changed_and_created_again(self) -> None:
        for set_limit, get, destroy in self.CALLS:
            set_limit(self.context, 'p', 'gigabytes', 5)
            first = get(self.context, 'p', 'gigabytes')
            self.assertEqual((5, None), (first.limit, first.updated_at))
            set_limit(self.context, 'p', 'gigabytes', 0)
            changed = get(self.context, 'p', 'gigabytes')
            self.assertEqual((0, first.id), (changed.limit, changed.id))
            self.assertEqual(first.created_at, changed.created_at)
            self.assertIsNotNone(changed.updated_at)
            destroy(self.context, 'p', 'gigabytes')
            set_limit(self.context, 'p', 'gigabytes', 7)
            again = get(self.context, 'p', 'gigabytes')
            self.assertEqual(7, again.limit)
            self.assertNotEqual(first.id, again.id)

    def test_of_several_at_once_none_is_refused(self) -> None:
        for set_limit, get, _ in self.CALLS:
            for number in range(10):
                self.set_at_once(set_limit, f'p{number}')
                row = get(self.context, f'p{number}', 'gigabytes')
                self.assertIn(row.limit, range(4))

    def set_at_once(self, set_limit: Any, owner: str) -> None:
        def change(limit: int) -> None:
            admin = context.get_admin_context()
            set_limit(admin, owner, 'gigabytes', limit)

        self.assertEqual([None] * 4, self.in_threads(4, change))

    def test_it_joins_a_transaction(self) -> None:
        with db.api.transaction(self.context):
            db.api.quota_set(self.context, 'p', 'gigabytes', 5)
            db.api.quota_set(self.context, 'p', 'gigabytes', 6)
        self.assertEqual(
            6, db.api.quota_get(self.context, 'p', 'gigabytes').limit
        )

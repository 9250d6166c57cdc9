"""Resources: what projects have, find and change."""

import datetime
import uuid
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

RESOURCES = models.Resource.__table__


class ResourceTestCase(base.DatabaseTestCase):
    """A test with a user of project 'p', beside the administrator."""

    def setUp(self) -> None:
        super().setUp()
        self.user = context.RequestContext('user', 'p', overwrite=False)
        self.other = context.RequestContext('user', 'other', overwrite=False)

    def create(self, **values: Any) -> db.api.ResourceRow:
        return db.api.resource_create(self.user, {'name': 'n'} | values)

    def get(self, resource: db.api.ResourceRow) -> db.api.ResourceRow:
        return db.api.resource_get(self.context, resource.id)

    def usage(self) -> tuple[int, int]:
        """Return how many resources and gigabytes project 'p' has."""
        usages = db.api.quota_usage_get_all(self.user)
        self.assertEqual({}, db.api.quota_usage_check(self.user))
        return usages['resources']['in_use'], usages['gigabytes']['in_use']

    def claim(self, resource: db.api.ResourceRow) -> db.api.Claim:
        service = factories.create_service()
        return db.api.resource_claim(self.context, resource.id, service.id)


class TestCreate(ResourceTestCase):
    def test_a_created_resource_has_what_was_given_and_defaults(self) -> None:
        made = db.api.resource_create(
            self.user, {'name': 'disk', 'kind': 'volume', 'size': 5}
        )
        self.assertEqual(
            ('p', 'disk', 'volume', 5, 'requested', None, 0, ''),
            (
                made.project_id,
                made.name,
                made.kind,
                made.size,
                made.status,
                made.service_id,
                made.generation,
                made.deleted,
            ),
        )
        self.assertEqual(made, db.api.resource_get(self.user, made.id))
        bare = db.api.resource_create(self.user, {})
        self.assertEqual((None, None, 0), (bare.name, bare.kind, bare.size))

    def test_it_takes_quota_and_a_destroy_gives_it_back(self) -> None:
        one = self.create(size=5)
        self.create(size=7)
        self.assertEqual((2, 12), self.usage())
        db.api.resource_destroy(self.user, one.id)
        self.assertEqual((1, 7), self.usage())

    def test_what_does_not_fit_is_not_created(self) -> None:
        db.api.quota_create(self.context, 'p', 'gigabytes', 10)
        db.api.quota_create(self.context, 'p', 'resources', 2)
        self.create(size=6)
        error = self.assertRaises(
            exception.OverQuota, self.create, size=5, tags=['t']
        )
        self.assertEqual(['gigabytes'], error.overs)
        self.create(size=0)
        error = self.assertRaises(exception.OverQuota, self.create)
        self.assertEqual(['resources'], error.overs)
        self.assertEqual((2, 6), self.usage())
        self.assertEqual(2, len(db.api.resource_get_all(self.user)))

    def test_who_catches_the_refusal_commits_nothing_of_it(self) -> None:
        db.api.quota_create(self.context, 'p', 'gigabytes', 10)
        with db.api.transaction(self.user):
            made = self.create(size=6)
            self.assertRaises(
                exception.OverQuota, self.create, size=5, tags=['t']
            )
        self.assertEqual([made], db.api.resource_get_all(self.user))
        self.assertEqual((1, 6), self.usage())

    def test_what_was_there_before_quotas_is_counted(self) -> None:
        self.create(size=5)
        with self.database.engine().begin() as connection:
            connection.execute(sa.delete(models.QuotaUsage.__table__))
        second = self.create(size=6)
        self.assertEqual((2, 11), self.usage())
        with self.database.engine().begin() as connection:
            connection.execute(sa.delete(models.QuotaUsage.__table__))
        db.api.resource_destroy(self.user, second.id)
        self.assertEqual((1, 5), self.usage())

    def test_many_at_once_are_all_counted(self) -> None:
        def work(number: int) -> None:
            ctx = context.RequestContext('user', 'p', overwrite=False)
            made = [
                db.api.resource_create(ctx, {'size': number}) for _ in '123'
            ]
            db.api.resource_destroy(ctx, made[0].id)

        self.assertEqual([None] * 6, self.in_threads(6, work))
        self.assertEqual((12, 2 * sum(range(6))), self.usage())

    def test_metadata_and_tags_come_along(self) -> None:
        made = self.create(metadata={'b': '2', 'a': '1'}, tags=['y', 'x', 'y'])
        self.assertEqual(
            {'a': '1', 'b': '2'},
            db.api.resource_metadata_get(self.user, made.id),
        )
        self.assertEqual(
            ['x', 'y'], db.api.resource_tags_get(self.user, made.id)
        )

    def test_an_administrator_names_the_project(self) -> None:
        made = db.api.resource_create(self.context, {'project_id': 'p'})
        self.assertEqual('p', made.project_id)
        self.assertRaises(
            exception.InvalidInput, db.api.resource_create, self.context, {}
        )
        self.assertRaises(
            exception.ProjectForbidden,
            db.api.resource_create,
            self.user,
            {'project_id': 'other'},
        )

    def test_what_cannot_be_stored_is_refused(self) -> None:
        wrong: list[tuple[str, Any]] = [
            ('name', 5),
            ('name', 'x' * 256),
            ('name', 'nul\0'),
            ('kind', b'x'),
            ('size', -1),
            ('size', 2**63),
            ('size', 1.5),
            ('status', None),
            ('service_id', 'x'),
            ('generation', 5),
            ('id', 'x'),
            ('colour', 'red'),
        ]
        for field, value in wrong:
            error = self.assertRaises(
                exception.InvalidInput, self.create, **{field: value}
            )
            self.assertEqual(field, error.field)
        more: list[dict[str, Any]] = [
            {'metadata': {'k': 5}},
            {'metadata': {5: 'v'}},
            {'metadata': {'': 'v'}},
            {'metadata': {'k': 'x' * 256}},
            {'metadata': ['k']},
            {'tags': 'tag'},
            {'tags': [5]},
            {'tags': ['']},
        ]
        for values in more:
            self.assertRaises(exception.InvalidInput, self.create, **values)
        self.assertRaises(
            exception.InvalidInput, db.api.resource_create, self.user, None
        )


class TestChosenId(ResourceTestCase):
    """A create with an id can be repeated."""

    def setUp(self) -> None:
        super().setUp()
        self.chosen = str(uuid.uuid4())
        self.values: dict[str, Any] = {
            'id': self.chosen,
            'name': 'n',
            'size': 5,
            'metadata': {'a': '1', 'b': '2'},
            'tags': ['x', 'y'],
        }

    def make(self, **changes: Any) -> db.api.ResourceRow:
        return db.api.resource_create(self.user, self.values | changes)

    def refused(self, **changes: Any) -> None:
        error = self.assertRaises(
            exception.ResourceExists, self.make, **changes
        )
        self.assertEqual(self.chosen, error.resource_id)
        self.assertIsInstance(error, exception.Conflict)

    def test_the_row_has_it(self) -> None:
        made = self.make()
        self.assertEqual(self.chosen, made.id)
        self.assertEqual(made, self.get(made))
        self.assertEqual(
            {'a': '1', 'b': '2'},
            db.api.resource_metadata_get(self.user, self.chosen),
        )
        self.assertEqual(
            ['x', 'y'], db.api.resource_tags_get(self.user, self.chosen)
        )

    def test_again_with_the_same_values_it_returns_the_row(self) -> None:
        made = self.make()
        for _ in range(2):
            self.assertEqual(made, self.make(tags=('y', 'x', 'y')))
        del self.values['metadata'], self.values['tags']
        self.assertEqual(made, self.make(status='requested', kind=None))
        self.assertEqual((1, 5), self.usage())

    def test_an_administrator_may_repeat_it(self) -> None:
        made = self.make()
        again = db.api.resource_create(
            self.context, self.values | {'project_id': 'p'}
        )
        self.assertEqual(made, again)

    def test_with_other_values_it_is_refused(self) -> None:
        made = self.make()
        changes: dict[str, Any]
        for changes in (
            {'name': 'other'},
            {'name': None},
            {'kind': 'k'},
            {'size': 6},
            {'status': 'done'},
            {'metadata': {'a': '1'}},
            {'metadata': {}},
            {'tags': ['x']},
            {'tags': []},
        ):
            self.refused(**changes)
        del self.values['name']
        self.refused()
        self.assertEqual(made, self.get(made))
        self.assertEqual((1, 5), self.usage())

    def test_what_was_changed_since_is_not_compared_with_defaults(
        self,
    ) -> None:
        self.make()
        db.api.resource_update(self.user, self.chosen, {'status': 'done'})
        self.assertEqual('done', self.make().status)
        self.refused(status='requested')
        self.refused(name='other')
        del self.values['size']
        self.refused()

    def test_one_of_another_project_is_in_use(self) -> None:
        made = self.make()
        self.assertRaises(
            exception.ResourceExists,
            db.api.resource_create,
            self.other,
            self.values,
        )
        self.assertEqual(made, self.get(made))
        usages = db.api.quota_usage_get_all(self.other)
        self.assertEqual({0}, {each['in_use'] for each in usages.values()})

    def test_one_that_was_destroyed_is_not_made_again(self) -> None:
        self.make()
        db.api.resource_destroy(self.user, self.chosen)
        self.refused()
        self.assertEqual((0, 0), self.usage())

    def test_one_that_was_over_quota_can_be_made_later(self) -> None:
        db.api.quota_create(self.context, 'p', 'resources', 0)
        self.assertRaises(exception.OverQuota, self.make)
        db.api.quota_set(self.context, 'p', 'resources', 1)
        made = self.make()
        self.assertEqual(made, self.make())
        self.assertEqual((1, 5), self.usage())

    def test_in_a_transaction_a_refusal_undoes_nothing_else(self) -> None:
        self.make()
        with db.api.transaction(self.user):
            first = self.create()
            self.assertEqual(self.chosen, self.make().id)
            self.refused(name='other')
            second = self.create()
        self.assertEqual((3, 5), self.usage())
        for made in (first, second):
            self.assertEqual(made, self.get(made))

    def test_twice_in_a_transaction_is_once(self) -> None:
        with db.api.transaction(self.user):
            made = self.make()
            self.assertEqual(made, self.make())
        self.assertEqual((1, 5), self.usage())

    def test_of_many_at_once_one_takes_quota(self) -> None:
        def make(number: int) -> str:
            user = context.RequestContext('user', 'p', overwrite=False)
            return db.api.resource_create(user, self.values).id

        found = self.in_threads(8, make)
        self.assertEqual([self.chosen] * 8, found)
        self.assertEqual((1, 5), self.usage())

    def test_what_is_no_uuid_is_refused(self) -> None:
        for value in (
            None,
            5,
            uuid.uuid4(),
            '',
            'x',
            self.chosen.upper(),
            self.chosen.replace('-', ''),
            f'{{{self.chosen}}}',
            f'urn:uuid:{self.chosen}',
            self.chosen + ' ',
            'a' * 1000,
        ):
            error = self.assertRaises(
                exception.InvalidInput, self.make, id=value
            )
            self.assertEqual('id', error.field)


class TestGetMany(ResourceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.made = [self.create(name=f'n{number}') for number in range(12)]
        self.ids = [row.id for row in self.made]

    def refused(self, ids: Any, ctx: Any = None) -> Any:
        return self.assertRaises(
            exception.ResourcesNotFound,
            db.api.resource_get_many,
            ctx or self.user,
            ids,
        )

    def test_the_rows_are_in_the_order_of_the_ids(self) -> None:
        for ids in (self.ids, self.ids[::-1], tuple(self.ids[3:5]), []):
            rows = db.api.resource_get_many(self.user, ids)
            self.assertEqual(list(ids), [row.id for row in rows])
        self.assertEqual(
            self.made, db.api.resource_get_many(self.user, self.ids)
        )

    def test_an_id_that_is_there_twice_has_its_row_twice(self) -> None:
        ids = [self.ids[1], self.ids[0], self.ids[1]]
        rows = db.api.resource_get_many(self.user, ids)
        self.assertEqual(ids, [row.id for row in rows])

    def test_those_that_are_missing_are_all_in_the_error(self) -> None:
        missing = [f'unknown-{number}' for number in range(30)]
        error = self.refused([*missing[:15], *self.ids, *missing, 'last'])
        self.assertIsInstance(error, exception.ResourceNotFound)
        self.assertEqual([*missing, 'last'], error.resource_ids)
        self.assertEqual('unknown-0', error.resource_id)
        self.assertIn('unknown-9, … and 21 more', str(error))

    def test_those_of_other_projects_are_missing(self) -> None:
        self.assertEqual(
            self.ids[:2], self.refused(self.ids[:2], self.other).resource_ids
        )
        rows = db.api.resource_get_many(self.context, self.ids)
        self.assertEqual(self.made, rows)

    def test_one_that_was_destroyed_is_as_the_context_says(self) -> None:
        db.api.resource_destroy(self.user, self.ids[0])
        error = self.refused(self.ids[:2])
        self.assertEqual(self.ids[:1], error.resource_ids)
        reader = context.RequestContext(
            project_id='p', read_deleted='yes', overwrite=False
        )
        rows = db.api.resource_get_many(reader, self.ids[:2])
        self.assertEqual(self.ids[:2], [row.id for row in rows])
        reader.read_deleted = 'only'
        error = self.refused(self.ids[:2], reader)
        self.assertEqual(self.ids[1:2], error.resource_ids)

    def test_what_is_no_list_of_texts_is_refused(self) -> None:
        for ids in ('x', None, [5], {'a': 1}):
            error = self.assertRaises(
                exception.InvalidInput,
                db.api.resource_get_many,
                self.user,
                ids,
            )
            self.assertEqual('resource_ids', error.field)

    def test_in_a_transaction_it_sees_its_writes(self) -> None:
        with db.api.transaction(self.user):
            made = db.api.resource_create(self.user, {})
            rows = db.api.resource_get_many(self.user, [made.id, *self.ids])
        self.assertEqual([made, *self.made], rows)

    def test_in_a_transaction_it_locks_nothing(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('SQLite locks no rows')

        def update(_: int) -> None:
            db.api.resource_update(self.context, self.ids[0], {'name': 'x'})

        with db.api.transaction(self.user):
            db.api.resource_get_many(self.user, self.ids)
            self.assertEqual([None], self.in_threads(1, update))


class TestScope(ResourceTestCase):
    def test_another_projects_resource_does_not_exist(self) -> None:
        made = self.create(metadata={'k': 'v'}, tags=['t'])
        for call, arguments in (
            (db.api.resource_get, ()),
            (db.api.resource_update, ({'name': 'x'},)),
            (db.api.resource_destroy, ()),
            (db.api.resource_metadata_get, ()),
            (db.api.resource_metadata_set, ({},)),
            (db.api.resource_metadata_update, ({},)),
            (db.api.resource_metadata_delete, ('k',)),
            (db.api.resource_tags_get, ()),
            (db.api.resource_tags_set, ([],)),
        ):
            for ctx, resource_id in (
                (self.other, made.id),
                (self.user, 'unknown'),
            ):
                error: Any = self.assertRaises(
                    exception.ResourceNotFound,
                    call,
                    ctx,
                    resource_id,
                    *arguments,
                )
                self.assertEqual(resource_id, error.resource_id)
        self.assertEqual([], db.api.resource_get_all(self.other))
        self.assertEqual(
            [],
            db.api.resource_get_all(self.other, {'project_id': 'p'}),
        )
        ids = [made.id]
        self.assertEqual(
            {made.id: {}},
            db.api.resource_metadata_get_many(self.other, ids),
        )
        self.assertEqual(
            {made.id: []}, db.api.resource_tags_get_many(self.other, ids)
        )
        self.assertEqual(made, self.get(made))
        self.assertEqual([made], db.api.resource_get_all(self.context))

    def test_a_caller_without_a_project_is_told_so(self) -> None:
        nobody = context.RequestContext('user', overwrite=False)
        error = self.assertRaises(
            exception.InvalidInput, db.api.resource_get_all, nobody
        )
        self.assertEqual('project_id', error.field)

    def test_claims_are_for_administrators(self) -> None:
        made = self.create()
        claim = self.claim(made)
        for call, arguments in (
            (db.api.resource_claim, (made.id, claim.service_id)),
            (db.api.resource_claim_next, (claim.service_id,)),
            (db.api.resource_release, (claim,)),
            (db.api.claims_take_over, ()),
        ):
            self.assertRaises(
                exception.AdminRequired, call, self.user, *arguments
            )
        self.assertRaises(
            exception.AdminRequired,
            db.api.resource_destroy,
            self.user,
            made.id,
            force=True,
        )


class TestUpdate(ResourceTestCase):
    def update(self, resource: db.api.ResourceRow, **more: Any) -> None:
        db.api.resource_update(
            self.user, resource.id, {'status': 'new'}, **more
        )

    def test_it_changes_and_raises_the_generation(self) -> None:
        made = self.create()
        self.assertIsNone(
            db.api.resource_update(
                self.user,
                made.id,
                {'name': 'x', 'kind': None, 'status': 'available'},
            )
        )
        row = self.get(made)
        self.assertEqual(
            ('x', None, 'available', 1),
            (row.name, row.kind, row.status, row.generation),
        )
        self.assertIsNotNone(row.updated_at)

    def test_it_is_done_where_all_is_as_expected(self) -> None:
        fitting: list[dict[str, Any]] = [
            {'status': 'old'},
            {'status': ('other', 'old')},
            {'status': ['old']},
            {'status': db.api.Not('other')},
            {'status': db.api.Not(('other', 'another'))},
            {'kind': None},
            {'kind': (None, 'x')},
            {'kind': db.api.Not('x')},
            {'kind': db.api.Not(('x', 'y'))},
            {'service_id': None},
            {'generation': 0},
            {'size': db.api.Range(1, 3)},
            {'size': db.api.Range(minimum=2)},
            {'status': 'old', 'name': 'n', 'project_id': 'p'},
            {},
        ]
        for expected in fitting:
            made = self.create(status='old', size=2)
            self.update(made, expected=expected)
            row = self.get(made)
            self.assertEqual(('new', 1), (row.status, row.generation))

    def test_it_is_refused_where_something_is_not_as_expected(self) -> None:
        others: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({'status': 'other'}, {'status': 'old'}),
            ({'status': 'OLD'}, {'status': 'old'}),
            ({'status': ('x', 'y')}, {'status': 'old'}),
            ({'status': ()}, {'status': 'old'}),
            ({'status': db.api.Not('old')}, {'status': 'old'}),
            ({'status': db.api.Not(('x', 'old'))}, {'status': 'old'}),
            ({'kind': db.api.Not(None)}, {'kind': None}),
            ({'kind': db.api.Not((None, 'x'))}, {'kind': None}),
            ({'kind': 'x'}, {'kind': None}),
            ({'name': None}, {'name': 'n'}),
            ({'size': db.api.Range(3)}, {'size': 2}),
            (
                {'status': 'old', 'generation': 5},
                {'status': 'old', 'generation': 0},
            ),
        ]
        made = self.create(status='old', size=2)
        for expected, actual in others:
            error = self.assertRaises(
                exception.ResourceConflict,
                self.update,
                made,
                expected=expected,
            )
            self.assertEqual(
                (made.id, expected, actual),
                (error.resource_id, error.expected, error.actual),
            )
            self.assertEqual(made, self.get(made))

    def test_of_many_that_expect_the_same_one_does_it(self) -> None:
        made = self.create()
        results = self.in_threads(
            8,
            lambda number: db.api.resource_update(
                context.RequestContext('u', 'p', overwrite=False),
                made.id,
                {'status': f'of {number}'},
                {'status': 'requested'},
            ),
        )
        self.assertEqual(1, results.count(None), results)
        winner = results.index(None)
        row = self.get(made)
        self.assertEqual((f'of {winner}', 1), (row.status, row.generation))

    def test_what_cannot_be_compared_is_refused(self) -> None:
        made = self.create()
        wrong: list[Any] = [
            {'colour': 'red'},
            {'size': 'x'},
            {'status': 5},
            {'status': db.api.Not(5)},
            {'size': db.api.Range('a')},
            ['status'],
        ]
        for expected in wrong:
            self.assertRaises(
                exception.InvalidInput, self.update, made, expected=expected
            )
        for values in (
            {},
            {'size': -1},
            {'service_id': 'x'},
            {'status': None},
        ):
            self.assertRaises(
                exception.InvalidInput,
                db.api.resource_update,
                self.user,
                made.id,
                values,
            )


class TestDestroy(ResourceTestCase):
    def test_a_destroyed_one_is_marked_and_gone(self) -> None:
        made = self.create()
        self.assertIsNone(db.api.resource_destroy(self.user, made.id))
        for call in (db.api.resource_get, db.api.resource_destroy):
            self.assertRaises(
                exception.ResourceNotFound, call, self.user, made.id
            )
        self.assertRaises(
            exception.ResourceNotFound,
            db.api.resource_update,
            self.user,
            made.id,
            {'name': 'x'},
        )
        deleted = self.user.with_deleted('only')
        (row,) = db.api.resource_get_all(deleted)
        self.assertEqual(made.id, row.id)
        self.assertIsNotNone(row.deleted_at)

    def test_a_claimed_one_needs_its_claim_or_force(self) -> None:
        made = self.create(size=5)
        claim = self.claim(made)
        error = self.assertRaises(
            exception.ResourceClaimed,
            db.api.resource_destroy,
            self.user,
            made.id,
        )
        holder = db.api.service_get(self.context, claim.service_id)
        self.assertEqual(
            (holder.id, holder.host), (error.service_id, error.host)
        )
        self.assertRaises(
            exception.ClaimLost,
            db.api.resource_destroy,
            self.user,
            made.id,
            claim._replace(generation=0),
        )
        self.assertEqual((1, 5), self.usage())
        db.api.resource_destroy(self.user, made.id, claim)
        forced = self.create()
        self.claim(forced)
        db.api.resource_destroy(self.context, forced.id, force=True)
        self.assertEqual((0, 0), self.usage())
        for service in db.api.service_get_all(self.context):
            db.api.service_destroy(self.context, service.id)


class TestMetadataAndTags(ResourceTestCase):
    def test_metadata_is_set_changed_and_taken_away(self) -> None:
        made = self.create(metadata={'a': '1', 'b': '2'})

        def metadata() -> dict[str, str]:
            return db.api.resource_metadata_get(self.user, made.id)

        db.api.resource_metadata_update(
            self.user, made.id, {'b': '3', 'c': ''}
        )
        self.assertEqual({'a': '1', 'b': '3', 'c': ''}, metadata())
        db.api.resource_metadata_delete(self.user, made.id, 'a')
        db.api.resource_metadata_delete(self.user, made.id, ['b', 'unknown'])
        self.assertEqual({'c': ''}, metadata())
        db.api.resource_metadata_set(self.user, made.id, {'D': '1', 'd': '2'})
        self.assertEqual({'D': '1', 'd': '2'}, metadata())
        db.api.resource_metadata_set(self.user, made.id, {})
        self.assertEqual({}, metadata())

    def test_tags_are_set(self) -> None:
        made = self.create(tags=['a'])
        db.api.resource_tags_set(self.user, made.id, ['c', 'B', 'b', 'c'])
        self.assertEqual(
            ['B', 'b', 'c'], db.api.resource_tags_get(self.user, made.id)
        )

    def test_those_of_a_page_are_one_statement(self) -> None:
        made = [
            self.create(metadata={'n': str(number)}, tags=[str(number)])
            for number in range(5)
        ]
        ids = [row.id for row in made]
        for call, found in (
            (
                db.api.resource_metadata_get_many,
                {i: {'n': str(n)} for n, i in enumerate(ids)},
            ),
            (
                db.api.resource_tags_get_many,
                {i: [str(n)] for n, i in enumerate(ids)},
            ),
        ):
            with self.commands() as sent:
                self.assertEqual(found, call(self.user, ids))
            self.assertEqual(1, len(sent), sent)

    def test_those_of_a_destroyed_one_are_hidden_with_it(self) -> None:
        made = self.create(metadata={'k': 'v'}, tags=['t'])
        db.api.resource_destroy(self.user, made.id)
        deleted = self.user.with_deleted('only')
        for call, one, hidden, shown in (
            (
                db.api.resource_metadata_get_many,
                db.api.resource_metadata_get,
                {},
                {'k': 'v'},
            ),
            (
                db.api.resource_tags_get_many,
                db.api.resource_tags_get,
                [],
                ['t'],
            ),
        ):
            many: Any = call
            self.assertEqual({made.id: hidden}, many(self.user, [made.id]))
            self.assertEqual({made.id: shown}, many(deleted, [made.id]))
            self.assertRaises(
                exception.ResourceNotFound, one, self.user, made.id
            )
            self.assertEqual(shown, one(deleted, made.id))

    def test_any_number_of_them_can_be_asked_for(self) -> None:
        made = self.create(metadata={'k': 'v'})
        ids = [made.id, *map(str, range(70000))]
        found = db.api.resource_metadata_get_many(self.user, ids)
        self.assertEqual(70001, len(found))
        self.assertEqual({'k': 'v'}, found[made.id])

    def test_a_lost_claim_writes_nothing(self) -> None:
        made = self.create(metadata={'a': '1'}, tags=['a'])
        claim = self.claim(made)
        writes: list[tuple[Any, Any]] = [
            (db.api.resource_metadata_set, {'b': '2'}),
            (db.api.resource_metadata_update, {'b': '2'}),
            (db.api.resource_metadata_delete, 'a'),
            (db.api.resource_tags_set, ['b']),
        ]
        for call, value in writes:
            call(self.user, made.id, value, claim)
        db.api.resource_release(self.context, claim)
        before = (
            db.api.resource_metadata_get(self.user, made.id),
            db.api.resource_tags_get(self.user, made.id),
        )
        self.assertEqual(({'b': '2'}, ['b']), before)
        for call, value in writes:
            self.assertRaises(
                exception.ClaimLost, call, self.user, made.id, value, claim
            )
        other = self.create()
        self.assertRaises(
            exception.InvalidInput,
            db.api.resource_tags_set,
            self.user,
            other.id,
            [],
            claim,
        )


class TestLists(ResourceTestCase):
    def names(self, filters: Any = None, **arguments: Any) -> str:
        rows = db.api.resource_get_all(self.user, filters, **arguments)
        return ''.join(str(row.name) for row in rows)

    def test_each_filter_shows_what_it_says(self) -> None:
        first = self.create(name='a', kind='x', size=1, tags=['t', 'u'])
        second = self.create(name='b', size=2, metadata={'k': 'v'})
        self.create(name='c', kind='y', size=3, tags=['t'], status='done')
        claim = self.claim(second)
        wanted: list[tuple[dict[str, Any], str]] = [
            ({}, 'abc'),
            ({'name': 'a'}, 'a'),
            ({'name': 'A'}, ''),
            ({'name': None}, 'abc'),
            ({'name': ['a', 'c']}, 'ac'),
            ({'id': first.id}, 'a'),
            ({'status': db.api.Not('done')}, 'ab'),
            ({'kind': db.api.Not('x')}, 'bc'),
            ({'kind': db.api.Not(None)}, 'ac'),
            ({'kind': [None, 'y']}, 'bc'),
            ({'size': db.api.Range(2)}, 'bc'),
            ({'size': db.api.Range(2, 2)}, 'b'),
            ({'size': db.api.Range(maximum=1)}, 'a'),
            (
                {'created_at': db.api.Range(datetime.datetime(2100, 1, 1))},
                '',
            ),
            ({'service_id': claim.service_id}, 'b'),
            ({'is_claimed': True}, 'b'),
            ({'is_claimed': False}, 'ac'),
            ({'tags': ['t']}, 'ac'),
            ({'tags': ['t', 'u']}, 'a'),
            ({'tags': 'u'}, 'a'),
            ({'tags': []}, 'abc'),
            ({'metadata': {'k': 'v'}}, 'b'),
            ({'metadata': {'k': 'w'}}, ''),
            ({'is_claimed': False, 'tags': ['t'], 'status': 'done'}, 'c'),
        ]
        for filters, names in wanted:
            self.assertEqual(names, self.names(filters), filters)

    def test_texts_are_found_by_a_part_of_them_literally(self) -> None:
        names = ('50% off', '50 off', 'a_b', 'aXb', 'Off', 'O\U0001f600o')
        for name in names:
            self.create(name=name)
        parts: list[tuple[Any, list[str]]] = [
            (db.api.Contains('50%'), ['50% off']),
            (db.api.Contains('a_b'), ['a_b']),
            (db.api.Contains('off'), ['50% off', '50 off']),
            (db.api.Contains('\U0001f600'), ['O\U0001f600o']),
            (db.api.Contains("'"), []),
            (db.api.StartsWith('O'), ['Off', 'O\U0001f600o']),
            (db.api.StartsWith('o'), []),
            (db.api.StartsWith('50%'), ['50% off']),
        ]
        for wanted, found in parts:
            rows = db.api.resource_get_all(self.user, {'name': wanted})
            self.assertEqual(found, [row.name for row in rows], wanted)

    def test_unknown_filters_and_wrong_types_are_refused(self) -> None:
        wrong: list[Any] = [
            {'colour': 'red'},
            {'size': 'x'},
            {'size': db.api.Range('x')},
            {'name': db.api.Contains(5)},
            {'is_claimed': 'yes'},
            {'tags': [5]},
            {'metadata': ['k']},
            'name',
        ]
        for filters in wrong:
            self.assertRaises(
                exception.InvalidInput,
                db.api.resource_get_all,
                self.user,
                filters,
            )

    def test_pages_are_complete_in_every_order(self) -> None:
        for number in range(12):
            made = self.create(name=f'{number % 4}', size=number % 3)
            if number % 2:
                db.api.resource_update(self.user, made.id, {'kind': 'k'})
        for key in ('id', 'name', 'kind', 'size', 'created_at', 'updated_at'):
            for direction in (
                'asc',
                'desc-nullsfirst',
                'desc',
                'asc-nullslast',
            ):
                for filters in ({}, {'status': 'requested'}):
                    order: dict[str, Any] = {
                        'sort_keys': [key],
                        'sort_dirs': [direction],
                    }
                    everything = db.api.resource_get_all(
                        self.user, filters, **order
                    )
                    paged: list[db.api.ResourceRow] = []
                    while page := db.api.resource_get_all(
                        self.user,
                        filters,
                        limit=5,
                        marker=paged[-1].id if paged else None,
                        **order,
                    ):
                        paged += page
                    self.assertEqual(everything, paged, order)
                    self.assertEqual(12, len({row.id for row in paged}))

    def test_a_marker_of_another_project_marks_nothing(self) -> None:
        foreign = db.api.resource_create(self.other, {'name': 'b'})
        self.create(name='a')
        for sort_key in ('id', 'name'):
            self.assertRaises(
                exception.MarkerNotFound,
                self.names,
                marker=foreign.id,
                sort_keys=[sort_key],
            )
        rows = db.api.resource_get_all(
            self.context, marker=foreign.id, sort_keys=['name']
        )
        self.assertEqual([], rows)

    def test_what_can_be_no_page_is_refused(self) -> None:
        wrong: list[dict[str, Any]] = [
            {'limit': 2**63},
            {'limit': -1},
            {'sort_keys': [['name']]},
            {'sort_dirs': [['asc']]},
            {'filters': {'name': db.api.StartsWith(None)}},
            {'filters': {'name': db.api.Contains(None)}},
        ]
        for arguments in wrong:
            self.assertRaises(
                exception.InvalidInput,
                db.api.resource_get_all,
                self.user,
                **arguments,
            )

    def test_a_destroyed_marker_still_marks_its_place(self) -> None:
        made = [self.create(name=name) for name in 'abcd']
        db.api.resource_destroy(self.user, made[1].id)
        self.assertEqual(
            'cd', self.names(marker=made[1].id, sort_keys=['name'])
        )
        self.assertRaises(
            exception.MarkerNotFound, self.names, marker='unknown'
        )

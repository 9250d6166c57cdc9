"""Tags: which resources they find, and how they are added and removed."""

import itertools
import random
from collections.abc import Callable
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.tests import factories
from myservice.tests.unit.db.resources import test_resource

#: name of a filter to what it says of the tags of a resource
MEANINGS: dict[str, Callable[[set[str], set[str]], bool]] = {
    'tags': lambda tags, wanted: wanted <= tags,
    'tags-any': lambda tags, wanted: bool(wanted & tags),
    'not-tags': lambda tags, wanted: not wanted <= tags,
    'not-tags-any': lambda tags, wanted: not wanted & tags,
}


class TagsTestCase(test_resource.ResourceTestCase):
    def tags(self, resource: db.api.ResourceRow) -> list[str]:
        return db.api.resource_tags_get(self.context, resource.id)


class TestFilters(TagsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.of: dict[str, set[str]] = {}
        for number in range(4):
            for chosen in itertools.combinations('abc', number):
                name = ''.join(chosen)
                row = self.create(name=name, tags=list(chosen))
                self.of[row.id] = set(chosen)

    def found(self, filters: dict[str, Any], **page: Any) -> list[str]:
        rows = db.api.resource_get_all(self.user, filters, **page)
        return [row.id for row in rows]

    def expected(self, filters: dict[str, Any]) -> list[str]:
        return sorted(
            each
            for each, tags in self.of.items()
            if all(
                MEANINGS[name](tags, set(wanted))
                for name, wanted in filters.items()
            )
        )

    def test_each_says_what_its_name_says(self) -> None:
        for name in MEANINGS:
            for wanted in ((), 'a', 'ab', 'abc', 'd', 'ad', 'aa'):
                for more in (0, 6, 20):
                    others = [f'unknown {each}' for each in range(more)]
                    filters = {name: [*wanted, *others]}
                    found = self.found(filters)
                    self.assertEqual(self.expected(filters), found, filters)

    def test_of_an_empty_list_each_has_all_and_none(self) -> None:
        everybody = sorted(self.of)
        for name, found in (
            ('tags', everybody),
            ('tags-any', []),
            ('not-tags', []),
            ('not-tags-any', everybody),
        ):
            nothing: tuple[Any, ...] = ([], (), set())
            for empty in nothing:
                self.assertEqual(found, self.found({name: empty}), name)
            self.assertEqual(everybody, self.found({name: None}), name)

    def test_a_text_is_one_tag(self) -> None:
        for name in MEANINGS:
            self.assertEqual(
                self.expected({name: ['a']}), self.found({name: 'a'})
            )

    def test_they_combine(self) -> None:
        chance = random.Random(7)
        for _ in range(60):
            filters = {
                name: chance.sample('abcd', chance.randrange(4))
                for name in MEANINGS
                if chance.random() < 0.6
            }
            for name in filters:
                if chance.random() < 0.2:
                    filters[name] += map(str, range(20))
            self.assertEqual(
                self.expected(filters), self.found(filters), filters
            )
        self.assertEqual(
            [each for each, tags in sorted(self.of.items()) if tags == {'a'}],
            self.found({'tags-any': ['a', 'b'], 'name': ['a', 'c']}),
        )

    def test_a_walk_by_pages_gives_each_once(self) -> None:
        for name, more in itertools.product(MEANINGS, (0, 20)):
            filters = {name: ['a', 'b', *map(str, range(more))]}
            for direction in ('asc', 'desc'):
                walk: list[str] = []
                while page := self.found(
                    filters,
                    limit=2,
                    marker=walk[-1] if walk else None,
                    sort_keys=['name'],
                    sort_dirs=[direction],
                ):
                    walk += page
                self.assertEqual(self.expected(filters), sorted(walk))

    def test_those_that_look_for_work_have_them_too(self) -> None:
        service = factories.create_service()
        for name, more in itertools.product(MEANINGS, (0, 20)):
            filters = {name: ['a', 'b', *map(str, range(more))]}
            claims = db.api.resource_claim_next(
                self.context, service.id, filters, limit=100
            )
            self.assertEqual(
                self.expected(filters),
                sorted(claim.resource_id for claim in claims),
            )
            for claim in claims:
                db.api.resource_release(self.context, claim)

    def test_what_no_tag_can_be_is_refused_by_its_name(self) -> None:
        wrong: tuple[Any, ...] = (
            5,
            [5],
            [''],
            ['x' * 256],
            {'a': 'b'},
            [None],
        )
        for name, value in itertools.product(MEANINGS, wrong):
            error: Any = self.assertRaises(
                exception.InvalidInput,
                db.api.resource_get_all,
                self.user,
                {name: value},
            )
            self.assertEqual(name, error.field)

    def test_a_page_is_one_statement(self) -> None:
        for name, more in itertools.product(MEANINGS, (0, 20)):
            with self.commands() as sent:
                self.found({name: ['a', *map(str, range(more))]}, limit=2)
            self.assertEqual(1, len(sent), sent)


class TestOne(TagsTestCase):
    def test_a_tag_is_added_once(self) -> None:
        made = self.create(tags=['b'])
        for tag in ('a', 'a', 'b', 'B', 'a '):
            db.api.resource_tag_add(self.user, made.id, tag)
        self.assertEqual(['B', 'a', 'a ', 'b'], self.tags(made))

    def test_a_tag_is_removed_or_was_not_there(self) -> None:
        made = self.create(tags=['a', 'b'])
        db.api.resource_tag_remove(self.user, made.id, 'a')
        self.assertEqual(['b'], self.tags(made))
        for tag in ('a', 'B', 'b '):
            error: Any = self.assertRaises(
                exception.ResourceTagNotFound,
                db.api.resource_tag_remove,
                self.user,
                made.id,
                tag,
            )
            self.assertEqual((made.id, tag), (error.resource_id, error.tag))
            self.assertIsInstance(error, exception.NotFound)
        self.assertEqual(['b'], self.tags(made))

    def test_whether_it_is_there(self) -> None:
        made = self.create(tags=['a', 'b'])
        self.create(tags=['c'])
        for tag, there in (('a', True), ('A', False), ('c', False)):
            found = db.api.resource_tag_exists(self.user, made.id, tag)
            self.assertIs(there, found)

    def test_those_of_a_destroyed_one_are_hidden_with_it(self) -> None:
        made = self.create(tags=['a'])
        db.api.resource_destroy(self.user, made.id)
        deleted = self.user.with_deleted('only')
        self.assertTrue(db.api.resource_tag_exists(deleted, made.id, 'a'))
        for call in (
            db.api.resource_tag_add,
            db.api.resource_tag_remove,
            db.api.resource_tag_exists,
        ):
            one: Any = call
            self.assertRaises(
                exception.ResourceNotFound, one, self.user, made.id, 'a'
            )

    def test_what_cannot_be_a_tag_is_refused(self) -> None:
        made = self.create()
        for call, tag in itertools.product(
            (
                db.api.resource_tag_add,
                db.api.resource_tag_remove,
                db.api.resource_tag_exists,
            ),
            ('', 'x' * 256, 'nul\0', 5, None, ['a']),
        ):
            one: Any = call
            error: Any = self.assertRaises(
                exception.InvalidInput, one, self.user, made.id, tag
            )
            self.assertEqual('tag', error.field)


class TestSeveral(TagsTestCase):
    def test_those_that_are_there_stay(self) -> None:
        made = self.create(tags=['a', 'b'])
        db.api.resource_tags_add(self.user, made.id, ['c', 'b', 'B', 'c'])
        self.assertEqual(['B', 'a', 'b', 'c'], self.tags(made))

    def test_those_that_are_not_there_are_no_error(self) -> None:
        made = self.create(tags=['a', 'b', 'c'])
        other = self.create(tags=['a', 'b', 'c'])
        for _ in range(2):
            db.api.resource_tags_remove(self.user, made.id, ['a', 'x', 'c'])
            self.assertEqual(['b'], self.tags(made))
        self.assertEqual(['a', 'b', 'c'], self.tags(other))

    def test_none_change_nothing(self) -> None:
        made = self.create(tags=['a'])
        db.api.resource_tags_add(self.user, made.id, [])
        db.api.resource_tags_remove(self.user, made.id, [])
        self.assertEqual(['a'], self.tags(made))


class TestWriters(TagsTestCase):
    WRITERS: tuple[tuple[Any, Any], ...] = (
        (db.api.resource_tag_add, 'b'),
        (db.api.resource_tags_add, ['b']),
        (db.api.resource_tag_remove, 'a'),
        (db.api.resource_tags_remove, ['a']),
        (db.api.resource_tags_add, []),
        (db.api.resource_tags_remove, []),
        (db.api.resource_tags_add, [str(each) for each in range(20)]),
        (
            db.api.resource_tags_remove,
            ['a', *(str(each) for each in range(20))],
        ),
    )

    def test_another_projects_resource_does_not_exist(self) -> None:
        made = self.create(tags=['a'])
        for call, value in (
            *self.WRITERS,
            (db.api.resource_tag_exists, 'a'),
        ):
            for ctx, resource_id in (
                (self.other, made.id),
                (self.user, 'unknown'),
                (self.context, 'unknown'),
            ):
                error: Any = self.assertRaises(
                    exception.ResourceNotFound, call, ctx, resource_id, value
                )
                self.assertEqual(resource_id, error.resource_id)
        self.assertEqual(['a'], self.tags(made))

    def test_an_administrator_writes_those_of_any_project(self) -> None:
        for call, value in self.WRITERS:
            made = self.create(tags=['a', 'c'])
            call(self.context, made.id, value)
            wanted = set(value if isinstance(value, list) else [value])
            expected = {'a', 'c'}
            if 'add' in call.__name__:
                expected |= wanted
            else:
                expected -= wanted
            self.assertEqual(sorted(expected), self.tags(made))

    def test_a_lost_claim_writes_nothing(self) -> None:
        for call, value in self.WRITERS:
            made = self.create(tags=['a'])
            claim = self.claim(made)
            call(self.user, made.id, value, claim)
            db.api.resource_tags_set(self.user, made.id, ['a'])
            db.api.resource_release(self.context, claim)
            self.assertRaises(
                exception.ClaimLost, call, self.user, made.id, value, claim
            )
            self.assertEqual(['a'], self.tags(made))
            other = self.create()
            self.assertRaises(
                exception.InvalidInput,
                call,
                self.user,
                other.id,
                value,
                claim,
            )

    def test_they_join_a_transaction(self) -> None:
        for call, value in self.WRITERS:
            made = self.create(tags=['a'])

            def fail(call: Any, value: Any, made: Any) -> None:
                with db.api.transaction(self.user):
                    call(self.user, made.id, value)
                    raise ValueError

            self.assertRaises(ValueError, fail, call, value, made)
            self.assertEqual(['a'], self.tags(made))

    def test_many_at_once_add_and_remove_each_once(self) -> None:
        made = self.create(tags=[f'old {each}' for each in range(20)])
        removed: list[str] = []

        def work(number: int) -> None:
            ctx = context.RequestContext('user', 'p', overwrite=False)
            for each in range(20):
                db.api.resource_tags_add(ctx, made.id, [f'new {each}', 'x'])
                db.api.resource_tag_add(ctx, made.id, 'y')
                try:
                    tag = f'old {each}'
                    db.api.resource_tag_remove(ctx, made.id, tag)
                except exception.ResourceTagNotFound:
                    pass
                else:
                    removed.append(tag)

        self.assertEqual([None] * 4, self.in_threads(4, work))
        self.assertEqual(20, len(removed))
        self.assertEqual(20, len(set(removed)))
        self.assertEqual(
            sorted(['x', 'y', *(f'new {each}' for each in range(20))]),
            self.tags(made),
        )

"""Tags: which resources they find."""

import itertools
import random
from collections.abc import Callable
from typing import Any

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


class TestFilters(test_resource.ResourceTestCase):
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

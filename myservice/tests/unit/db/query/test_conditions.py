"""Conditions: what callers say of a column, and a kind of their own."""

import dataclasses
from typing import Any
from unittest import mock

import sqlalchemy as sa

from myservice import db
from myservice import exception
from myservice import plain
from myservice.db import validation
from myservice.db.query import conditions
from myservice.db.query import listing
from myservice.tests import base


class Text(str):
    """What drivers may not send as it is."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Longer(conditions.Condition):
    """The texts of more characters than a text has."""

    text: str

    def values(self) -> tuple[str]:
        return (self.text,)

    def shape(self) -> conditions.Condition:
        return Longer('')

    def parameters(self, name: str) -> dict[str, object]:
        return {f'{name}_long': self.text}

    def clause(
        self, column: conditions.Column, name: str
    ) -> conditions.Clause:
        text = sa.bindparam(f'{name}_long', type_=sa.String())
        return sa.func.length(column) > sa.func.length(text)


class TestANewKind(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ('a', 'bb', 'ccc', None):
            db.api.resource_create(
                self.context, {'project_id': 'p', 'name': name}
            )

    def names(self, wanted: Any) -> list[str | None]:
        rows = db.api.resource_get_all(self.context, {'name': wanted})
        return [row.name for row in rows]

    def test_is_a_class_and_nothing_else(self) -> None:
        self.assertEqual(['bb', 'ccc'], self.names(Longer('x')))
        self.assertEqual(['a', None], self.names(db.api.Not(Longer('x'))))
        self.assertEqual(['ccc'], self.names(Longer('xx')))

    def test_is_expected_of_a_resource(self) -> None:
        row = db.api.resource_get_all(self.context, {'name': 'bb'})[0]
        values = {'kind': 'k'}
        expected = {'name': Longer('x')}
        db.api.resource_update(self.context, row.id, values, expected)
        self.assertRaises(
            exception.ResourceConflict,
            db.api.resource_update,
            self.context,
            row.id,
            values,
            {'name': Longer('xx')},
        )

    def test_has_values_that_are_checked(self) -> None:
        for wanted in (Longer(5), db.api.Not(Longer('\0'))):
            refusal = self.assertRaises(
                exception.InvalidInput, self.names, wanted
            )
            self.assertEqual('name', refusal.field)

    def test_has_values_that_are_made_plain(self) -> None:
        made = plain.plain(Longer(Text('x')))
        self.assertEqual((Longer, str), (type(made), type(made.text)))

    def test_has_one_statement_for_all_its_values(self) -> None:
        before = listing._page_statement.cache_info().misses
        for text in ('x', 'xx', 'xxx'):
            self.names(Longer(text))
        after = listing._page_statement.cache_info().misses
        self.assertIn(after - before, (0, 1))


class TestShapes(base.TestCase):
    def shape(self, wanted: Any) -> Any:
        return conditions.of(wanted).shape()

    def test_they_are_the_same_whatever_the_values_are(self) -> None:
        pairs: list[tuple[Any, Any]] = [
            ('a', 'b'),
            (['a', 'b'], {'c', 'd'}),
            (['a', None], (None, 'b')),
            (None, None),
            (db.api.Not('a'), db.api.Not('b')),
            (db.api.Not(['a']), db.api.Not(['b'])),
            (db.api.Range('a'), db.api.Range('b')),
            (db.api.Contains('a'), db.api.Contains('b')),
        ]
        shapes = set()
        for one, other in pairs:
            self.assertEqual(self.shape(one), self.shape(other))
            shapes.add(self.shape(one))
        self.assertEqual(len(pairs), len(shapes))

    def test_they_hold_no_values(self) -> None:
        for wanted in ('secret', ['secret'], db.api.Not(['secret', None])):
            self.assertNotIn('secret', repr(self.shape(wanted)))

    def test_each_value_is_checked_once(self) -> None:
        with mock.patch.object(validation, 'check_value') as check:
            conditions.of(['a', None, 'b']).check(sa.column('c'), 'field')
        self.assertEqual(
            ['a', 'b'], [call.args[1] for call in check.call_args_list]
        )

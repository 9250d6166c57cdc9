"""Rows say what they are: their annotations are the columns of the model."""

import copy
import dataclasses
import json
import pickle
import pprint
import typing
from typing import Any

from oslo_serialization import jsonutils

from myservice import db
from myservice.tests import base
from myservice.tests import factories

ROWS = (
    db.api.ServiceRow,
    db.api.QuotaRow,
    db.api.QuotaClassRow,
    db.api.ResourceRow,
)


class TestRows(base.TestCase):
    def test_each_declares_the_types_of_its_columns(self) -> None:
        for row_class in ROWS:
            columns = {
                column.key: column.type.python_type | None
                if getattr(column, 'nullable', False)
                else column.type.python_type
                for column in row_class.columns
            }
            declared = {
                name: kind
                for name, kind in typing.get_type_hints(row_class).items()
                if typing.get_origin(kind) is not typing.ClassVar
            }
            self.assertEqual(columns, declared, row_class)

    def test_none_can_be_changed(self) -> None:
        for row_class in ROWS:
            row = row_class(range(len(row_class.columns)))
            self.assertEqual(0, row.id)
            for name in (*row.keys(), 'another'):
                self.assertRaises(AttributeError, setattr, row, name, 1)

    def test_no_column_has_the_name_of_a_method(self) -> None:
        for row_class in ROWS:
            for name in row_class.keys():
                self.assertFalse(hasattr(db.api.Row, name), name)


class TestOneRow(base.DatabaseTestCase):
    """A row reads like a dict by its names, and is a tuple by position."""

    def setUp(self) -> None:
        super().setUp()
        self.row = factories.create_service()
        self.named = dict(zip(self.row.keys(), tuple(self.row), strict=True))

    def test_it_contains_the_names_of_its_columns(self) -> None:
        self.assertIn('host', self.row)
        for other in (self.row.host, 'keys', 'not_found', 'nosuch', None, 0):
            self.assertNotIn(other, self.row)

    def test_a_name_reads_a_column(self) -> None:
        self.assertEqual(self.row.host, self.row['host'])
        self.assertEqual(self.row.host, self.row.get('host'))
        self.assertEqual(self.row.id, self.row[0])
        self.assertEqual(tuple(self.row)[:2], self.row[:2])

    def test_a_name_of_no_column_is_a_key_error_or_the_default(self) -> None:
        for name in ('nosuch', 'keys', 'not_found'):
            self.assertRaises(KeyError, lambda name=name: self.row[name])
            self.assertIsNone(self.row.get(name))
            self.assertEqual(7, self.row.get(name, 7))
        self.assertRaises(IndexError, lambda: self.row[100])

    def test_what_is_null_is_none_and_not_the_default(self) -> None:
        self.assertIsNone(self.row.get('deleted_at', 7))

    def test_it_has_keys_values_and_items_in_order(self) -> None:
        self.assertEqual(list(self.named), self.row.keys())
        self.assertEqual(list(self.named.values()), self.row.values())
        self.assertEqual(list(self.named.items()), self.row.items())

    def test_it_becomes_a_dict(self) -> None:
        for made in (
            dict(self.row),
            {**self.row},
            self.row | {},
            {} | self.row,
            self.row | self.row,
            dataclasses.asdict(self.row),
        ):
            self.assertIs(dict, type(made))
            self.assertEqual(self.named, made)

    def test_the_right_one_wins(self) -> None:
        host = self.row.host
        joined = self.row | {'host': 'x', 'y': 1}
        self.assertEqual(self.named | {'host': 'x', 'y': 1}, joined)
        self.assertEqual(host, ({'host': 'x', 'y': 1} | self.row)['host'])
        self.assertEqual(1, ({'y': 1} | self.row)['y'])
        other: Any = [1]
        self.assertRaises(TypeError, lambda: self.row | other)

    def test_by_position_it_is_a_tuple_of_values(self) -> None:
        first, *rest = self.row
        self.assertEqual(self.row.id, first)
        self.assertEqual(len(self.row) - 1, len(rest))
        self.assertEqual(1, self.row.count(self.row.id))
        self.assertEqual(0, self.row.index(self.row.id))

    def test_a_copy_is_equal_and_of_its_class(self) -> None:
        for twin in (
            copy.copy(self.row),
            copy.deepcopy(self.row),
            pickle.loads(pickle.dumps(self.row)),
            type(self.row)(self.row.values()),
        ):
            self.assertIs(type(self.row), type(twin))
            self.assertEqual(self.row, twin)
            self.assertEqual(1, len({self.row, twin}))

    def test_it_equals_the_tuple_of_its_values_and_no_dict(self) -> None:
        self.assertEqual(tuple(self.row), self.row)
        self.assertEqual(hash(tuple(self.row)), hash(self.row))
        self.assertNotEqual(self.named, self.row)
        self.assertNotEqual(factories.create_service(), self.row)

    def test_its_text_has_the_names(self) -> None:
        self.assertIn(f'host={self.row.host!r}', repr(self.row))
        self.assertIn(f'host={self.row.host!r}', pprint.pformat(self.row))

    def test_it_is_an_object_in_json(self) -> None:
        text = json.dumps(dict(self.row), default=str)
        self.assertEqual(self.row.keys(), list(json.loads(text)))
        for value, made in (
            (self.row, jsonutils.to_primitive(self.row)),
            ([self.row], jsonutils.to_primitive([self.row])[0]),
        ):
            self.assertEqual(self.row.keys(), list(made), value)
            self.assertEqual(self.row.host, made['host'])
        text = jsonutils.dumps(jsonutils.to_primitive([self.row]))
        self.assertEqual(self.row.host, jsonutils.loads(text)[0]['host'])

    def test_the_json_module_writes_a_tuple_as_a_list(self) -> None:
        # It looks for a tuple before it asks anybody; see user/web.rst.
        self.assertIsInstance(json.loads(jsonutils.dumps(self.row)), list)

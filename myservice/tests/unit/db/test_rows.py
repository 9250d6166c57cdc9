"""Rows say what they are: their annotations are the columns of the model."""

import typing

from myservice import db
from myservice.tests import base

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

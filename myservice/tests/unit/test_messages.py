"""What errors say of long lists, and what they keep of them."""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from myservice import db
from myservice import exception
from myservice.tests import base


class TestLists(base.TestCase):
    # How the annotations of fields that hold several values begin.
    SEVERAL = re.compile(r'(list|dict|tuple|set|frozenset)\b')

    def test_each_shows_ten_of_a_list_and_keeps_all(self) -> None:
        names = [f'name {number:03}' for number in range(100)]
        shown = 0
        for kind, fields in self.kinds():
            several = {
                field: dict.fromkeys(names, 1)
                if annotation.__origin__ is dict
                else names
                for field, annotation in fields.items()
                if self.SEVERAL.match(str(annotation))
            }
            error = kind(**dict.fromkeys(fields, 'x') | several)
            for field, value in several.items():
                self.assertEqual(value, getattr(error, field))
            if any(f'{{{field}}}' in kind.message for field in several):
                self.assertIn('name 009', str(error))
                self.assertIn(' … and 90 more', str(error))
                shown += 1
            self.assertNotIn('name 010', str(error))
        self.assertNotEqual(0, shown)

    def test_a_list_in_what_was_expected_is_shown_as_short(self) -> None:
        names = tuple(f'name {number:03}' for number in range(100))
        for wanted in (names, [*names], db.api.Not(names)):
            expected = {'name': wanted}
            error = exception.ResourceConflict(
                resource_id='r', expected=expected, actual={'name': 'x'}
            )
            self.assertIs(expected, error.expected)
            self.assertIn("'name 009', … and 90 more)", str(error))
            self.assertNotIn('name 010', str(error))

    def kinds(self) -> Iterator[tuple[type[Any], dict[str, Any]]]:
        """Return each class of errors, and its fields with their types."""
        for _, kind in inspect.getmembers(exception, inspect.isclass):
            if issubclass(kind, exception.MyServiceError):
                fields = typing.get_type_hints(kind)
                fields.pop('message')
                yield kind, fields

"""Text that means something to somebody: stored as it is, or refused."""

from collections.abc import Callable
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.db.operation import new_id
from myservice.tests import base

STORED = [
    "it's",
    '"quoted"',
    '`quoted`',
    '%',
    '%s %(id)s %%',
    ':id ? $1 {} {0}',
    '_%',
    '\\',
    "\\'; DROP TABLE services; --",
    "' OR '1'='1",
    'blank at the end ',
    ' blank at the start',
    'tab\tand\nline\r\n',
    'Ünïcode',
    'U\u0308 of two characters',
    '\ufeffmark',
    '\U0001f600',
    '\U0001f600' * 255,
    'x' * 255,
]
REFUSED = [
    'x' * 256,
    'NUL\0',
    'half of a pair \ud800',
    'x' * 10_000_000,
]

SERVICE = ('host', 'binary', 'topic', 'availability_zone', 'disabled_reason')
RESOURCE = ('name', 'kind', 'status')

Write = Callable[[str], Callable[[], Any]]


class TestText(base.DatabaseTestCase):
    def fields(self) -> dict[str, Write]:
        """Return field to what writes a text, and returns what reads it."""
        return {
            **{name: self.service(name) for name in SERVICE},
            **{name: self.resource(name) for name in RESOURCE},
            'project_id': self.project,
            'class_name': self.quota_class,
            'metadata key': self.metadata_key,
            'metadata value': self.metadata_value,
            'tag': self.tag,
        }

    def service(self, name: str) -> Write:
        def write(text: str) -> Callable[[], Any]:
            values = {'host': name, 'binary': new_id(), name: text}
            row = db.api.service_create(self.context, values)
            return lambda: db.api.service_get(self.context, row.id)[name]

        return write

    def resource(self, name: str) -> Write:
        def write(text: str) -> Callable[[], Any]:
            values = {'project_id': 'p', name: text}
            row = db.api.resource_create(self.context, values)
            return lambda: db.api.resource_get(self.context, row.id)[name]

        return write

    def project(self, text: str) -> Callable[[], Any]:
        ids = db.api.quota_reserve(
            self.context, {'resources': 1}, project_id=text
        )
        db.api.reservation_commit(self.context, ids, project_id=text)
        db.api.quota_create(self.context, text, 'gigabytes', 7)
        mine = context.RequestContext(project_id=text)
        db.api.resource_create(mine, {'name': 'mine'})
        self.assertEqual(
            [text], [row.project_id for row in db.api.resource_get_all(mine)]
        )
        usages = db.api.quota_usage_get_all(self.context, text)
        self.assertEqual(2, usages['resources']['in_use'])
        row = db.api.quota_get(self.context, text, 'gigabytes')
        return lambda: row.project_id

    def quota_class(self, text: str) -> Callable[[], Any]:
        db.api.quota_class_create(self.context, text, 'gigabytes', 7)
        row = db.api.quota_class_get(self.context, text, 'gigabytes')
        return lambda: row.class_name

    def metadata_key(self, text: str) -> Callable[[], Any]:
        return lambda: next(iter(self.metadata({text: 'x'})))

    def metadata_value(self, text: str) -> Callable[[], Any]:
        return lambda: self.metadata({'x': text})['x']

    def metadata(self, metadata: dict[str, str]) -> dict[str, str]:
        values = {'project_id': 'p', 'metadata': metadata}
        row = db.api.resource_create(self.context, values)
        found = db.api.resource_get_all(self.context, {'metadata': metadata})
        self.assertIn(row.id, [each.id for each in found])
        return db.api.resource_metadata_get(self.context, row.id)

    def tag(self, text: str) -> Callable[[], Any]:
        values = {'project_id': 'p', 'tags': [text]}
        row = db.api.resource_create(self.context, values)
        for filters in (
            {'tags': [text]},
            {'tags-any': [text, 'x']},
            {'id': row.id, 'not-tags': [text, 'x']},
            {'id': row.id, 'not-tags-any': [f'{text[:254]}.']},
        ):
            found = db.api.resource_get_all(self.context, filters)
            self.assertEqual([row.id], [each.id for each in found])
        return lambda: db.api.resource_tags_get(self.context, row.id)[0]

    def store(self, write: Write, text: str) -> Any:
        """Write a text, and read it."""
        return write(text)()

    def setUp(self) -> None:
        super().setUp()
        self.database.conf.set_override(
            'default_limits', {'resources': -1, 'gigabytes': -1}, 'quota'
        )

    def test_every_field_stores_it_exactly(self) -> None:
        for field, write in self.fields().items():
            for whole in STORED:
                text = whole[:64] if field == 'status' else whole
                self.assertEqual(text, self.store(write, text), field)

    def test_every_field_refuses_what_no_server_could_store(self) -> None:
        for field, write in self.fields().items():
            for text in REFUSED:
                error = self.assertRaises(
                    exception.InvalidInput, self.store, write, text
                )
                self.assertTrue(len(str(error)) < 500, field)

    def test_filters_find_it_and_nothing_else(self) -> None:
        for text in STORED:
            db.api.resource_create(
                self.context, {'project_id': 'p', 'name': text}
            )
        for wanted in (
            lambda text: text,
            lambda text: [text],
            db.api.StartsWith,
            db.api.Contains,
        ):
            for text in STORED:
                found = {
                    row.name
                    for row in db.api.resource_get_all(
                        self.context, {'name': wanted(text)}
                    )
                }
                expected = {text}
                if wanted is db.api.StartsWith:
                    expected = {t for t in STORED if t.startswith(text)}
                if wanted is db.api.Contains:
                    expected = {t for t in STORED if text in t}
                self.assertEqual(expected, found)

    def test_an_id_that_is_none_finds_nothing(self) -> None:
        for text in STORED:
            for get, error in (
                (db.api.service_get, exception.ServiceNotFound),
                (db.api.resource_get, exception.ResourceNotFound),
            ):
                self.assertRaises(error, get, self.context, text)
            self.assertRaises(
                exception.MarkerNotFound,
                db.api.resource_get_all,
                self.context,
                marker=text,
            )

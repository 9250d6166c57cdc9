"""Lists: filters, order, pages; each row once over a whole walk."""

import datetime
import itertools
import random
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.operation import new_id
from myservice.db.service import _LISTING
from myservice.tests import base
from myservice.tests import factories

DIRECTIONS = (
    'asc',
    'desc',
    'asc-nullsfirst',
    'asc-nullslast',
    'desc-nullsfirst',
    'desc-nullslast',
)


def make_services(connection: sa.Connection, count: int) -> None:
    """Insert services with many equal values, and NULL where it can be."""
    chance = random.Random(count)
    start = datetime.datetime(2026, 1, 1)

    def moment() -> datetime.datetime:
        return start + datetime.timedelta(
            seconds=chance.randrange(50), microseconds=chance.randrange(3)
        )

    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.7 else None

    rows = [
        {
            'id': new_id(),
            'host': f'host-{number}',
            'binary': f'binary-{chance.randrange(5)}',
            'topic': maybe(f'topic-{chance.randrange(5)}'),
            'availability_zone': maybe(f'Zone-{chance.randrange(3)}'),
            'version': chance.randrange(4),
            'created_at': moment(),
            'updated_at': maybe(moment()),
            'last_seen_at': maybe(moment()),
        }
        for number in range(count)
    ]
    chance.shuffle(rows)
    for start_row in range(0, count, 5000):
        connection.execute(
            sa.insert(models.Service.__table__),
            rows[start_row : start_row + 5000],
        )


def in_order(
    rows: list[Any], keys: list[str], directions: list[str]
) -> list[str]:
    """Sort rows as the database should, the slow and certain way."""
    ordered = list(rows)
    pairs = [*zip(keys, directions, strict=True), ('id', directions[0])]
    for key, direction in reversed(pairs):
        descending = direction.startswith('desc')
        nulls_first = direction.endswith('nullsfirst') or direction == 'asc'

        def place(row: Any, key: str = key) -> Any:
            value = row[key]
            return value.encode() if isinstance(value, str) else value

        some = [row for row in ordered if row[key] is not None]
        none = [row for row in ordered if row[key] is None]
        some.sort(key=place, reverse=descending)
        ordered = none + some if nulls_first else some + none
    return [row.id for row in ordered]


class TestPages(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        with self.database.engine().begin() as connection:
            make_services(connection, 150)
        self.rows = db.api.service_get_all(self.context)

    def walk(self, limit: int, **arguments: Any) -> list[str]:
        ids: list[str] = []
        while True:
            page = db.api.service_get_all(
                self.context,
                limit=limit,
                marker=ids[-1] if ids else None,
                **arguments,
            )
            ids += [row.id for row in page]
            if len(page) < limit:
                return ids

    def check(
        self, keys: list[str], directions: list[str], limit: int
    ) -> None:
        expected = in_order(self.rows, keys, directions)
        arguments = {'sort_keys': keys, 'sort_dirs': directions}
        whole = db.api.service_get_all(self.context, **arguments)
        self.assertEqual(expected, [row.id for row in whole])
        self.assertEqual(
            expected,
            self.walk(limit, **arguments),
            f'{keys} {directions}',
        )

    def test_every_key_in_every_direction(self) -> None:
        for key in _LISTING.sort_keys:
            for direction in DIRECTIONS:
                self.check([key], [direction], 13)

    def test_two_keys_in_every_direction(self) -> None:
        for first, second in (
            ('topic', 'availability_zone'),
            ('version', 'updated_at'),
            ('availability_zone', 'binary'),
        ):
            for pair in itertools.product(DIRECTIONS, repeat=2):
                self.check([first, second], list(pair), 29)

    def test_three_keys(self) -> None:
        self.check(
            ['availability_zone', 'topic', 'last_seen_at'],
            ['desc-nullsfirst', 'asc-nullslast', 'desc'],
            11,
        )

    def test_the_first_direction_fills_those_left_out(self) -> None:
        self.assertEqual(
            in_order(self.rows, ['version', 'topic'], ['desc', 'desc']),
            [
                row.id
                for row in db.api.service_get_all(
                    self.context,
                    sort_keys=['version', 'topic'],
                    sort_dirs=['desc'],
                )
            ],
        )

    def test_pages_with_filters(self) -> None:
        filters = {'binary': ['binary-1', 'binary-2'], 'topic': 'topic-3'}
        expected = [
            row
            for row in self.rows
            if row.binary in ('binary-1', 'binary-2')
            and row.topic == 'topic-3'
        ]
        self.assertTrue(expected)
        for direction in DIRECTIONS:
            self.assertEqual(
                in_order(expected, ['updated_at'], [direction]),
                self.walk(
                    2,
                    filters=filters,
                    sort_keys=['updated_at'],
                    sort_dirs=[direction],
                ),
            )

    def test_limits(self) -> None:
        def get(limit: int | None) -> int:
            return len(db.api.service_get_all(self.context, limit=limit))

        self.assertEqual(
            [0, 1, 150, 150], [get(limit) for limit in (0, 1, 1000, None)]
        )

    def test_a_marker_that_was_deleted_still_marks_its_place(self) -> None:
        ordered = in_order(self.rows, ['topic'], ['asc'])
        for position in (10, 100):
            marker = ordered[position]
            db.api.service_destroy(self.context, marker)
            page = db.api.service_get_all(
                self.context, limit=5, marker=marker, sort_keys=['topic']
            )
            self.assertEqual(
                ordered[position + 1 : position + 6],
                [row.id for row in page],
            )

    def test_a_marker_that_never_was_is_not_found(self) -> None:
        error = self.assertRaises(
            exception.MarkerNotFound,
            db.api.service_get_all,
            self.context,
            marker='x',
        )
        self.assertEqual('x', error.marker)

    def test_a_walk_misses_nothing_while_rows_come_and_go(self) -> None:
        stay = set(in_order(self.rows, ['host'], ['asc'])[::2])
        go = [row.id for row in self.rows if row.id not in stay]
        seen: list[str] = []
        while True:
            page = db.api.service_get_all(
                self.context,
                limit=7,
                marker=seen[-1] if seen else None,
                sort_keys=['host'],
            )
            if not page:
                break
            seen += [row.id for row in page]
            for _ in range(min(3, len(go))):
                db.api.service_destroy(self.context, go.pop())
            factories.create_service()
        self.assertEqual(len(seen), len(set(seen)))
        self.assertEqual(set(), stay - set(seen))


class TestFilters(base.DatabaseTestCase):
    def hosts(self, filters: dict[str, Any]) -> list[str]:
        rows = db.api.service_get_all(
            self.context, filters=filters, sort_keys=['host']
        )
        return [row.host for row in rows]

    def test_each_filter(self) -> None:
        factories.create_service(host='a', binary='x', topic='t')
        factories.create_service(host='b', binary='y', disabled=True)
        factories.create_service(
            host='c', binary='y', availability_zone='z', forced_down=True
        )
        for filters, hosts in (
            ({}, 'abc'),
            ({'host': 'a'}, 'a'),
            ({'host': 'A'}, ''),
            ({'host': ['a', 'c', 'nobody']}, 'ac'),
            ({'host': []}, ''),
            ({'binary': 'y'}, 'bc'),
            ({'topic': 't'}, 'a'),
            ({'availability_zone': 'z'}, 'c'),
            ({'disabled': True}, 'b'),
            ({'disabled': False}, 'ac'),
            ({'is_up': True}, 'ab'),
            ({'is_up': False}, 'c'),
            ({'binary': 'y', 'is_up': False}, 'c'),
            ({'binary': None, 'host': None}, 'abc'),
        ):
            self.assertEqual(list(hosts), self.hosts(filters), filters)

    def test_a_walk_over_deleted_rows(self) -> None:
        for _ in range(5):
            made = factories.create_service(host='h')
            db.api.service_destroy(self.context, made.id)
        living = factories.create_service(host='h')
        for read_deleted, count in (('no', 1), ('only', 5), ('yes', 6)):
            reader = context.get_admin_context(read_deleted=read_deleted)
            ids: list[str] = []
            while page := db.api.service_get_all(
                reader,
                limit=2,
                marker=ids[-1] if ids else None,
                sort_keys=['host'],
            ):
                ids += [row.id for row in page]
            self.assertEqual(count, len(set(ids)))
            self.assertEqual(count, len(ids))
            self.assertEqual(read_deleted != 'only', living.id in ids)

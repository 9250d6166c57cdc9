"""No public function makes more calls of Python functions than it did."""

import functools
from typing import Any
from unittest import mock

from myservice import db
from myservice.tests import base
from myservice.tests.unit.db import call_counts


class TestCounts(base.DatabaseTestCase):
    def test_they_are_as_they_are_recorded(self) -> None:
        recorded = call_counts.recorded()
        if call_counts.PYTHON not in recorded:
            self.skipTest(
                f'no counts of Python {call_counts.PYTHON} are recorded: '
                + call_counts.RECORD
            )
        lines = call_counts.differences(
            recorded[call_counts.PYTHON].get(self.backend, {}),
            call_counts.measure(self.database),
        )
        if lines:
            lines.append(f'Where that is right: {call_counts.RECORD}')
            self.fail('\n'.join(lines))


class TestMeasuring(base.DatabaseTestCase):
    def test_what_has_not_changed_has_the_same_count_again(self) -> None:
        names = ['service_get', 'service_create', 'resource_claim_next']
        counts = call_counts.measure(self.database, names)
        self.assertEqual(names, list(counts))
        self.assertEqual(counts, call_counts.measure(self.database, names))

    def test_a_function_that_does_more_is_named(self) -> None:
        names = ['quota_get', 'service_get']
        before = call_counts.measure(self.database, names)
        more = before['service_get'] // 5

        @functools.wraps(db.api.service_get)
        def slower(*args: Any) -> Any:
            for number in range(more):
                abs(number)
            return service_get(*args)

        service_get = db.api.service_get
        with mock.patch.object(db.api, 'service_get', slower):
            now = call_counts.measure(self.database, names)
        worse = now['service_get'] / before['service_get'] - 1
        # The wrapper is a call, too.
        self.assertEqual(before['service_get'] + more + 1, now['service_get'])
        self.assertEqual(
            [
                f'service_get made {before["service_get"]} calls, '
                f'now it makes {now["service_get"]}: {worse:+.1%}'
            ],
            call_counts.differences(before, now),
        )


class TestComparison(base.TestCase):
    def test_up_to_ten_per_cent_either_way_are_no_difference(self) -> None:
        for now in (450, 500, 550):
            self.assertEqual(
                [], call_counts.differences({'f': 500}, {'f': now})
            )

    def test_more_than_that_is_one(self) -> None:
        self.assertEqual(
            ['f made 500 calls, now it makes 551: +10.2%'],
            call_counts.differences(
                {'e': 500, 'f': 500}, {'e': 500, 'f': 551}
            ),
        )

    def test_a_gain_is_one_so_that_it_is_kept(self) -> None:
        self.assertEqual(
            ['f made 500 calls, now it makes 400: -20.0%'],
            call_counts.differences({'f': 500}, {'f': 400}),
        )

    def test_a_function_without_a_count_is_one(self) -> None:
        self.assertEqual(
            ['f makes 500 calls; none are recorded'],
            call_counts.differences({}, {'f': 500}),
        )

    def test_a_count_without_a_function_is_one(self) -> None:
        self.assertEqual(
            ['f is recorded, and no public function'],
            call_counts.differences({'f': 500}, {}),
        )

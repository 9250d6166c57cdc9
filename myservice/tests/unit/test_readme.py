"""What the README shows holds: its example of quotas, and its map."""

import pathlib
import re
from typing import Any

import sqlalchemy as sa
import sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers import rest

import myservice
from myservice import context
from myservice import db
from myservice import fixtures
from myservice.db.quotas import counters
from myservice.tests import base

README = pathlib.Path(myservice.__file__).parents[1] / 'README.rst'


class TestMap(base.TestCase):
    def test_each_place_in_it_exists(self) -> None:
        _, _, text = README.read_text().partition('\nWhere things are\n===')
        places = re.findall('^``(.+?)``', text, re.MULTILINE)
        self.assertIn('myservice/db/api.py', places)
        for place in places:
            self.assertNotEqual([], [*README.parent.glob(place)], place)


class TestQuotas(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.QuotaCounters(**counters.registered()))
        self.namespace: dict[str, Any] = {'context': context, 'db': db}
        self.in_use: list[int] = []

    def test_nothing_is_to_be_corrected_after_any_of_its_steps(self) -> None:
        text = README.read_text()
        start, end = text.index('\nQuotas\n==='), text.index('\nWorkers\n===')
        document = sybil.Document.parse(
            str(README), rest.CodeBlockParser('python', PythonEvaluator())
        )
        document.namespace = self.namespace
        for example in document.examples():
            if start < example.region.start < end:
                example.evaluate()
                self.create_table()
                self.check_here()
        self.assertEqual([0, 1, 0], self.in_use)

    def create_table(self) -> None:
        """Create what the example has made, as a migration would."""
        table = self.namespace.get('SNAPSHOTS')
        bind = db.api.get_engine()
        if table is not None and not sa.inspect(bind).has_table(table.name):
            table.create(bind)
            self.addCleanup(table.drop, bind)

    def check_here(self) -> None:
        self.assertEqual({}, db.api.quota_usage_check(self.context, 'p1'))
        self.assertEqual({}, db.api.quota_usage_sync(self.context, 'p1'))
        usages = db.api.quota_usage_get_all(self.context, 'p1')
        self.in_use.append(usages['snapshots']['in_use'])

"""What the programs in tools/ print is so."""

import json
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import fixtures as plain_fixtures

import myservice
from myservice.tests import base

TOOLS = pathlib.Path(myservice.__file__).parents[1] / 'tools'

FILES = {
    'db/__init__.py': '',
    'db/api.py': """
        'Documented.'
        from myservice.db.low import rows
        from myservice.db.low.rows import get
        """,
    'db/low/rows.py': """
        from typing import Any
        from myservice.db.low import types

        def get(key: Any) -> Any:
            'Documented.'
            return key

        def put():
            pass
            pass
            pass
        """,
    'db/low/types.py': 'import sys\n',
    'tests/test_it.py': '',
}


class TestStructure(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        if not TOOLS.exists():
            self.skipTest('not in a source tree')
        self.root = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path
        )
        for name, text in FILES.items():
            path = self.root / 'myservice' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip())

    def run_it(self, *arguments: str) -> str:
        command = [sys.executable, str(TOOLS / 'structure.py'), *arguments]
        return subprocess.run(
            [*command, str(self.root)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run_it('--json'))
        return found

    def test_sizes(self) -> None:
        self.assertEqual(
            {
                'files': 4,
                'lines': 15,
                'longest file': 'myservice/db/low/rows.py, 11 lines',
                'functions': 2,
                'median length of a function': 3.0,
                '90th percentile of it': 4,
                'public modules, classes, functions': 6,
                'of them with a docstring': 2,
                'annotations with Any': 2,
            },
            self.figures()['sizes']['myservice/db'],
        )

    def test_imports(self) -> None:
        self.assertEqual(
            {
                'rooms': 2,
                'imports': 2,
                'between rooms': 1,
                'pairs of rooms': 1,
                'inside of a room': 1,
                'floors': 3,
                'rooms that import others': {'. -> low': 1},
            },
            self.figures()['imports of myservice/db'],
        )

    def test_a_person_reads_the_same(self) -> None:
        lines = [' '.join(line.split()) for line in self.run_it().splitlines()]
        self.assertIn('imports 2', lines)
        self.assertIn('1 . -> low', lines)
        self.assertEqual(3, sum('longest file' in line for line in lines))

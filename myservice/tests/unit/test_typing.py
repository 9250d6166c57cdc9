"""Users see our types: the package is marked, and their programs are checked.

What else is typed in myservice, ``tox -e pep8`` checks.
"""

import pathlib
import subprocess
import sys

import myservice
from myservice.tests import base

ROOT = pathlib.Path(myservice.__file__).parent


class TestUser(base.TestCase):
    def test_the_package_says_that_it_is_typed(self) -> None:
        self.assertTrue((ROOT / 'py.typed').exists())

    def test_a_program_is_checked_and_its_errors_are_found(self) -> None:
        checked = subprocess.run(
            [
                *(sys.executable, '-m', 'mypy', '--strict'),
                # Of the user's program alone, as if we were installed.
                *('--config-file', '', '--follow-imports', 'silent'),
                *('--cache-dir', '.mypy_cache/of_a_user'),
                'myservice/tests/user_program.py',
            ],
            cwd=ROOT.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, checked.returncode, checked.stdout)

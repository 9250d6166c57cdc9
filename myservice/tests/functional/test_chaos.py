"""Nothing is lost, doubled, or answered to the wrong caller: see chaos.py."""

import subprocess
import sys

from myservice.tests import servers
from myservice.tests.functional import base


class OnEachDatabase(base.ServerTestCase):
    def test_the_ledger_and_the_database_agree(self) -> None:
        module = 'myservice.tests.functional.chaos'
        process = subprocess.run(
            [sys.executable, '-m', module, self.database.connection],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        # Past what captures the output of tests: the figures are for people.
        name = type(self).__name__
        print(f'\n{name}: {process.stdout}', file=sys.__stderr__)
        self.assertEqual(0, process.returncode, process.stdout)


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL

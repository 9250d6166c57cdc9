"""Memory stays as it is, whatever values callers say: see soak.py."""

import subprocess
import sys

from myservice.tests import servers
from myservice.tests.functional import base

# In seconds; a run of ten minutes has narrower bounds.
_SECONDS = 30

# In MiB. A round writes and reads values of about two.
_GROWTH = 10


class OnEachDatabase(base.ServerTestCase):
    def test_memory_does_not_grow(self) -> None:
        process = subprocess.run(
            [
                sys.executable,
                '-m',
                'myservice.tests.functional.soak',
                self.database.connection,
                f'--seconds={_SECONDS}',
                f'--growth={_GROWTH}',
            ],
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

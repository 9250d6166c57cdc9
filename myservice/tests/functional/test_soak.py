"""Memory stays as it is, whatever values callers say: see soak.py."""

from myservice import servers
from myservice.tests.functional import base

# In seconds; a run of ten minutes has narrower bounds.
_SECONDS = 30

# In MiB. A round writes and reads values of about two.
_GROWTH = 10


class OnEachDatabase(base.ServerTestCase):
    def test_memory_does_not_grow(self) -> None:
        self.check_run('soak', f'--seconds={_SECONDS}', f'--growth={_GROWTH}')


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL

"""Nothing is lost, doubled, or answered to the wrong caller: see chaos.py."""

from myservice import servers
from myservice.tests.functional import base


class OnEachDatabase(base.ServerTestCase):
    def test_the_ledger_and_the_database_agree(self) -> None:
        self.check_run('chaos')


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL

"""A hundred thousand services: each row once in a walk, and no page slow."""

import time
from typing import Any

from myservice import db
from myservice import servers
from myservice.db.service import _LISTING
from myservice.tests.functional import base
from myservice.tests.unit.db.query import test_listing

ROWS = 100_000


class LastPage(base.ServerTestCase):
    def check(self) -> None:
        with self.database.engine().begin() as connection:
            test_listing.make_services(connection, ROWS)
            table = 'TABLE ' if self.backend == 'mysql' else ''
            connection.exec_driver_sql(f'ANALYZE {table}services')
        for key in _LISTING.sort_keys:
            for direction in ('asc', 'desc'):
                self.check_walk([key], [direction])

    def check_walk(self, keys: list[str], directions: list[str]) -> None:
        """Walk in big steps; the last page of 100 is read apart."""
        order = {'sort_keys': keys, 'sort_dirs': directions}
        seen: list[str] = []
        while page := self.page(5000, seen[-1] if seen else None, order):
            seen += [row.id for row in page]
        self.assertEqual(ROWS, len(seen), order)
        self.assertEqual(ROWS, len(set(seen)), order)
        first = self.time(lambda: self.page(100, None, order))
        last = self.time(lambda: self.page(100, seen[-101], order))
        page = self.page(100, seen[-101], order)
        self.assertEqual(seen[-100:], [row.id for row in page])
        print(
            f'{type(self).__name__} {keys[0]} {directions[0]}: '
            f'first page {first:.1f} ms, last {last:.1f} ms'
        )

    def page(self, limit: int, marker: str | None, order: Any) -> Any:
        return db.api.service_get_all(
            self.context, limit=limit, marker=marker, **order
        )

    def time(self, function: Any) -> float:
        best = 1e9
        for _ in range(5):
            started = time.perf_counter()
            function()
            best = min(best, (time.perf_counter() - started) * 1000)
        return best


class TestSQLite(LastPage):
    server_class = None

    def test_each_row_once(self) -> None:
        self.check()


class TestMariaDB(LastPage):
    server_class = servers.MariaDB

    def test_each_row_once(self) -> None:
        self.check()


class TestPostgreSQL(LastPage):
    server_class = servers.PostgreSQL

    def test_each_row_once(self) -> None:
        self.check()

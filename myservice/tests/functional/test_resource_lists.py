"""Lists of many resources: complete, in a bounded memory, no page slow.

As a program it prints the figures for any number of them::

    python -m myservice.tests.functional.test_resource_lists mariadb 1000000
"""

import argparse
import collections
import contextlib
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import fixtures
from myservice import servers
from myservice.db import models
from myservice.db.sql import dialects
from myservice.tests.functional import base

RESOURCES: Any = models.Resource.__table__

ROWS = 20_000
LIMIT = 100
PROJECT = 'project-1'
_SERVICE = "'service-'"

#: sort key and direction of what is measured
ORDERS = [
    ('created_at', 'desc'),
    ('name', 'asc'),
    ('name', 'desc'),
    ('updated_at', 'asc-nullsfirst'),
    ('updated_at', 'asc-nullslast'),
    ('updated_at', 'desc-nullsfirst'),
    ('updated_at', 'desc-nullslast'),
]

# Milliseconds that no one can answer for.
_NOISE = 0.25

#: filters that few rows pass
SELECTIVE = {'name': 'name-000000000395', 'service_id': 'service-7'}

Order = tuple[str, str]

# How each server says: a number as text of a length; two texts as one; some
# seconds after the year began; and the numbers from 1 on.
_SAID = {
    'mysql': {
        'text': "LPAD({}, {}, '0')",
        'joined': 'CONCAT({}, {})',
        'moment': "(TIMESTAMP'2026-01-01 00:00:00' + INTERVAL {} SECOND)",
        'numbers': 'seq_1_to_{}',
    },
    'postgresql': {
        'text': "LPAD(({})::text, {}, '0')",
        'joined': 'CONCAT({}, {})',
        'moment': "(TIMESTAMP '2026-01-01' + {} * INTERVAL '1 second')",
        'numbers': 'generate_series(1, {}::bigint) AS numbers (seq)',
    },
    'sqlite': {
        'text': "printf('%0{1}d', {0})",
        'joined': '({} || ({}))',
        'moment': "strftime('%Y-%m-%d %H:%M:%f000', '2026-01-01', "
        "{} || ' seconds')",
        'numbers': '(WITH RECURSIVE numbers (seq) AS (SELECT 1 UNION ALL '
        'SELECT seq + 1 FROM numbers WHERE seq < {}) SELECT * FROM numbers)',
    },
}


def make_resources(engine: sa.Engine, count: int) -> None:
    """Insert resources: ids in the order of creation, names in none.

    Half of them are of each of two projects. A third has no updated_at, one
    in 200 is held by one of 20 services; times and names come several times.
    ``size`` is a number of its own for each, from 1 on.

    :param engine: of an empty database
    :param count: how many
    """
    said = _SAID[dialects.backend_of(engine.dialect)]
    text, joined, moment = (
        said[name].format for name in ('text', 'joined', 'moment')
    )
    # In no order, and no two the same.
    mixed = '((seq * 7919) % 1000003)'
    columns = {
        'id': joined("'018f0000-0000-7000-8000-'", text('seq', 12)),
        'project_id': joined("'project-'", 'seq % 2'),
        'name': joined("'name-'", text(f'({mixed} / 20)', 12)),
        'created_at': moment('(seq / 4)'),
        'updated_at': 'CASE WHEN seq % 3 = 0 THEN NULL '
        f'ELSE {moment(f"({mixed} / 3)")} END',
        'service_id': 'CASE WHEN seq % 200 = 1 THEN '
        f'{joined(_SERVICE, "seq / 200 % 20")} ELSE NULL END',
        'size': 'seq',
        'status': "'available'",
        'generation': '0',
        'operation': "''",
        'deleted': "''",
    }
    values = ', '.join(columns.values())
    if dialects.backend_of(engine.dialect) == 'mysql':
        # Its / gives fractions.
        values = values.replace(' / ', ' DIV ')
    with engine.connect() as connection:
        # A % stands for itself then.
        plain = connection.execution_options(no_parameters=True)
        plain.exec_driver_sql(
            f'INSERT INTO resources ({", ".join(columns)}) '
            f'SELECT {values} FROM {said["numbers"].format(count)}'
        )
        connection.commit()
    analyse(engine)


def analyse(engine: sa.Engine) -> None:
    """Let a server learn what it has in the table."""
    table = 'TABLE ' if dialects.backend_of(engine.dialect) == 'mysql' else ''
    with engine.begin() as connection:
        connection.exec_driver_sql(f'ANALYZE {table}resources')
    # SQLite learns it as it connects.
    engine.dispose()


class Lists:
    """Lists of one project, as they are and as they travel.

    :param database: the database
    """

    def __init__(self, database: fixtures.Database) -> None:
        self.database = database
        self.context = context.RequestContext(
            project_id=PROJECT, is_admin=False
        )
        self.backend = dialects.backend_of(database.engine().dialect)

    def page(
        self,
        limit: int | None,
        marker: str | None = None,
        order: Order | None = None,
        **filters: Any,
    ) -> list[Any]:
        """Return a page."""
        return db.api.resource_get_all(
            self.context,
            filters,
            limit=limit,
            marker=marker,
            sort_keys=[order[0]] if order else None,
            sort_dirs=[order[1]] if order else None,
        )

    def walk(self, limit: int, order: Order) -> Iterator[list[Any]]:
        """Return one page after the other."""
        marker = None
        while page := self.page(limit, marker, order):
            yield page
            marker = page[-1].id

    def statement(self, read: Callable[[], Any]) -> tuple[str, Any]:
        """Return the statement that reads a page, which is the last one."""
        sent: list[tuple[str, Any]] = []

        def note(*arguments: Any) -> None:
            sent.append(arguments[2:4])

        engine = self.database.engine('read')
        event.listen(engine, 'before_cursor_execute', note)
        try:
            read()
        finally:
            event.remove(engine, 'before_cursor_execute', note)
        return sent[-1]

    def times(
        self, *statements: tuple[str, Any], turns: int = 15
    ) -> list[float]:
        """Return the median milliseconds of statements, in the driver.

        They take turns, so that what slows one slows the other.
        """
        times: list[list[float]] = [[] for _ in statements]
        with self.connection() as connection:
            cursor = connection.connection.cursor()
            for _ in range(turns + 3):
                for (sql, parameters), of_it in zip(
                    statements, times, strict=True
                ):
                    started = time.perf_counter()
                    cursor.execute(sql, parameters)
                    cursor.fetchall()
                    of_it.append(time.perf_counter() - started)
            cursor.close()
        # The first ones connect, prepare and fill the caches.
        return [statistics.median(of_it[3:]) * 1000 for of_it in times]

    @contextlib.contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """Connect as reads do."""
        with self.database.engine('read').connect() as connection:
            yield connection

    def examined(self, statement: tuple[str, Any]) -> int:
        """Return how many entries of the table a server looks at."""
        sql, parameters = statement
        with self.connection() as connection:
            if self.backend == 'mysql':
                return _handler_reads(connection, sql, parameters)
            plan = connection.exec_driver_sql(
                f'EXPLAIN (ANALYZE, FORMAT JSON) {sql}', parameters
            ).scalar()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        return int(_scanned(plan[0]['Plan']))


def _handler_reads(
    connection: sa.Connection, sql: str, parameters: Any
) -> int:
    connection.exec_driver_sql('FLUSH STATUS')
    connection.exec_driver_sql(sql, parameters).all()
    handler = {
        name: int(value)
        for name, value in connection.exec_driver_sql(
            "SHOW SESSION STATUS LIKE 'Handler_%%'"
        ).all()
    }
    # What is read of temporary tables, the parts of a UNION, is "rnd" too;
    # so would be a scan of the whole table.
    written = handler['Handler_tmp_write']
    scanned = handler['Handler_read_rnd'] + handler['Handler_read_rnd_next']
    from_table = max(scanned - 3 * written - 10, 0)
    return from_table + sum(
        handler[f'Handler_read_{kind}']
        for kind in ('first', 'key', 'last', 'next', 'prev')
    )


def _scanned(plan: dict[str, Any]) -> float:
    here = 0.0
    if 'Scan' in plan['Node Type'] and 'Relation Name' in plan:
        rows = (
            plan['Actual Rows']
            + plan.get('Rows Removed by Filter', 0)
            + plan.get('Rows Removed by Index Recheck', 0)
        )
        here = rows * plan['Actual Loops']
    return here + sum(_scanned(part) for part in plan.get('Plans', []))


class Figures:
    """What is measured of one order.

    :param lists: the lists
    :param order: the order
    :param marker: the id before the last page
    """

    def __init__(self, lists: Lists, order: Order, marker: str) -> None:
        first = lists.statement(lambda: lists.page(LIMIT, None, order))
        last = lists.statement(lambda: lists.page(LIMIT, marker, order))
        self.order = order
        self.first, self.last = lists.times(first, last)
        self.examined = [0, 0]
        if lists.backend != 'sqlite':
            self.examined = [lists.examined(first), lists.examined(last)]

    @property
    def is_even(self) -> bool:
        """Whether the last page takes as long as the first, or nearly."""
        return self.last <= 1.5 * self.first + _NOISE

    def __str__(self) -> str:
        return (
            f'{" ".join(self.order):26} first {self.first:6.2f} ms, '
            f'last {self.last:6.2f} ms, ratio '
            f'{self.last / self.first:4.2f}, examined {self.examined}'
        )


class Selective:
    """A filter that few rows pass, with each order and without one.

    :param lists: the lists
    :param name: of the filter
    :param value: its value
    """

    def __init__(self, lists: Lists, name: str, value: Any) -> None:
        wanted = {name: value}
        self.name = name
        self.rows = {
            order: sorted(
                row.id for row in lists.page(None, None, order, **wanted)
            )
            for order in (None, *ORDERS)
        }
        statements = {
            order: lists.statement(
                lambda order=order: lists.page(LIMIT, None, order, **wanted)
            )
            for order in (None, *ORDERS)
        }
        self.times = dict(
            zip(statements, lists.times(*statements.values()), strict=True)
        )

    @property
    def is_even(self) -> bool:
        """Whether no order takes longer than none, or hardly."""
        return max(self.times.values()) <= 1.5 * self.plain + _NOISE

    @property
    def plain(self) -> float:
        """Milliseconds of the list by id."""
        return self.times[None]

    def __str__(self) -> str:
        sorted_by = ', '.join(
            f'{" ".join(order)} {taken:.2f}'
            for order, taken in self.times.items()
            if order is not None
        )
        return (
            f'{self.name} ({len(self.rows[None])} rows): '
            f'{self.plain:.2f} ms; by {sorted_by}'
        )


def memory() -> float:
    """Return how much memory this process has, in MiB."""
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


class Walk:
    """A walk through all of a list.

    :param lists: the lists
    :param order: in which order
    :param limit: how many rows a page has
    :param count: how many rows there were ever made, of all projects
    """

    def __init__(
        self, lists: Lists, order: Order, limit: int, count: int
    ) -> None:
        # Not a list of rows: what grows here would be taken for a leak.
        self.times_seen = bytearray(count + 1)
        self.end: collections.deque[str] = collections.deque(maxlen=LIMIT + 1)
        before = 0.0
        for number, page in enumerate(lists.walk(limit, order)):
            for row in page:
                self.times_seen[row.size] += 1
                self.end.append(row.id)
            if number == 2:
                before = memory()
        self.grown = memory() - before

    @property
    def marker(self) -> str:
        """The id before the last page."""
        return self.end[0]


class ListsTestCase(base.ServerTestCase):
    rows = ROWS

    def setUp(self) -> None:
        super().setUp()
        make_resources(self.database.engine(), self.rows)
        self.lists = Lists(self.database)

    def expected(self) -> bytearray:
        """Return how often a walk should come by each size."""
        return bytearray(number % 2 for number in range(self.rows + 1))


class Complete(ListsTestCase):
    """What a walk gives."""

    def test_a_walk_gives_each_row_once_and_memory_stays(self) -> None:
        for order in ORDERS:
            done = Walk(self.lists, order, 500, self.rows)
            self.assertEqual(self.expected(), done.times_seen, order)
            self.assertTrue(done.grown < 16, (order, done.grown))

    def test_a_walk_in_any_order_is_sorted(self) -> None:
        for name, direction in ORDERS:
            values = [
                getattr(row, name)
                for page in self.lists.walk(2000, (name, direction))
                for row in page
            ]
            there = [value for value in values if value is not None]
            down = direction.startswith('desc')
            self.assertEqual(sorted(there, reverse=down), there)
            nulls = [None] * (len(values) - len(there))
            self.assertEqual(
                [*nulls, *there]
                if direction.endswith('nullsfirst')
                else [*there, *nulls],
                values,
            )

    def test_what_lives_all_the_time_comes_once_beside_changes(self) -> None:
        self.database.conf.set_override(
            'default_limits', {'resources': -1, 'gigabytes': -1}, 'quota'
        )
        for order in (
            ('created_at', 'desc'),
            ('name', 'asc'),
            ('updated_at', 'asc-nullslast'),
            ('updated_at', 'desc-nullsfirst'),
        ):
            self.check_beside_changes(order)

    def walk_beside(
        self, order: Order, changed: threading.Semaphore
    ) -> Iterator[str]:
        for page in self.lists.walk(100, order):
            yield from (row.id for row in page)
            # However fast the walk is, something changes between its pages.
            changed.acquire(timeout=30)

    def check_beside_changes(self, order: Order) -> None:
        """Walk while others insert and destroy."""
        before = {
            row.id: row
            for page in self.lists.walk(5000, order)
            for row in page
        }
        is_over = threading.Event()
        changed = threading.Semaphore(0)
        destroyed: set[str] = set()
        created: set[str] = set()

        def change(number: int) -> None:
            ctx = context.RequestContext(project_id=PROJECT)
            mine = sorted(before)[number::2]
            chance = random.Random(number)
            while not is_over.is_set():
                victim = chance.choice(mine)
                if victim not in destroyed:
                    destroyed.add(victim)
                    db.api.resource_destroy(ctx, victim, force=False)
                name = f'name-{chance.randrange(1000):012}'
                created.add(db.api.resource_create(ctx, {'name': name}).id)
                changed.release()

        def work(number: int) -> list[str]:
            if number < 2:
                change(number)
                return []
            try:
                return list(self.walk_beside(order, changed))
            finally:
                is_over.set()

        for row in before.values():
            if row.service_id is not None:
                # Nobody may destroy it.
                destroyed.add(row.id)
        held = set(destroyed)
        results = self.in_threads(3, work)
        for each in results:
            self.assertNotIsInstance(each, Exception, results)
        seen = results[-1]
        self.assertEqual(len(seen), len(set(seen)), order)
        lived = before.keys() - (destroyed - held)
        self.assertEqual(set(), lived - set(seen), order)
        self.assertEqual(set(), set(seen) - before.keys() - created, order)
        changes = len(destroyed - held), len(created)
        self.assertTrue(min(changes) > 0, changes)
        print(
            f'{type(self).__name__} {" ".join(order)}: {changes[0]} were '
            f'destroyed and {changes[1]} created during the walk'
        )


class Fast(ListsTestCase):
    """What the pages of a walk cost."""

    most_examined = 3 * LIMIT

    def test_no_page_reads_much_more_than_it_has(self) -> None:
        # How long they take is for the program: other work disturbs it.
        greedy = []
        for order in ORDERS:
            done = Walk(self.lists, order, 5000, self.rows)
            figures = Figures(self.lists, order, done.marker)
            print(f'{type(self).__name__}: {figures}')
            examined = max(figures.examined)
            if examined > self.most_examined:
                greedy.append(str(figures))
        self.assertEqual([], greedy)


class Selected(ListsTestCase):
    """What a list costs of which an index finds the few rows."""

    def test_a_filter_finds_the_same_rows_in_every_order(self) -> None:
        for name, value in SELECTIVE.items():
            selective = Selective(self.lists, name, value)
            print(f'{type(self).__name__}: {selective}')
            found = selective.rows[None]
            self.assertTrue(found)
            for order, ids in selective.rows.items():
                self.assertEqual(found, ids, order)


class TestCompleteSQLite(Complete):
    server_class = None


class TestCompleteMariaDB(Complete):
    server_class = servers.MariaDB


class TestCompletePostgreSQL(Complete):
    server_class = servers.PostgreSQL


class TestFastSQLite(Fast):
    server_class = None


class TestFastMariaDB(Fast):
    server_class = servers.MariaDB


class TestFastPostgreSQL(Fast):
    server_class = servers.PostgreSQL
    # Where few ids are left, its planner takes the rest of the primary key
    # and filters: as fast as the first page, and no more for a million rows.
    most_examined = 7 * LIMIT


class TestSelectedSQLite(Selected):
    server_class = None

    def test_no_order_is_read_by_its_own_index(self) -> None:
        # As in every database that nobody has analysed.
        engine = self.database.engine()
        with engine.begin() as connection:
            connection.exec_driver_sql('DELETE FROM sqlite_stat1')
        engine.dispose()
        for name, value in SELECTIVE.items():
            for order in (None, *ORDERS):
                sql, parameters = self.lists.statement(
                    lambda order=order, wanted={name: value}: self.lists.page(
                        LIMIT, None, order, **wanted
                    )
                )
                with self.lists.connection() as connection:
                    plan = connection.exec_driver_sql(
                        f'EXPLAIN QUERY PLAN {sql}', parameters
                    ).all()
                self.assertIn(f'{name}=?', str(plan), (order, plan))


class TestSelectedMariaDB(Selected):
    server_class = servers.MariaDB


class TestSelectedPostgreSQL(Selected):
    server_class = servers.PostgreSQL


# The caches that a server of so many rows would have.
_SETTINGS: dict[str, dict[str, Any]] = {
    'mariadb': {'innodb_buffer_pool_size': '1G', 'innodb_log_file_size': '1G'},
    'postgresql': {'shared_buffers': '512MB', 'max_wal_size': '4GB'},
}


def main() -> None:
    """Print the figures for a number of resources."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('backend', choices=['sqlite', *servers.SERVERS])
    parser.add_argument('rows', type=int)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = None
        if arguments.backend != 'sqlite':
            make = servers.SERVERS[arguments.backend]
            settings = _SETTINGS[arguments.backend]
            url = stack.enter_context(make(**settings)).url
        database = stack.enter_context(fixtures.Database(url))
        started = time.monotonic()
        models.Base.metadata.create_all(database.engine())
        make_resources(database.engine(), arguments.rows)
        print(
            f'{arguments.backend}: {arguments.rows} resources in '
            f'{time.monotonic() - started:.0f} s',
            flush=True,
        )
        report(Lists(database), arguments.rows)


def report(lists: Lists, rows: int) -> None:
    """Print what the tests check."""
    for order in ORDERS:
        started = time.monotonic()
        done = Walk(lists, order, 5000, rows)
        seconds = time.monotonic() - started
        even = bytes(number % 2 for number in range(rows + 1))
        print(
            Figures(lists, order, done.marker),
            f'walk {seconds:.0f} s, each row once: '
            f'{bytes(done.times_seen) == even}, '
            f'memory {done.grown:+.1f} MiB',
            flush=True,
        )
    for name, value in SELECTIVE.items():
        print(Selective(lists, name, value), flush=True)


if __name__ == '__main__':
    main()

"""How fast pairs of quota_reserve and reservation_commit are.

Three ways do the same work on one project, the hot rows of which everybody
wants:

- "layer": db.api.quota_reserve and db.api.reservation_commit;
- "driver": the bare driver, which sends the statements of the layer: what is
  left to gain;
- "lock-read-write": the usual way, by oslo.db's stock enginefacade and the
  ORM: SELECT ... FOR UPDATE, compare in Python, write.
"""

import argparse
import collections
import contextlib
import json
import logging
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import common
import quota_ways
import sqlalchemy as sa
from quota_ways import Driver
from quota_ways import Layer
from quota_ways import LockReadWrite
from rich.markup import escape

from myservice import context
from myservice import db
from myservice.db import models
from myservice.tests import fixtures
from myservice.tests import proxy

METHOD = (
    'A pair reserves 1 of 2 resources of one project and commits it, each in '
    'a transaction of its own. All threads of a row of the table want the '
    'same two rows of quota_usages; a single one wants them alone.',
    'Client and server share the cores of this machine, over loopback. The '
    'threads are of one Python process. Servers do not fsync: MariaDB has '
    'innodb_flush_log_at_trx_commit=2, PostgreSQL fsync=off.',
    'The ways take turns on the same server, each on a project of its own. '
    'Connections are open before the clock starts, and the pools large '
    'enough for all threads. pairs/s counts what ended in time; p50, p99 and '
    'max also what was under way by then.',
    '"driver" sends what the layer sent, over a connection a thread, checks '
    'the numbers of rows, and does not retry. "lock-read-write" has the '
    "isolation that is the server's default (MariaDB: REPEATABLE READ), "
    'wrap_db_retry(max_retries=20, retry_on_deadlock=True), and reads no '
    'limits from the database, which the layer does.',
    'Errors are those that a caller got, retries the attempts that were '
    'repeated; both also before the clock started. At the end in_use was '
    'what the pairs of each way add up to, or the program had failed.',
    'Round trips are counted by a proxy between client and server, in the '
    'steady state: connected, prepared, and with usages that exist.',
)


@contextlib.contextmanager
def database(url: str, connections: int) -> Iterator[fixtures.Database]:
    """Let the layer use a database, with limits that are never met."""
    with fixtures.Database(url, max_pool_size=connections) as used:
        limits = dict.fromkeys(quota_ways.RESOURCES, quota_ways.LIMIT)
        used.conf.set_override('default_limits', limits, group='quota')
        yield used


class Variant:
    """What is measured on one server.

    :param name: a key of common.VARIANTS
    :param url: the URL of its database
    :param arguments: those of the command line
    """

    def __init__(
        self, name: str, url: str, arguments: argparse.Namespace
    ) -> None:
        self._name = name
        self._url = url
        self._arguments = arguments
        self._done: collections.Counter[str] = collections.Counter()

    def run(self) -> list[dict[str, Any]]:
        """Return the figures of all ways and numbers of threads."""
        connections = max(self._arguments.threads)
        usual = LockReadWrite(self._url, connections)
        with contextlib.closing(usual), database(self._url, connections) as on:
            for way in (Layer.name, LockReadWrite.name):
                quota_ways.layer_pair(context.get_admin_context(), way)
            driver = Driver(on.engine())
            ways: list[common.Way] = [Layer(), driver, usual]
            before = _in_use(on)
            figures = [
                row
                for threads in self._arguments.threads
                for row in self._measure(ways, threads)
            ]
            self._check(before, _in_use(on))
            return figures

    def _measure(
        self, ways: list[common.Way], threads: int
    ) -> list[dict[str, Any]]:
        tallies = {way.name: common.Tally() for way in ways}
        for turn in range(self._arguments.rounds):
            # Another one is the first each time.
            first = turn % len(ways)
            for way in ways[first:] + ways[:first]:
                self._measure_once(way, threads, turn, tallies[way.name])
        where = {'database': self._name, 'threads': threads}
        return [
            {**where, 'way': name, **tally.figures()}
            for name, tally in tallies.items()
        ]

    def _measure_once(
        self, way: common.Way, threads: int, turn: int, tally: common.Tally
    ) -> None:
        rounds = self._arguments.rounds
        common.progress(
            f'{self._name}, threads: {threads}, '
            f'round {turn + 1} of {rounds}: {way.name}'
        )
        seconds = self._arguments.seconds / rounds
        part = common.Slice(way, threads, seconds, tally)
        part.run()
        self._done[way.name] += part.done

    def _check(
        self, before: dict[tuple[str, str], int], now: dict[Any, int]
    ) -> None:
        for (way, resource), in_use in before.items():
            expected = in_use + self._done[way]
            if now[way, resource] != expected:
                raise RuntimeError(
                    f'{self._name}, {way}: {now[way, resource]} of '
                    f'{resource} are in use, but {expected} were committed'
                )


def _in_use(on: fixtures.Database) -> dict[tuple[str, str], int]:
    usage = models.QuotaUsage
    with on.engine().connect() as connection:
        return {
            (row.project_id, row.resource): row.in_use
            for row in connection.execute(
                sa.select(usage.project_id, usage.resource, usage.in_use)
            )
        }


# Name of a call to what precedes it, and the call, which takes that.
_Calls = dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]


class RoundTrips:
    """Counts on the wire what a call sends.

    :param name: that of the database, for the report
    :param url: the URL of a database
    """

    # psycopg prepares what it has sent five times, which is one more.
    WARM = 8
    TURNS = 8

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url

    def run(self) -> list[dict[str, Any]]:
        """Return what each call sends, in the steady state."""
        common.progress(f'{self._name}: round trips')
        with (
            proxy.FaultProxy(self._url) as between,
            database(between.url, 1),
        ):
            rows = [
                row
                for count in (1, 2, 10)
                for row in self._of_layer(
                    between, quota_ways.RESOURCES[:count]
                )
            ]
            return rows + self._of_usual(between)

    def _of_layer(
        self, between: proxy.FaultProxy, names: list[str]
    ) -> list[dict[str, Any]]:
        ctx = context.get_admin_context()
        deltas = dict.fromkeys(names, 1)

        def reserve(_: Any = None) -> Any:
            return db.api.quota_reserve(ctx, deltas, 'p')

        calls: _Calls = {
            'quota_reserve': (lambda: None, reserve),
            'reservation_commit': (
                reserve,
                lambda ids: db.api.reservation_commit(ctx, ids, 'p'),
            ),
            'reservation_rollback': (
                reserve,
                lambda ids: db.api.reservation_rollback(ctx, ids, 'p'),
            ),
        }
        return self._rows(between, Layer.name, len(names), calls)

    def _of_usual(self, between: proxy.FaultProxy) -> list[dict[str, Any]]:
        ctx = quota_ways.FacadeContext()
        quota_ways.layer_pair(context.get_admin_context(), LockReadWrite.name)
        with contextlib.closing(LockReadWrite(between.url, 1)) as usual:
            calls: _Calls = {
                'reserve': (
                    lambda: None,
                    lambda _: usual.reserve(ctx, quota_ways.PAIR),
                ),
                'commit': (
                    lambda: usual.reserve(ctx, quota_ways.PAIR),
                    lambda ids: usual.commit(ctx, ids),
                ),
            }
            return self._rows(between, usual.name, len(quota_ways.PAIR), calls)

    def _rows(
        self,
        between: proxy.FaultProxy,
        way: str,
        resources: int,
        calls: _Calls,
    ) -> list[dict[str, Any]]:
        where = {
            'database': self._name,
            'way': way,
            'resources': resources,
        }
        return [
            {**where, 'call': call, **self._count(between, *functions)}
            for call, functions in calls.items()
        ]

    def _count(
        self,
        between: proxy.FaultProxy,
        prepare: Callable[[], Any],
        function: Callable[[Any], Any],
    ) -> dict[str, Any]:
        turns = []
        for _ in range(self.WARM + self.TURNS):
            prepared = prepare()
            between.clear()
            function(prepared)
            turns.append(common.sent(between))
        turns = sorted(turns[self.WARM :], key=len)
        return {
            'round_trips': len(turns[0]),
            'round_trips_most': len(turns[-1]),
            'sent': turns[0],
        }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is asked for, and return it as JSON has it."""
    report: dict[str, Any] = {
        **common.header(),
        'servers': {},
        'method': METHOD,
        'figures': [],
        'round_trips': [],
    }
    for name in arguments.databases:
        common.progress(f'{name}: starts')
        with common.VARIANTS[name]() as server:
            url = server.url
            _create_tables(url)
            report['servers'][name] = common.server_version(url)
            report['round_trips'] += RoundTrips(name, url).run()
            report['figures'] += Variant(name, url, arguments).run()
    return report


def _create_tables(url: str) -> None:
    made = sa.create_engine(url)
    models.Base.metadata.create_all(made)
    made.dispose()


def show(report: dict[str, Any]) -> None:
    """Print what was measured, for a person."""
    console = common.console()
    for name, value in (report | report['servers']).items():
        if isinstance(value, str):
            console.print(f'{name}: {value}', highlight=False)
    console.print(_figures(report['figures']))
    _show_errors(console, report['figures'])
    console.print(_round_trips(report['round_trips']))
    for note in report['method']:
        console.print(escape(f'- {note}'), highlight=False)


def _figures(figures: list[dict[str, Any]]) -> Any:
    names = {
        'database': 'database',
        'threads': 'threads',
        'way': 'way',
        'pairs_a_second': 'pairs/s',
        'p50_ms': 'p50 ms',
        'p99_ms': 'p99 ms',
        'max_ms': 'max ms',
    }
    return common.table(
        'Pairs of reserve and commit, 2 resources of one project',
        [*names.values(), 'errors', 'retries'],
        [
            [row[name] for name in names]
            + [sum(row[kind].values()) for kind in ('errors', 'retries')]
            for row in figures
        ],
    )


def _show_errors(console: Any, figures: list[dict[str, Any]]) -> None:
    for row in figures:
        for kind in ('errors', 'retries'):
            for error, count in row[kind].items():
                where = '{database}, {threads} threads, {way}'.format(**row)
                console.print(
                    escape(f'{where}: {count} {kind}: {error}'),
                    highlight=False,
                )


def _round_trips(rows: list[dict[str, Any]]) -> Any:
    numbers: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        call = (row['way'], row['call'], row['resources'])
        ends = dict.fromkeys((row['round_trips'], row['round_trips_most']))
        numbers.setdefault(call, {})[row['database']] = '-'.join(
            map(str, ends)
        )
    databases = dict.fromkeys(row['database'] for row in rows)
    return common.table(
        'Round trips, counted on the wire; JSON says which',
        ['way', 'call', 'resources', *databases],
        [[*call, *of.values()] for call, of in numbers.items()],
    )


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON, not tables'
    )
    for name, kind, default, text in (
        ('seconds', _positive, '4', 'how long each way is measured'),
        ('rounds', _rounds, '4', 'in how many parts, the ways in turn'),
        ('threads', _numbers, '1,8,32', 'how many at once'),
        ('databases', _variants, ','.join(common.VARIANTS), 'on which'),
    ):
        parser.add_argument(
            f'--{name}',
            type=kind,
            default=default,
            help=f'{text} (default: {default})',
        )
    return parser.parse_args()


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is no length of time')
    return number


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError('there is at least one round')
    return number


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(',')]
    if min(numbers) < 1 or max(numbers) > 200:
        raise argparse.ArgumentTypeError('threads are from 1 to 200')
    return numbers


def _variants(text: str) -> list[str]:
    names = text.split(',')
    unknown = [name for name in names if name not in common.VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f'{", ".join(unknown)}: not one of {", ".join(common.VARIANTS)}'
        )
    return names


def main() -> None:
    """Measure and print."""
    arguments = parse()
    # Each retry would be a warning; they are counted, and errors too.
    logging.basicConfig(level=logging.CRITICAL)
    report = measure(arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == '__main__':
    main()

"""How fast processes side by side claim the next free resource.

Two ways do the same work, each process for a service of its own:

- "layer": db.api.resource_claim_next;
- "lock-first": the usual way, by SQLAlchemy core in a transaction: SELECT of
  the first free row FOR UPDATE, UPDATE, COMMIT; who comes second waits.
"""

import argparse
import contextlib
import datetime
import json
import logging
import multiprocessing
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import common
import sqlalchemy as sa
from rich.markup import escape

from myservice import conf
from myservice import context
from myservice import db
from myservice import exception
from myservice.db import clock
from myservice.db import dialects
from myservice.db import models
from myservice.db.operation import new_id

METHOD = (
    'Each process claims one resource a call, for a service of its own, '
    'until the time is up. What is counted ended well in that time.',
    'The ways take turns on the same server, another one first each round; '
    'before each turn the table is made anew, with more free resources than '
    'anybody can claim and some that others hold and that are older, and '
    'its statistics are brought up to date.',
    'Connections are open before the clock starts. Client and server share '
    'the cores of this machine, over loopback. Servers do not fsync.',
    'After each turn the number of held rows, and of different ones among '
    'those that were claimed, is what was claimed, or the program had '
    'failed. "empty" counts the answers that there is nothing to claim.',
)

_RESOURCES: Any = models.Resource.__table__
_SERVICES: Any = models.Service.__table__
_SPAWN = multiprocessing.get_context('spawn')

# Seconds that all processes are at work before it counts.
_RAMP = 0.5

_PATIENCE = 120

# Who holds the older half of the rows.
_HOLDER = 'somebody'

Claimer = Callable[[], str | None]


@contextlib.contextmanager
def layer(url: str, service_id: str) -> Iterator[Claimer]:
    """Give the call of the layer."""
    conf.CONF([], project='myservice', default_config_files=[])
    conf.CONF.set_override('connection', url, 'database')
    ctx = context.get_admin_context()

    def claim() -> str | None:
        for claimed in db.api.resource_claim_next(ctx, service_id):
            return claimed.resource_id
        return None

    yield claim
    db.api.dispose()


@contextlib.contextmanager
def lock_first(url: str, service_id: str) -> Iterator[Claimer]:
    """Give the usual way, which repeats a call after a deadlock."""
    engine = sa.create_engine(url, isolation_level='READ COMMITTED')
    columns = _RESOURCES.c
    first = (
        sa.select(columns.id, columns.generation)
        .where(columns.service_id.is_(None), columns.deleted == '')
        .order_by(columns.created_at)
        .limit(1)
        .with_for_update()
    )
    update = (
        sa.update(_RESOURCES)
        .where(columns.id == sa.bindparam('resource_id'))
        .values(
            service_id=service_id,
            generation=columns.generation + 1,
            claim_generation=sa.bindparam('claimed'),
            updated_at=clock.utcnow(),
        )
    )

    def claim() -> str | None:
        with engine.begin() as connection:
            row = connection.execute(first).first()
            if row is None:
                return None
            connection.execute(
                update,
                {'resource_id': row.id, 'claimed': row.generation + 1},
            )
        return str(row.id)

    yield claim
    engine.dispose()


WAYS = {'layer': layer, 'lock-first': lock_first}

_FAILURES = (sa.exc.DBAPIError, exception.MyServiceError)


def work(
    way: str,
    url: str,
    service_id: str,
    barrier: Any,
    seconds: float,
    results: Any,
) -> None:
    """Claim in a process of its own, and tell what has been claimed."""
    logging.basicConfig(level=logging.CRITICAL)
    claimed: list[str] = []
    counted = empty = errors = 0
    times: list[float] = []
    with WAYS[way](url, service_id) as claim:
        found = claim()
        claimed += [found] if found else []
        barrier.wait(_PATIENCE)
        begin = time.monotonic() + _RAMP
        end = begin + seconds
        started = time.monotonic()
        while started < end:
            found = None
            try:
                found = claim()
                empty += found is None
            except _FAILURES:
                errors += 1
            ended = time.monotonic()
            if found:
                claimed.append(found)
                if begin <= ended < end:
                    counted += 1
                    times.append(ended - started)
            started = ended
    results.put(
        {
            'claimed': claimed,
            'counted': counted,
            'empty': empty,
            'errors': errors,
            'times': times,
        }
    )


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
        self._engine = sa.create_engine(url)
        self._rates: dict[str, list[float]] = {way: [] for way in WAYS}
        self._parts: dict[str, list[dict[str, Any]]] = {
            way: [] for way in WAYS
        }

    def run(self) -> list[dict[str, Any]]:
        """Return the figures of each way."""
        models.Base.metadata.create_all(self._engine)
        ways = list(WAYS)
        for turn in range(self._arguments.rounds):
            # Another one is the first each time.
            for way in ways[turn % 2 :] + ways[: turn % 2]:
                common.progress(
                    f'{self._name}, round {turn + 1} of '
                    f'{self._arguments.rounds}: {way}'
                )
                self._measure(way)
        self._engine.dispose()
        return [self._figures(way) for way in WAYS]

    def _measure(self, way: str) -> None:
        services = self._make_rows()
        barrier = _SPAWN.Barrier(len(services))
        results: Any = _SPAWN.Queue()
        processes = [
            _SPAWN.Process(
                target=work,
                args=(
                    way,
                    self._url,
                    service,
                    barrier,
                    self._arguments.seconds,
                    results,
                ),
            )
            for service in services
        ]
        for process in processes:
            process.start()
        parts = [results.get(timeout=_PATIENCE) for _ in processes]
        for process in processes:
            process.join(_PATIENCE)
        self._check(parts)
        counted = sum(part['counted'] for part in parts)
        self._rates[way].append(counted / self._arguments.seconds)
        self._parts[way] += parts

    def _make_rows(self) -> list[str]:
        services = [new_id() for _ in range(self._arguments.processes)]
        start = datetime.datetime(2026, 1, 1)
        held = self._arguments.held
        rows = [
            {
                'id': new_id(),
                'project_id': 'p',
                'created_at': start + datetime.timedelta(seconds=number),
                'service_id': _HOLDER if number < held else None,
            }
            for number in range(held + self._arguments.resources)
        ]
        mysql = dialects.backend_of(self._engine.dialect) == 'mysql'
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_SERVICES))
            connection.execute(
                sa.insert(_SERVICES),
                [{'id': i, 'host': i, 'binary': 'b'} for i in services],
            )
            connection.exec_driver_sql(
                'SET foreign_key_checks = 0' if mysql else 'SELECT 1'
            )
            cascade = '' if mysql else ' CASCADE'
            connection.exec_driver_sql(f'TRUNCATE TABLE resources{cascade}')
            for first in range(0, len(rows), 5000):
                connection.execute(
                    sa.insert(_RESOURCES), rows[first : first + 5000]
                )
        if self._arguments.analyse:
            with self._engine.begin() as connection:
                table = 'TABLE ' if mysql else ''
                connection.exec_driver_sql(f'ANALYZE {table}resources')
        return services

    def _check(self, parts: list[dict[str, Any]]) -> None:
        claimed = [each for part in parts for each in part['claimed']]
        held = sa.select(sa.func.count()).where(
            _RESOURCES.c.service_id != _HOLDER
        )
        with self._engine.connect() as connection:
            rows = connection.scalar(held)
        if not len(claimed) == len(set(claimed)) == rows:
            raise RuntimeError(
                f'{self._name}: {len(claimed)} were claimed, '
                f'{len(set(claimed))} of them different, and {rows} are held'
            )
        if rows >= self._arguments.resources:
            raise RuntimeError(
                f'{self._name}: {rows} resources were too few, see --resources'
            )

    def _figures(self, way: str) -> dict[str, Any]:
        parts = self._parts[way]
        times = sorted(taken for part in parts for taken in part['times'])
        rates = {name: statistics.mean(self._rates[name]) for name in WAYS}
        return {
            'database': self._name,
            'processes': self._arguments.processes,
            'held': self._arguments.held,
            'way': way,
            'claims_a_second': round(rates[way], 1),
            'p50_ms': _milliseconds(times, 0.5),
            'p99_ms': _milliseconds(times, 0.99),
            'empty': sum(part['empty'] for part in parts),
            'errors': sum(part['errors'] for part in parts),
            'ratio': round(rates[way] / rates['lock-first'], 2)
            if rates['lock-first']
            else None,
        }


def _milliseconds(times: list[float], part: float) -> float | None:
    if not times:
        return None
    return round(times[int((len(times) - 1) * part)] * 1000, 3)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is asked for, and return it as JSON has it."""
    report: dict[str, Any] = {
        **common.header(),
        'servers': {},
        'method': METHOD,
        'figures': [],
    }
    for name in arguments.databases:
        common.progress(f'{name}: starts')
        with common.VARIANTS[name]() as server:
            report['servers'][name] = common.server_version(server.url)
            report['figures'] += Variant(name, server.url, arguments).run()
    return report


def show(report: dict[str, Any]) -> None:
    """Print what was measured, for a person."""
    console = common.console()
    for name, value in (report | report['servers']).items():
        if isinstance(value, str):
            console.print(f'{name}: {value}', highlight=False)
    names = {
        'database': 'database',
        'processes': 'processes',
        'held': 'held',
        'way': 'way',
        'claims_a_second': 'claims/s',
        'ratio': 'ratio',
        'p50_ms': 'p50 ms',
        'p99_ms': 'p99 ms',
        'empty': 'empty',
        'errors': 'errors',
    }
    console.print(
        common.table(
            'Claims of the next free resource; the ratio is to lock-first',
            list(names.values()),
            [[row[name] for name in names] for row in report['figures']],
        )
    )
    for note in report['method']:
        console.print(escape(f'- {note}'), highlight=False)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON, not tables'
    )
    parser.add_argument(
        '--no-analyse',
        dest='analyse',
        action='store_false',
        help='leave the statistics of the servers as they are',
    )
    for name, kind, default, text in (
        ('seconds', float, '3', 'how long each way is measured in a round'),
        ('rounds', int, '4', 'how often, the ways in turn'),
        ('processes', int, '8', 'how many at once'),
        ('resources', int, '20000', 'how many are free at first'),
        ('held', int, '20000', 'how many older ones somebody holds'),
        ('databases', _variants, 'mariadb,postgresql', 'on which'),
    ):
        parser.add_argument(
            f'--{name}',
            type=kind,
            default=default,
            help=f'{text} (default: {default})',
        )
    return parser.parse_args()


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
    # Each retry would be a warning.
    logging.basicConfig(level=logging.CRITICAL)
    report = measure(arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == '__main__':
    main()

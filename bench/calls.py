"""What the calls of the layer cost, beside the same work by other ways.

The ways take turns at each job, on the same rows of the same database: the
bare driver, the layer, SQLAlchemy's sessionmaker, oslo.db's enginefacade,
Flask-SQLAlchemy, Django and peewee. The databases are private ones, which it
starts and stops. How to read the figures: bench/README.rst.
"""

import argparse
import contextlib
import json
import logging
import pathlib
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import bar
import common
import compare
import connect
import data
import every
import growth
import quota
import show
import start
from compare import Target
from jobs import JOBS

_DATABASES = ('mariadb', 'postgresql', 'sqlite')
_PARTS = ('calls', 'every', 'quota', 'connect', 'start', 'growth')

# What a part adds to the report.
_LISTS = (
    'calls',
    'every',
    'quota',
    'connect',
    'start',
    'threads',
    'pools',
    'rows',
)


@contextlib.contextmanager
def started(name: str) -> Iterator[Target]:
    """Start a database; SQLite's is a file in a temporary directory."""
    if name == 'sqlite':
        with tempfile.TemporaryDirectory(prefix='myservice-') as directory:
            path = pathlib.Path(directory, 'bench.sqlite')
            yield Target(name, f'sqlite:///{path}', None)
        return
    with common.VARIANTS[name]() as server:
        yield Target(name, server.url, server)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is asked for, and return it as JSON has it."""
    report: dict[str, Any] = {
        **common.header(),
        'servers': {},
        'method': show.METHOD,
        **{name: [] for name in _LISTS},
    }
    with bar.shown() as shown:
        if 'start' in arguments.parts:
            report['start'] += start.measure_start(arguments.rounds, shown)
        for name in arguments.databases:
            with started(name) as target:
                _measure(target, arguments, report, shown)
                report['servers'][name] = compare.version(target)
    return report


def _measure(
    target: Target,
    arguments: argparse.Namespace,
    report: dict[str, Any],
    shown: bar.Bar,
) -> None:
    rounds = arguments.rounds
    if 'calls' in arguments.parts:
        report['calls'] += compare.measure_calls(
            target,
            arguments.only,
            rounds,
            arguments.calls,
            arguments.list_rows,
            shown,
        )
    if 'every' in arguments.parts:
        report['every'] += every.measure_every(target, 2 * rounds, shown)
    if 'quota' in arguments.parts and target.server is not None:
        report['quota'] += _quota(target, arguments.seconds)
    if 'connect' in arguments.parts:
        report['connect'] += connect.measure_connect(target, rounds, shown)
    if 'growth' in arguments.parts and target.name == arguments.databases[0]:
        _measure_growth(target, arguments, report, shown)


def _measure_growth(
    target: Target,
    arguments: argparse.Namespace,
    report: dict[str, Any],
    shown: bar.Bar,
) -> None:
    seconds = arguments.seconds / 8
    report['threads'] += growth.measure_threads(target, seconds, shown)
    report['pools'] += growth.measure_pools(target, seconds, shown)
    report['rows'] += growth.measure_rows(
        target, arguments.rows, arguments.rounds, shown
    )


def _quota(target: Target, seconds: float) -> list[dict[str, Any]]:
    """Return pairs a second of 8 threads, as bench/quota.py measures them."""
    data.create_tables(target.url)
    asked = argparse.Namespace(threads=[8], rounds=4, seconds=seconds)
    return quota.Variant(target.name, target.url, asked).run()


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--json',
        nargs='?',
        const='-',
        metavar='FILE',
        help='write JSON, to stdout instead of the tables if no FILE is named',
    )
    parser.add_argument(
        '--plot',
        type=pathlib.Path,
        metavar='DIRECTORY',
        help='write plots, as PNG and SVG',
    )
    for name, kind, default, text in (
        ('databases', _some_of(_DATABASES), ','.join(_DATABASES), 'on which'),
        ('parts', _some_of(_PARTS), ','.join(_PARTS), 'what is measured'),
        (
            'only',
            _some_of([job.name for job in JOBS]),
            '',
            'which jobs of the part calls, all by default: '
            + ', '.join(job.name for job in JOBS),
        ),
        ('rounds', _number, '7', 'how often the ways take turns'),
        ('calls', _number, '40', 'how many calls a turn has, of short ones'),
        ('list-rows', _number, '10000', 'how many rows a whole list has'),
        ('rows', _number, '100000', 'up to how many rows a table grows'),
        ('seconds', float, '4', 'how long threads are measured'),
    ):
        parser.add_argument(
            f'--{name}',
            type=kind,
            default=default,
            help=f'{text} (default: {default})' if default else text,
        )
    return parser.parse_args()


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError('it is 1 at least')
    return number


def _some_of(known: Any) -> Callable[[str], list[str]]:
    def parse_names(text: str) -> list[str]:
        names = [name for name in text.split(',') if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f'{", ".join(unknown)}: not one of {", ".join(known)}'
            )
        return names

    return parse_names


def main() -> None:
    """Measure and print."""
    arguments = parse()
    # Each retry would be a warning.
    logging.basicConfig(level=logging.CRITICAL)
    report = run(arguments)
    if arguments.plot:
        # It takes a second to import.
        import plot

        plot.draw(report, arguments.plot)
    text = json.dumps(report, indent=2)
    if arguments.json == '-':
        print(text)
        return
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + '\n')
    show.show(report)


if __name__ == '__main__':
    main()

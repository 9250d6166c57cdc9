"""Measures the calls of the layer, and the same work in other ways.

The ways take turns on the same rows of the same database: the bare driver, the
layer, and oslo.db's enginefacade as its documentation shows it. The program
starts and stops its own private databases. bench/README.rst says how to read
the figures.
"""

import argparse
import json
import logging
import pathlib
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

import common
from calls import measure_calls
from common import Target
from crowds import measure_claims
from crowds import measure_quotas
from growth import measure_rows
from growth import measure_threads
from jobs import JOBS

_Rows = list[dict[str, Any]]

_RATE = {
    'way': 'way',
    'threads': 'threads',
    'calls_a_second': 'a second',
    'p50_ms': 'p50 ms',
    'p99_ms': 'p99 ms',
    'max_ms': 'max ms',
    'errors': 'errors',
}

#: name of a table to its title, and the columns that it shows
_TABLES: dict[str, tuple[str, dict[str, str]]] = {
    'calls': (
        'microseconds of a call, medians; CPU is that of the client; "x" is a '
        "multiple of the driver's, with quartiles",
        {
            'call': 'call',
            'way': 'way',
            'round_trips': 'trips',
            'cpu': 'CPU',
            'x_cpu': 'x CPU',
            'quartiles': 'quartiles',
            'wall': 'wall',
            'x_wall': 'x wall',
        },
    ),
    'quotas': (
        'pairs of reserve and commit, 2 resources of one project',
        _RATE,
    ),
    'claims': ('claims of the next free resource', _RATE),
    'threads': (
        'more threads, each with its own service',
        {'call': 'call', **_RATE},
    ),
    'rows': (
        'more rows: microseconds of a call; a page has 100 rows',
        {'call': 'call', 'rows': 'rows', 'way': 'way', 'cpu': 'CPU'}
        | {'wall': 'wall'},
    ),
}


def _calls(target: Target, arguments: argparse.Namespace) -> dict[str, _Rows]:
    figures = measure_calls(
        target,
        arguments.only,
        arguments.rounds,
        arguments.calls,
        arguments.list_rows,
    )
    return {'calls': figures}


def _crowd(function: Callable[..., _Rows], name: str) -> Any:
    def part(target: Target, arguments: argparse.Namespace) -> Any:
        # SQLite has one writer.
        if target.server is None:
            return {}
        return {name: function(target, arguments.threads, arguments.seconds)}

    return part


def _growth(target: Target, arguments: argparse.Namespace) -> dict[str, _Rows]:
    if target.name != arguments.databases[0]:
        return {}
    seconds = arguments.seconds / 4
    return {
        'threads': measure_threads(target, seconds),
        'rows': measure_rows(target, arguments.rows, arguments.rounds),
    }


_PARTS: dict[str, Callable[..., dict[str, _Rows]]] = {
    'calls': _calls,
    'quotas': _crowd(measure_quotas, 'quotas'),
    'claims': _crowd(measure_claims, 'claims'),
    'growth': _growth,
}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all requested parts, and return the figures for JSON."""
    report: dict[str, Any] = {**common.header(), 'databases': {}}
    report |= {name: [] for name in _TABLES}
    for name in arguments.databases:
        common.progress(f'{name}: starts')
        with common.started(name) as target:
            for part in arguments.parts:
                for table, rows in _PARTS[part](target, arguments).items():
                    report[table] += rows
            report['databases'][name] = target.version()
    return report


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    console = common.console()
    for name, value in (report | report['databases']).items():
        if isinstance(value, str):
            console.print(f'{name}: {value}', highlight=False)
    for database in report['databases']:
        for name, (title, columns) in _TABLES.items():
            rows = [row for row in report[name] if row['database'] == database]
            if rows:
                console.print(f'\n{database}: {title}', highlight=False)
                cells = [
                    [_cell(row, each) for each in columns] for row in rows
                ]
                console.print(common.table([*columns.values()], cells))


def _cell(row: dict[str, Any], name: str) -> Any:
    if name in ('x_cpu', 'x_wall'):
        return f'{row["ratios"][name[2:]]["median"]:.2f}'
    if name == 'quartiles':
        return '{low:.2f}-{high:.2f}'.format(**row['ratios']['cpu'])
    if name == 'errors':
        return '; '.join(f'{n}: {text}' for text, n in row[name].items()) or 0
    return row.get(name)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--json', type=pathlib.Path, metavar='FILE', help='also write JSON'
    )
    jobs = [job.name for job in JOBS]
    databases = 'mariadb,postgresql,sqlite'
    for name, kind, default, text in (
        ('databases', _some_of(common.DATABASES), databases, 'the databases'),
        ('parts', _some_of(_PARTS), ','.join(_PARTS), 'the parts to measure'),
        ('only', _some_of(jobs), '', 'only these jobs of the part calls'),
        ('rounds', _number, '7', 'how often the ways take turns at a job'),
        ('calls', _number, '40', 'how many short calls a turn has'),
        ('list-rows', _number, '10000', 'how many rows a whole list has'),
        ('threads', _numbers, '1,8,32', 'how many threads reserve or claim'),
        ('seconds', float, '4', 'how long threads are measured, in seconds'),
        ('rows', _number, '100000', 'how many rows a table has at the end'),
    ):
        default_text = f' (default: {default})' if default else ''
        parser.add_argument(
            f'--{name}', type=kind, default=default, help=text + default_text
        )
    return parser.parse_args()


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError('it must be 1 at least')
    return number


def _numbers(text: str) -> list[int]:
    return [_number(part) for part in text.split(',')]


def _some_of(known: Collection[str]) -> Callable[[str], list[str]]:
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
    # Each retry would print a warning.
    logging.basicConfig(level=logging.CRITICAL)
    report = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + '\n')
    show(report)


if __name__ == '__main__':
    main()

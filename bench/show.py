"""Prints what calls.py has measured, as tables."""

from typing import Any

import common
from rich.console import Console
from rich.markup import escape

METHOD = (
    'Client and server share the cores of this machine, over loopback. '
    'MariaDB and PostgreSQL do not fsync (innodb_flush_log_at_trx_commit=2, '
    'fsync=off); SQLite does, by every way: synchronous=FULL, in the '
    'write-ahead log that the layer has switched on.',
    'The ways take turns: in a round each makes the same number of calls, in '
    'another order every time, on the same rows, in one process and thread, '
    'on a connection that is open. A ratio is of two ways in one round; what '
    'is shown is the median of all rounds, with the quartiles.',
    'CPU is that of the client process, user and system; server that of the '
    'server\'s processes, with what they do in the background. "driver '
    'again" is the driver, measured as one more way: how far it is from 1 is '
    'the noise.',
    'All ways return the same values, of the same types, or the program had '
    'failed; all compute is_up in SQL, and heed deleted rows.',
    '"driver" is written by hand for the fewest round trips: a claim and a '
    'destroy are one statement, a creation is INSERT ... RETURNING. Of '
    'quota_reserve and reservation_commit it sends what the layer sends.',
    'Whole lists have --list-rows rows; they are measured in half the rounds.',
    'The garbage collector runs as it does for users, and all of it before '
    'each round; the modules of all ways are in its heap.',
    'Round trips are counted by a proxy between client and server, in the '
    'steady state: connected, prepared, and with usages that exist.',
    'The part "every" makes each call on tables that hold nothing but one '
    'small world, and only once: its caches are colder than in a loop.',
)

_WIDTH = 150


def show(report: dict[str, Any]) -> None:
    """Print a report, for a person."""
    # Many ways stand side by side.
    console = Console(width=max(common.console().width, _WIDTH))
    for name, value in (report | report['servers']).items():
        if isinstance(value, str):
            console.print(f'{name}: {value}', highlight=False)
    for database in report['servers']:
        of_database = {
            part: [row for row in rows if row.get('database') == database]
            for part, rows in report.items()
            if isinstance(rows, list) and part != 'start'
        }
        of_database['times'] = of_database['calls']
        for part, made in _TABLES.items():
            if of_database[part]:
                console.print(made(database, of_database))
    if report['start']:
        console.print(_start(report['start']))
    for note in report['method']:
        console.print(escape(f'- {note}'), highlight=False)


_Rows = dict[str, list[dict[str, Any]]]


def _calls(database: str, of: _Rows) -> Any:
    rows = of['calls']
    ways = list(dict.fromkeys(row['way'] for row in rows))
    calls: dict[str, dict[str, str]] = {}
    for row in rows:
        calls.setdefault(row['call'], {})[row['way']] = _cell(row)
    return common.table(
        f'{database}: round trips / CPU of the client, as a multiple of the '
        "driver's",
        ['call', *ways],
        [[call, *map(cells.get, ways)] for call, cells in calls.items()],
    )


def _cell(row: dict[str, Any]) -> str:
    trips = row.get('round_trips')
    ratio = row['ratios']['driver']['cpu']['median']
    return f'{"" if trips is None else f"{trips} / "}{ratio:.2f}'


def _times(database: str, of: _Rows) -> Any:
    return common.table(
        f'{database}: microseconds of a call, medians; multiples of the '
        "driver's, with quartiles",
        [
            'call',
            'way',
            'CPU',
            'wall',
            'server',
            'x CPU',
            'quartiles',
            'x wall',
            'x server',
            'x CPU of oslo.db',
        ],
        [
            [
                row['call'],
                row['way'],
                row['cpu'],
                row['wall'],
                row['server'] or None,
                _ratio(row['ratios']['driver']['cpu']),
                _ratio(row['ratios']['driver']['cpu'], '{low:.2f}-{high:.2f}'),
                _ratio(row['ratios']['driver']['wall']),
                _ratio(row['ratios']['driver']['server']),
                _ratio(row['ratios']['oslo.db']['cpu']),
            ]
            for row in of['calls']
        ],
    )


def _ratio(
    ratio: dict[str, float] | None, text: str = '{median:.2f}'
) -> str | None:
    return None if ratio is None else text.format(**ratio)


def _every(database: str, of: _Rows) -> Any:
    ratios = {
        row['call']: row['ratios']['driver']['cpu']
        for row in of['calls']
        if row['way'] == 'layer'
    }
    return common.table(
        f'{database}: every public function, microseconds of a call; the '
        "multiple of the driver's CPU is that of the table above",
        ['call', 'round trips', 'CPU', 'wall', 'server', 'x CPU'],
        [
            [
                row['call'],
                row['round_trips'],
                row['cpu'],
                row['wall'],
                row['server'] or None,
                _ratio(ratios.get(row['call'])),
            ]
            for row in of['every']
        ],
    )


def _columns(title: str, part: str, names: dict[str, str]) -> Any:
    """Return what makes a table of some values of each row of a part."""

    def made(database: str, of: _Rows) -> Any:
        return common.table(
            f'{database}: {title}',
            [*names.values()],
            [[row[name] for name in names] for row in of[part]],
        )

    return made


_LATENCY = {
    'calls_a_second': 'calls/s',
    'p50_ms': 'p50 ms',
    'p99_ms': 'p99 ms',
    'max_ms': 'max ms',
}


def _connect(database: str, of: _Rows) -> Any:
    return common.table(
        f'{database}: a new connection, milliseconds; round trips are those '
        'after the login',
        ['way', 'round trips', 'CPU', 'wall', 'x CPU', 'quartiles'],
        [
            [
                row['way'],
                row['round_trips'],
                f'{row["cpu"] / 1000:.2f}',
                f'{row["wall"] / 1000:.2f}',
                _ratio(row['ratio'], '{median:.3f}'),
                _ratio(row['ratio'], '{low:.3f}-{high:.3f}'),
            ]
            for row in of['connect']
        ],
    )


def _start(rows: list[dict[str, Any]]) -> Any:
    names = {
        'command': 'command',
        'cpu_ms': 'CPU ms',
        'cpu_ms_least': 'least',
        'wall_ms': 'wall ms',
        'wall_ms_least': 'least',
    }
    return common.table(
        'Starting a process, medians and the least',
        [*names.values()],
        [[row[name] for name in names] for row in rows],
    )


_TABLES = {
    'calls': _calls,
    'times': _times,
    'every': _every,
    'quota': _columns(
        'pairs of reserve and commit, 2 resources of one project',
        'quota',
        {
            'way': 'way',
            'threads': 'threads',
            'pairs_a_second': 'pairs/s',
            **{name: _LATENCY[name] for name in [*_LATENCY][1:]},
        },
    ),
    'connect': _connect,
    'threads': _columns(
        'more threads, each with a service of its own',
        'threads',
        {'call': 'call', 'threads': 'threads', 'way': 'way', **_LATENCY},
    ),
    'pools': _columns(
        'heartbeats of 16 threads, by the size of the pool',
        'pools',
        {'pool_size': 'pool', 'way': 'way', **_LATENCY},
    ),
    'rows': _columns(
        'more rows: microseconds of a call; a page has 100 rows',
        'rows',
        {
            'call': 'call',
            'rows': 'rows',
            'way': 'way',
            'cpu': 'CPU',
            'wall': 'wall',
            'server': 'server',
        },
    ),
}

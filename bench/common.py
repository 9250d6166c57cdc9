"""What the parts share: databases, threads against the clock, and tables."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from rich import box
from rich.console import Console
from rich.table import Table

from myservice import servers
from myservice.db.sql import dialects

#: name to the function that makes its server; SQLite has a file
DATABASES: dict[str, Callable[[], servers.Server] | None] = {
    # An older server does not have the setting, and works as if it were OFF.
    'mariadb': lambda: servers.MariaDB(loose_innodb_snapshot_isolation='OFF'),
    'mariadb-snapshot': lambda: servers.MariaDB(
        innodb_snapshot_isolation='ON'
    ),
    'postgresql': lambda: servers.PostgreSQL(),
    'sqlite': None,
}

# Seconds that all threads work before the measurement.
_RAMP = 0.3

# Seconds to wait for the slowest thread to be ready.
_PATIENCE = 120

_PACKAGES = ('SQLAlchemy', 'oslo.db', 'PyMySQL', 'psycopg')


@dataclasses.dataclass(frozen=True)
class Target:
    """A database that is measured.

    :param name: its name
    :param url: its URL
    :param server: the fixture of its server; SQLite has none
    """

    name: str
    url: str
    server: servers.Server | None

    def version(self) -> str:
        """Return the version of the database."""
        backend = dialects.backend_of(sa.make_url(self.url))
        function = 'sqlite_version()' if backend == 'sqlite' else 'version()'
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            found = connection.scalar(sa.text(f'SELECT {function}'))
        # PostgreSQL adds its compiler.
        return str(found).split(' on ')[0]


@contextlib.contextmanager
def started(name: str) -> Iterator[Target]:
    """Start a database.

    :param name: a key of DATABASES
    """
    make = DATABASES[name]
    if make is None:
        with tempfile.TemporaryDirectory(prefix='myservice-') as directory:
            path = pathlib.Path(directory, 'bench.sqlite')
            yield Target(name, f'sqlite:///{path}', None)
        return
    with make() as server:
        yield Target(name, server.url, server)


class Threads:
    """Work that threads repeat, in one way.

    ``failures`` are the errors that are counted; any other one ends the
    benchmark.
    """

    name: str
    failures: tuple[type[Exception], ...] = ()

    def worker(self) -> contextlib.AbstractContextManager[Callable[[], Any]]:
        """Return the function that one thread calls, set up for it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Create what a turn needs."""

    def check(self, done: int) -> None:
        """Compare the database with the work of a turn.

        :param done: how many calls have ended well
        """


@dataclasses.dataclass
class Tally:
    """The measurements of one way.

    :param seconds: how long it was measured
    :param finished: how many calls ended well in that time
    :param times: seconds of each call that ended well, including those that
        were running at the end, as the slowest would be missing otherwise
    :param errors: error to the number of times that it was raised
    """

    seconds: float = 0.0
    finished: int = 0
    times: list[float] = dataclasses.field(default_factory=list)
    errors: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    def figures(self) -> dict[str, Any]:
        """Return the figures to print."""
        times = sorted(self.times)
        return {
            'calls_a_second': round(self.finished / self.seconds, 1),
            'p50_ms': _milliseconds(times, 0.5),
            'p99_ms': _milliseconds(times, 0.99),
            'max_ms': _milliseconds(times, 1),
            'errors': dict(self.errors),
        }


def _milliseconds(times: list[float], part: float) -> float | None:
    if not times:
        return None
    seconds = times[min(int(len(times) * part), len(times) - 1)]
    return round(seconds * 1000, 3)


class Slice:
    """Some threads that work in one way for some seconds.

    :param way: the way
    :param threads: how many
    :param seconds: for how long it is measured
    :param tally: the measurements to add to
    """

    def __init__(
        self, way: Threads, threads: int, seconds: float, tally: Tally
    ) -> None:
        self._way = way
        self._threads = threads
        self._seconds = seconds
        self._tally = tally
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(
            threads, self._start_clock, timeout=_PATIENCE
        )
        self._begin = self._end = 0.0
        self._done = 0

    def run(self) -> None:
        """Run the threads to their end; their errors are raised here."""
        self._way.prepare()
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            ends = [pool.submit(self._work) for _ in range(self._threads)]
        for end in ends:
            end.result()
        self._tally.seconds += self._seconds
        self._way.check(self._done)

    def _start_clock(self) -> None:
        self._begin = time.monotonic() + _RAMP
        self._end = self._begin + self._seconds

    def _work(self) -> None:
        try:
            with self._way.worker() as call:
                # The first call opens the connection, and is not measured.
                self._note(call, counts=False)
                self._barrier.wait()
                while time.monotonic() < self._end:
                    self._note(call, counts=True)
        except BaseException:
            self._barrier.abort()
            raise

    def _note(self, call: Callable[[], Any], counts: bool) -> None:
        started = time.monotonic()
        error = ''
        try:
            call()
        except self._way.failures as failure:
            lines = str(failure).splitlines() or ['']
            error = f'{type(failure).__name__}: {lines[0]:.100}'
        ended = time.monotonic()
        with self._lock:
            self._done += not error
            if error:
                self._tally.errors[error] += 1
            elif counts and ended >= self._begin:
                self._tally.finished += ended < self._end
                self._tally.times.append(ended - started)


def in_turns(
    ways: list[Threads], threads: int, seconds: float, rounds: int
) -> list[dict[str, Any]]:
    """Return the figures of ways that take turns, each first in turn.

    :param ways: the ways
    :param threads: how many work at once
    :param seconds: how long each way is measured, in all rounds together
    :param rounds: how often the ways take turns
    """
    tallies = {way.name: Tally() for way in ways}
    for turn in range(rounds):
        first = turn % len(ways)
        for way in ways[first:] + ways[:first]:
            Slice(way, threads, seconds / rounds, tallies[way.name]).run()
    return [
        {'way': name, 'threads': threads, **tally.figures()}
        for name, tally in tallies.items()
    ]


def progress(text: str) -> None:
    """Print on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)


def header() -> dict[str, Any]:
    """Return the machine, the versions and the time of the measurement."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        'date': now.isoformat(timespec='seconds'),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores',
        'load_before': ', '.join(f'{load:.1f}' for load in os.getloadavg()),
        'Python': platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table, with numbers to the right.

    :param columns: the names of the columns
    :param rows: the rows; None is shown as a dash
    """
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        numeric = not any(str(row[number])[:1].isalpha() for row in rows)
        made.add_column(
            column, justify='right' if numeric else 'left', no_wrap=True
        )
    for row in rows:
        made.add_row(*map(_text, row))
    return made


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.1f}'
    return '-' if value is None else str(value)


def console() -> Console:
    """Return the console for tables: stdout, with a fixed width in files."""
    return Console(width=None if sys.stdout.isatty() else 120)

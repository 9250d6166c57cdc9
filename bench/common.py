"""What benchmarks share: servers, threads against the clock, and tables."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import sqlalchemy as sa
from rich import box
from rich.console import Console
from rich.table import Table

from myservice.db import dialects
from myservice.tests import proxy
from myservice.tests import servers

#: name to how its server is made
VARIANTS: dict[str, Callable[[], servers.Server]] = {
    # An older server does not know the setting, and is as if it were OFF.
    'mariadb': lambda: servers.MariaDB(loose_innodb_snapshot_isolation='OFF'),
    'mariadb-snapshot': lambda: servers.MariaDB(
        innodb_snapshot_isolation='ON'
    ),
    'postgresql': lambda: servers.PostgreSQL(),
}

# Seconds that all threads are at work before it counts.
_RAMP = 0.3

# Seconds to wait for the slowest thread to be ready.
_PATIENCE = 120

_PACKAGES = ('SQLAlchemy', 'oslo.db', 'PyMySQL', 'psycopg')


class Way(Protocol):
    """One way to do the work that is measured.

    ``failures`` are the errors that are counted; any other one ends the
    benchmark.
    """

    failures: tuple[type[Exception], ...]

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def worker(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Return what one thread calls again and again, set up for it."""
        ...

    def retries(self) -> collections.Counter[str]:
        """Return class of the error to how many attempts were repeated."""
        ...


@dataclasses.dataclass
class Tally:
    """What was measured of one way.

    :param seconds: how long it was measured
    :param finished: how many calls ended well in that time
    :param times: seconds of each call that ended well; also of those that
        were under way when time was up, or the slowest would be missing
    :param errors: error to how often it was raised
    :param retries: class of an error to how many attempts were repeated
    """

    seconds: float = 0.0
    finished: int = 0
    times: list[float] = dataclasses.field(default_factory=list)
    errors: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    retries: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    def figures(self) -> dict[str, Any]:
        """Return what there is to print."""
        times = sorted(self.times)
        return {
            'pairs_a_second': round(self.finished / self.seconds, 1),
            'p50_ms': _milliseconds(times, 0.5),
            'p99_ms': _milliseconds(times, 0.99),
            'max_ms': _milliseconds(times, 1),
            'errors': dict(self.errors),
            'retries': dict(self.retries),
        }


def _milliseconds(times: list[float], part: float) -> float | None:
    if not times:
        return None
    seconds = times[min(int(len(times) * part), len(times) - 1)]
    return round(seconds * 1000, 3)


class Slice:
    """Some threads at one way for some seconds.

    :param way: the way
    :param threads: how many
    :param seconds: for how long it is measured
    :param tally: what to add to
    """

    def __init__(
        self, way: Way, threads: int, seconds: float, tally: Tally
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
        #: how many calls have ended well, also before the clock was started
        self.done = 0

    def run(self) -> None:
        """Run the threads to their end; an error of theirs is raised here."""
        before = self._way.retries()
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            ends = [pool.submit(self._work) for _ in range(self._threads)]
        for end in ends:
            end.result()
        self._tally.seconds += self._seconds
        self._tally.retries += self._way.retries() - before

    def _start_clock(self) -> None:
        self._begin = time.monotonic() + _RAMP
        self._end = self._begin + self._seconds

    def _work(self) -> None:
        try:
            with self._way.worker() as call:
                # It opens the connection, and is not measured.
                self._note(call, counts=False)
                self._barrier.wait()
                while time.monotonic() < self._end:
                    self._note(call, counts=True)
        except BaseException:
            self._barrier.abort()
            raise

    def _note(self, call: Callable[[], None], counts: bool) -> None:
        started = time.monotonic()
        error = ''
        try:
            call()
        except self._way.failures as failure:
            error = _describe(failure)
        ended = time.monotonic()
        with self._lock:
            self.done += not error
            if error:
                self._tally.errors[error] += 1
            elif counts and ended >= self._begin:
                self._tally.finished += ended < self._end
                self._tally.times.append(ended - started)


def _describe(error: Exception) -> str:
    lines = str(error).splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]:.100}'


def progress(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def header() -> dict[str, Any]:
    """Return on what, with what and when it is measured."""
    return {
        'date': datetime.datetime.now(datetime.UTC).isoformat(
            timespec='seconds'
        ),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores',
        'load_before': ', '.join(f'{load:.1f}' for load in os.getloadavg()),
        'Python': platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def server_version(url: str) -> str:
    """Return what a server says of itself.

    :param url: the URL of a database
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    parts = []
    with engine.connect() as connection:
        version = str(connection.scalar(sa.text('SELECT version()')))
        # PostgreSQL goes on about its compiler.
        parts.append(version.split(' on ')[0])
        if dialects.backend_of(engine.dialect) == 'mysql':
            settings = sa.text("SHOW VARIABLES LIKE 'innodb_snapshot%'")
            parts += map(' '.join, connection.execute(settings).all())
    return ', '.join(parts)


def sent(between: proxy.FaultProxy) -> list[str]:
    """Return what a proxy has seen, in a word each.

    :param between: the proxy, cleared before
    """
    # After what the ORM executes many times psycopg may send a Flush, as the
    # clock has it, which nobody answers and nobody waits for.
    unanswered = dialects.backend_of(sa.make_url(between.url)) == 'postgresql'
    return [
        command.sql.split()[0].upper() if command.sql else command.kind
        for command in between.commands
        if not (unanswered and command.kind == 'other')
    ]


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Table:
    """Return a table, with numbers to the right.

    :param title: what stands above
    :param columns: the names of the columns
    :param rows: what is in them; None is a dash
    """
    made = Table(
        title=title,
        title_justify='left',
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
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
    """Return where tables go: stdout, of one width in files."""
    return Console(width=None if sys.stdout.isatty() else 100)

"""How many Python calls each public function makes, which no machine changes.

cProfile counts the calls of example calls in the steady state: connections are
open, statements compiled and prepared. The counts depend on this code, on the
libraries, whose versions constraints.txt holds, and on the minor version of
Python. Those in call_counts.json are what test_call_counts compares with. As a
program this measures them anew, on all three databases, and records them::

    python -m myservice.tests.unit.db.call_counts
"""

import contextlib
import cProfile
import gc
import json
import logging
import pathlib
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa

from myservice import fixtures
from myservice import servers
from myservice.db import models
from myservice.db.sql import dialects
from myservice.tests import calls

RECORD = 'python -m myservice.tests.unit.db.call_counts'
PYTHON = '{}.{}'.format(*sys.version_info)

# By how much a count may differ from the one that is recorded.
TOLERANCE = 0.1

# psycopg prepares a statement at its sixth execution on a connection.
_WARM_UP, _MEASURED = 7, 3

_FILE = pathlib.Path(__file__).with_suffix('.json')

# Function to its count.
Counts = dict[str, int]


def recorded() -> dict[str, dict[str, Counts]]:
    """Return what is recorded, by version of Python and database."""
    found: dict[str, dict[str, Counts]] = json.loads(_FILE.read_text())
    return found


def record(backend: str, counts: Counts) -> None:
    """Record the counts of a database, for this version of Python."""
    everything = recorded()
    everything.setdefault(PYTHON, {})[backend] = counts
    text = json.dumps(everything, indent=2, sort_keys=True)
    _FILE.write_text(f'{text}\n')


def measure(
    database: fixtures.Database, names: Iterable[str] | None = None
) -> Counts:
    """Return how many calls the example call of each function makes.

    :param database: the fixture, set up; its database is emptied
    :param names: those of the functions; by default, of all public ones
    """
    with _emptied(database) as empty:
        return {name: _least(name, empty) for name in names or calls.names()}


def count(call: Callable[[], Any]) -> int:
    """Return how many calls of Python functions and builtins a call makes."""
    profile = cProfile.Profile()
    profile.runcall(call)
    return sum(entry.callcount for entry in profile.getstats())


def differences(before: Counts, now: Counts) -> list[str]:
    """Say which counts are no longer right, one line for each function.

    One that has become much lower is not, either: once it is recorded, what
    was gained cannot be lost again bit by bit.

    :param before: what is recorded
    :param now: what is measured
    """
    lines = [
        f'{name} made {before[name]} calls, now it makes {now[name]}: '
        f'{now[name] / before[name] - 1:+.1%}'
        for name in sorted(before.keys() & now.keys())
        if abs(now[name] - before[name]) > TOLERANCE * before[name]
    ]
    for name in sorted(now.keys() - before.keys()):
        lines.append(f'{name} makes {now[name]} calls; none are recorded')
    for name in sorted(before.keys() - now.keys()):
        lines.append(f'{name} is recorded, and no public function')
    return lines


def _least(name: str, empty: Callable[[], None]) -> int:
    """Return the count of a function, in the steady state."""
    counts = []
    for turn in range(_WARM_UP + _MEASURED):
        # What writes consumes the world that its example is about.
        if turn == 0 or calls.writes(name):
            empty()
            world = calls.World()
        counts.append(count(calls.example(name, world)))
    # Now and then the answer of a server comes in two pieces.
    return min(counts[_WARM_UP:])


@contextlib.contextmanager
def _emptied(database: fixtures.Database) -> Iterator[Callable[[], None]]:
    """Give a function that empties the database.

    Meanwhile no garbage is collected, and what is logged to find errors is
    not, even where OS_DEBUG asks for it.
    """
    engine = sa.create_engine(database.connection)

    def empty() -> None:
        with engine.begin() as connection:
            for table in reversed(models.Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))

    gc.disable()
    logging.disable(logging.DEBUG)
    try:
        yield empty
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
        engine.dispose()


def main() -> None:
    """Measure on each database, record, and print what has changed."""
    for server in (None, *servers.SERVERS.values()):
        with contextlib.ExitStack() as stack:
            url = None if server is None else stack.enter_context(server()).url
            stack.enter_context(
                plain_fixtures.EnvironmentVariable(servers.CONNECTION, url)
            )
            database = stack.enter_context(fixtures.Database())
            backend = dialects.backend_of(sa.make_url(database.connection))
            now = measure(database)
            before = recorded().get(PYTHON, {}).get(backend, {})
            print(f'{backend}:', *differences(before, now), sep='\n')
            record(backend, now)


if __name__ == '__main__':
    main()

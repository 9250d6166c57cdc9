"""The part "every": what each public function of the layer costs.

The calls are the examples of myservice.tests.calls, each in a world of its
own: tables that hold nothing else.
"""

import gc
from typing import Any

import bar
import common
import data
import measure
import sqlalchemy as sa
from compare import Target

from myservice.db import models
from myservice.tests import calls
from myservice.tests import fixtures
from myservice.tests import proxy

# As in compare.py.
_WARM = 8
_COUNTED = 2


class Worlds:
    """Makes worlds, one after the other, in one database.

    :param url: the URL of the database
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)

    def example(self, name: str) -> Any:
        """Return the example call of a function, in a new world.

        :param name: the function
        """
        with self._engine.begin() as connection:
            for table in reversed(models.Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))
        return calls.example(name, calls.World())

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()


def measure_every(
    target: Target, repeats: int, shown: bar.Bar
) -> list[dict[str, Any]]:
    """Return the figures of each public function.

    :param target: the database
    :param repeats: how often each function is called
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    samples: dict[str, list[measure.Sample]] = {
        name: [] for name in calls.names()
    }
    clock = target.clock()
    worlds = Worlds(target.url)
    text = f'{target.name}: every function'
    with fixtures.Database(target.url):
        for turn in shown.track(range(-1, repeats), text):
            gc.collect()
            for name, found in samples.items():
                call = worlds.example(name)
                sample, _ = measure.timed(call, [()], clock, False)
                if turn >= 0:
                    found.append(sample)
    trips = _round_trips(target, worlds, shown)
    worlds.close()
    return [
        {
            'database': target.name,
            'call': name,
            'calls': len(found),
            'round_trips': trips.get(name),
            **{
                clock: measure.median(found, clock) for clock in measure.CLOCKS
            },
        }
        for name, found in samples.items()
    ]


def _round_trips(
    target: Target, worlds: Worlds, shown: bar.Bar
) -> dict[str, int]:
    if target.server is None:
        return {}
    names = calls.names()
    with (
        proxy.FaultProxy(target.url) as between,
        fixtures.Database(between.url),
    ):
        return {
            name: _count(name, between, worlds)
            for name in shown.track(names, f'{target.name}: round trips')
        }


def _count(name: str, between: proxy.FaultProxy, worlds: Worlds) -> int:
    counts = []
    for _ in range(_WARM + _COUNTED):
        call = worlds.example(name)
        between.clear()
        call()
        counts.append(len(common.sent(between)))
    return min(counts[_WARM:])

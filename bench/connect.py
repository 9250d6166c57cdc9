"""The part "connect": what a new connection costs.

The server has no TLS. Engines are warm: they have connected before, and
opened a connection since their last one was closed.
"""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import bar
import data
import measure
import sqlalchemy as sa
from compare import Target
from oslo_db.sqlalchemy import enginefacade
from ways import driver

from myservice.db import dialects
from myservice.tests import fixtures
from myservice.tests import proxy

# What opens a connection, and what closes it again.
Opener = tuple[Callable[[], Any], Callable[[Any], None]]


def _of_engine(engine: sa.Engine) -> Opener:
    def close(connection: sa.Connection) -> None:
        connection.close()
        engine.dispose()

    return engine.connect, close


def _of_drivers(url: sa.URL) -> dict[str, Opener]:
    kind = driver.DRIVERS[dialects.backend_of(url)]

    def close(connection: Any) -> None:
        connection.close()

    found: dict[str, Opener] = {'driver': (lambda: kind.connect(url), close)}
    if dialects.backend_of(url) == 'mysql':
        without = url.update_query_dict({'ssl_disabled': 'true'})
        found['driver, ssl_disabled'] = (lambda: kind.connect(without), close)
    return found


@contextlib.contextmanager
def openers(url: str) -> Iterator[dict[str, Opener]]:
    """Return all ways to connect.

    :param url: the URL of the database
    """
    facade = enginefacade.transaction_context()
    facade.configure(connection=url)
    with fixtures.Database(url) as layer:
        yield {
            **_of_drivers(sa.make_url(url)),
            'layer': _of_engine(layer.engine('autocommit')),
            'layer, for transactions': _of_engine(layer.engine()),
            'sessionmaker': _of_engine(sa.create_engine(url)),
            'oslo.db': _of_engine(facade.writer.get_engine()),
        }


def measure_connect(
    target: Target, rounds: int, shown: bar.Bar
) -> list[dict[str, Any]]:
    """Return what each way to connect costs.

    :param target: the database
    :param rounds: how often each one connects
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    with openers(target.url) as ways:
        samples: dict[str, list[measure.Sample]] = {name: [] for name in ways}
        text = f'{target.name}: connections'
        for turn in shown.track(range(-1, rounds), text):
            for name, opener in ways.items():
                sample = _connect(opener)
                if turn >= 0:
                    samples[name].append(sample)
    trips = _round_trips(target)
    return [
        {
            'database': target.name,
            'way': name,
            'connections': len(found),
            'round_trips': trips.get(name),
            **{
                clock: measure.median(found, clock)
                for clock in ('cpu', 'wall')
            },
            'ratio': measure.ratio(found, samples['driver'], 'cpu'),
        }
        for name, found in samples.items()
    ]


def _connect(opener: Opener) -> measure.Sample:
    connect, close = opener
    clock = measure.ServerClock()
    sample, (connection,) = measure.timed(connect, [()], clock, True)
    close(connection)
    return sample


def _round_trips(target: Target) -> dict[str, int]:
    """Return how much is sent after the login, by the way to connect."""
    counts: dict[str, int] = {}
    if target.server is None:
        return counts
    with proxy.FaultProxy(target.url) as between, openers(between.url) as ways:
        for name, (connect, close) in ways.items():
            close(connect())
            between.clear()
            connection = connect()
            counts[name] = sum(
                command.kind not in ('connect', 'quit')
                for command in between.commands
            )
            close(connection)
    return counts

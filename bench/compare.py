"""The part "calls": jobs that all ways do, in turns."""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import bar
import common
import data
import measure
import quota_ways
import sqlalchemy as sa
from jobs import JOBS
from jobs import Job
from ways import driver
from ways.base import Way
from ways.django_orm import Django
from ways.flask_sqlalchemy_way import FlaskSQLAlchemy
from ways.layer import Layer
from ways.oslo_stock import OsloStock
from ways.peewee_orm import Peewee
from ways.sessionmaker import Sessionmaker

from myservice import context
from myservice.db import models
from myservice.tests import proxy
from myservice.tests import servers

# The layer first: others use its settings (see ways.driver.quota_pair).
_KINDS: tuple[Callable[[str], Way], ...] = (
    Layer,
    driver.make,
    Sessionmaker,
    OsloStock,
    FlaskSQLAlchemy,
    Django,
    Peewee,
)

# How often a call is repeated before its round trips are counted, and how
# often they are: psycopg prepares what it has sent five times.
_WARM = 8
_COUNTED = 4


@dataclasses.dataclass(frozen=True)
class Target:
    """A database that is measured.

    :param name: what it is called
    :param url: its URL
    :param server: what runs it; SQLite has none
    """

    name: str
    url: str
    server: servers.Server | None

    def clock(self) -> measure.ServerClock:
        """Return the clock of its server."""
        return measure.ServerClock(self.server)


@contextlib.contextmanager
def all_ways(url: str) -> Iterator[list[Way]]:
    """Open all ways to a database, the driver first."""
    with contextlib.ExitStack() as stack:
        ways = []
        for kind in _KINDS:
            way = kind(url)
            stack.callback(way.close)
            # quota_pair wants usages that exist.
            quota_ways.layer_pair(context.get_admin_context(), way.name)
            ways.append(way)
        yield sorted(ways, key=lambda way: way.name != 'driver')


def measure_calls(
    target: Target,
    only: list[str],
    rounds: int,
    calls: int,
    rows: int,
    shown: bar.Bar,
) -> list[dict[str, Any]]:
    """Return the figures of all jobs and ways on one database.

    :param target: the database
    :param only: names of jobs; an empty list is all
    :param rounds: how often each way is measured
    :param calls: how many calls a round has
    :param rows: how many services there are, and resources
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    filled = data.fill(target.url, rows, rows)
    wanted = [job for job in JOBS if not only or job.name in only]
    figures = []
    with all_ways(target.url) as ways:
        check(ways, filled)
        clock = target.clock()
        for job in wanted:
            compared = measure.Comparison(job, ways, filled, clock, calls)
            compared.warm_up()
            text = f'{target.name}: {job.name}'
            turns = rounds if job.part else -(-rounds // 2)
            for turn in shown.track(range(turns), text):
                compared.round(turn)
            figures += compared.figures()
    if target.server is not None:
        _add_round_trips(target, wanted, filled, figures, shown)
    return [{'database': target.name, **row} for row in figures]


def _add_round_trips(
    target: Target,
    jobs: list[Job],
    filled: data.Data,
    figures: list[dict[str, Any]],
    shown: bar.Bar,
) -> None:
    with proxy.FaultProxy(target.url) as between, all_ways(between.url) as on:
        found = {
            (job.steps[step], way.name): trips
            for job in shown.track(jobs, f'{target.name}: round trips')
            for way in on
            for step, trips in _round_trips(job, way, filled, between).items()
        }
    for row in figures:
        name = row['way'].removesuffix(' again')
        row['round_trips'] = found[row['call'], name]


def _round_trips(
    job: Job, way: Way, filled: data.Data, between: proxy.FaultProxy
) -> dict[str, int]:
    # Of a list, the number of rows changes nothing.
    warm = _WARM if job.part else 1
    least: dict[str, int] = {}
    for turn in range(warm + _COUNTED if job.part else 2):
        arguments = job.arguments(filled, 1)
        for step in job.steps:
            between.clear()
            result = getattr(way, step)(*arguments[0])
            arguments = [(result,)]
            count = len(common.sent(between))
            if turn >= warm:
                least[step] = min(count, least.get(step, count))
    return least


def check(ways: list[Way], filled: data.Data) -> None:
    """Refuse ways that do not return what the others do.

    :param ways: the ways
    :param filled: the rows
    """
    service_id, resource_id = filled.services[0], filled.resources[0]
    found = {
        way.name: (
            _values(way.service_get(service_id), models.ServiceRow),
            _values(way.service_get_all(2)[1], models.ServiceRow),
            _values(way.resource_get(resource_id), models.ResourceRow),
            _values(way.resource_get_all(2)[1], models.ResourceRow),
            *way.resource_details(resource_id)[1:],
            len(way.service_get_all(100)),
        )
        for way in ways
    }
    for name, values in found.items():
        if values != found[Layer.name]:
            raise RuntimeError(
                f'{name} returns {values}, but the layer {found[Layer.name]}'
            )


def _values(row: Any, kind: Any) -> list[Any]:
    """Return the values of a row, with their types: True is not 1."""
    if not isinstance(row, tuple):
        row = [getattr(row, name) for name in kind.keys()]
    return [(type(value), value) for value in row]


def version(target: Target) -> str:
    """Return what a database says of itself.

    :param target: the database
    """
    if target.server is not None:
        return common.server_version(target.url)
    engine = sa.create_engine(target.url)
    with engine.connect() as connection:
        number = connection.scalar(sa.text('SELECT sqlite_version()'))
        mode = connection.scalar(sa.text('PRAGMA journal_mode'))
    engine.dispose()
    return f'{number}, journal_mode={mode}, synchronous=FULL'

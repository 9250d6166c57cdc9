"""The part "calls": jobs that all ways do in turn."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import common
import data
import measure
import sqlalchemy as sa
from jobs import JOBS
from jobs import Job
from ways import driver
from ways import layer
from ways.layer import Layer
from ways.oslo_stock import OsloStock

from myservice import context
from myservice.db import liveness
from myservice.db import models
from myservice.db.sql import dialects
from myservice.tests import proxy

# The layer first: others use its settings (see ways.driver.quota_pair).
_KINDS: tuple[Callable[[str], Any], ...] = (Layer, driver.make, OsloStock)

# How often a call is repeated before its round trips are counted, and how
# often they are counted: psycopg prepares a statement after five executions.
_WARM = 8
_COUNTED = 4


@contextlib.contextmanager
def all_ways(url: str) -> Iterator[list[Any]]:
    """Open all ways to a database, the driver first."""
    with contextlib.ExitStack() as stack:
        ways = []
        for kind in _KINDS:
            way = kind(url)
            stack.callback(way.close)
            # quota_pair wants usages that exist.
            layer.pair(context.get_admin_context(), way.name)
            ways.append(way)
        yield sorted(ways, key=lambda way: way.name != 'driver')


def measure_calls(
    target: common.Target,
    only: list[str],
    rounds: int,
    calls: int,
    rows: int,
) -> list[dict[str, Any]]:
    """Return the figures of all jobs and ways on one database.

    :param target: the database
    :param only: names of jobs; an empty list is all
    :param rounds: how often each way is measured
    :param calls: how many calls a round has
    :param rows: how many services there are, and resources
    """
    data.create_tables(target.url)
    filled = data.fill(target.url, rows, rows)
    wanted = [job for job in JOBS if not only or job.name in only]
    figures = []
    with all_ways(target.url) as ways:
        check(ways, filled)
        for job in wanted:
            compared = measure.Comparison(job, ways, filled, calls)
            compared.warm_up()
            common.progress(f'{target.name}: {job.name}')
            for turn in range(rounds if job.part else -(-rounds // 2)):
                compared.round(turn)
            figures += compared.figures()
    if target.server is not None:
        _add_round_trips(target, wanted, filled, figures)
    return [{'database': target.name, **row} for row in figures]


def _add_round_trips(
    target: common.Target,
    jobs: list[Job],
    filled: data.Data,
    figures: list[dict[str, Any]],
) -> None:
    common.progress(f'{target.name}: round trips')
    with proxy.FaultProxy(target.url) as between, all_ways(between.url) as on:
        found = {
            (job.steps[step], way.name): trips
            for job in jobs
            for way in on
            for step, trips in _round_trips(job, way, filled, between).items()
        }
    for row in figures:
        name = row['way'].removesuffix(' again')
        row['round_trips'] = found[row['call'], name]


def _round_trips(
    job: Job, way: Any, filled: data.Data, between: proxy.FaultProxy
) -> dict[str, int]:
    # The number of rows does not change the round trips of a list.
    warm = _WARM if job.part else 1
    least: dict[str, int] = {}
    for turn in range(warm + _COUNTED if job.part else 2):
        arguments = job.arguments(filled, 1)
        for step in job.steps:
            between.clear()
            result = getattr(way, step)(*arguments[0])
            arguments = [(result,)]
            count = _count(between)
            if turn >= warm:
                least[step] = min(count, least.get(step, count))
    return least


def _count(between: proxy.FaultProxy) -> int:
    # After many executions by the ORM, psycopg may send a Flush at some time,
    # without an answer and without a wait for it.
    unanswered = dialects.backend_of(sa.make_url(between.url)) == 'postgresql'
    return sum(
        not (unanswered and command.kind == 'other')
        for command in between.commands
    )


def check(ways: list[Any], filled: data.Data) -> None:
    """Refuse ways whose results differ from those of the others.

    :param ways: the ways
    :param filled: the rows
    """
    service_id, resource_id = filled.services[0], filled.resources[0]
    found = {
        way.name: (
            _values(way.service_get(service_id), liveness.ServiceRow),
            _values(way.service_get_all(2)[1], liveness.ServiceRow),
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
    """Return the values of a row with their types, as True equals 1."""
    if not isinstance(row, tuple):
        row = [getattr(row, name) for name in kind.keys()]
    return [(type(value), value) for value in row]

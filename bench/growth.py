"""The part "growth": more threads, and more rows."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import common
import data
import measure
import sqlalchemy as sa
from oslo_db.sqlalchemy import utils
from ways import driver
from ways.layer import Layer
from ways.oslo_stock import OsloStock

from myservice import context
from myservice import db
from myservice.db import models

THREADS = (1, 2, 4, 8, 16, 32)
ROWS = (1_000, 10_000, 100_000, 1_000_000)

_METHODS = ('service_get', 'service_heartbeat')
_ROUNDS = 2
_PAGE = 100


class Threaded(common.Threads):
    """A way whose threads call one method, each with its own row.

    :param name: the name of the way
    :param open_way: opens the way for a thread
    :param method: the method
    :param services: the ids of the rows
    """

    def __init__(
        self,
        name: str,
        open_way: Callable[[], contextlib.AbstractContextManager[Any]],
        method: str,
        services: list[str],
    ) -> None:
        self.name = name
        self._open_way = open_way
        self._method = method
        self._services = itertools.cycle(services)

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        service_id = next(self._services)
        with self._open_way() as way:
            call = getattr(way, self._method)
            yield lambda: call(service_id)


def measure_threads(
    target: common.Target, seconds: float
) -> list[dict[str, Any]]:
    """Return the number of calls a second that some threads make.

    :param target: the database
    :param seconds: how long each way is measured
    """
    data.create_tables(target.url)
    services = data.add_services(target.url, THREADS[-1])
    openers: dict[str, Callable[[], Any]] = {
        'driver': lambda: contextlib.closing(driver.make(target.url))
    }
    figures = []
    with contextlib.ExitStack() as stack:
        for kind in (Layer, OsloStock):
            way = kind(target.url, max_pool_size=THREADS[-1])
            stack.callback(way.close)
            _fill_pool(way.engine(), THREADS[-1])
            openers[way.name] = functools.partial(contextlib.nullcontext, way)
        for count, method in itertools.product(THREADS, _METHODS):
            common.progress(f'{target.name}: {method}, {count} threads')
            ways: list[common.Threads] = [
                Threaded(name, opener, method, services)
                for name, opener in openers.items()
            ]
            for row in common.in_turns(ways, count, seconds, _ROUNDS):
                where = {'database': target.name, 'call': method}
                figures.append(where | row)
    return figures


def _fill_pool(engine: sa.Engine, count: int) -> None:
    """Open connections: a new one may cost more than a hundred calls."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(engine.connect())


def measure_rows(
    target: common.Target, most: int, rounds: int
) -> list[dict[str, Any]]:
    """Return the cost of calls, as the table of services grows.

    :param target: the database
    :param most: how many rows there are in the end
    :param rounds: how often each way is measured
    """
    data.create_tables(target.url)
    services: list[str] = []
    figures = []
    for size in (size for size in ROWS if size <= most):
        common.progress(f'{target.name}: {size} rows')
        services += data.add_services(target.url, size - len(services))
        figures += [
            {'database': target.name, 'rows': size, **row}
            for row in _of_size(target, services, rounds)
        ]
    return figures


def _of_size(
    target: common.Target, services: list[str], rounds: int
) -> list[dict[str, Any]]:
    # From the whole table, including the first and the last.
    step = max(len(services) // 50, 1)
    some = [(each,) for each in services[::step]]
    with contextlib.ExitStack() as stack:
        cases = [
            (name, way, call, some if by_id else [()] * 5)
            for way, calls in _ways(target, services[-_PAGE - 1], stack)
            for name, (call, by_id) in calls.items()
        ]
        samples: dict[tuple[str, str], list[measure.Sample]] = {}
        for turn in range(-1, rounds):
            for name, way, call, arguments in cases:
                sample, _ = measure.timed(call, arguments, False)
                if turn >= 0:
                    samples.setdefault((name, way), []).append(sample)
    return [
        {
            'call': name,
            'way': way,
            **{
                clock: measure.median(found, clock) for clock in measure.CLOCKS
            },
        }
        for (name, way), found in samples.items()
    ]


#: name to a call, and to whether it takes an id
_Calls = dict[str, tuple[Callable[..., Any], bool]]


def _ways(
    target: common.Target, marker: str, stack: contextlib.ExitStack
) -> Iterator[tuple[str, _Calls]]:
    layer, oslo = Layer(target.url), OsloStock(target.url)
    bare = driver.make(target.url)
    ctx = context.get_admin_context()
    last: dict[str, Callable[[], Any]] = {
        'layer': lambda: db.api.service_get_all(
            ctx, limit=_PAGE, marker=marker
        ),
        'driver': lambda: bare.service_page_after(marker, _PAGE),
        'oslo.db': lambda: oslo.read(_paginate, marker),
    }
    for way in (layer, bare, oslo):
        stack.callback(way.close)
        first = _first_page(way)
        if len(first()) != _PAGE or len(last[way.name]()) != _PAGE:
            raise RuntimeError(f'{way.name} returns no page')
        yield (
            way.name,
            {
                'get': (way.service_get, True),
                'heartbeat': (way.service_heartbeat, True),
                'first page': (first, False),
                'last page': (last[way.name], False),
            },
        )


def _first_page(way: Any) -> Callable[[], list[Any]]:
    return lambda: way.service_get_all(_PAGE)


def _paginate(session: Any, marker: str) -> list[Any]:
    """Return a page by oslo.db's own functions."""
    service = models.Service
    row = session.get(service, marker)
    query = session.query(service).filter(service.deleted == '')
    return list(utils.paginate_query(query, service, _PAGE, ['id'], row))

"""The part "growth": more threads, more rows, and smaller pools."""

import collections
import contextlib
import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import bar
import common
import data
import measure
import sqlalchemy as sa
from compare import Target
from oslo_db.sqlalchemy import utils
from ways import driver
from ways.base import Way
from ways.layer import Layer
from ways.oslo_stock import OsloStock

from myservice import context
from myservice import db
from myservice.db import models

THREADS = (1, 2, 4, 8, 16, 32)
POOLS = (1, 2, 5, 16, 32)
POOL_THREADS = 16
ROWS = (1_000, 10_000, 100_000, 1_000_000)

_METHODS = ('service_get', 'service_heartbeat')
_ROUNDS = 2
_PAGE = 100


class Threaded:
    """A way whose threads call one method, each with a row of its own.

    :param name: that of the way
    :param open_way: gives a thread its way
    :param method: the method
    :param services: the ids of the rows
    """

    failures: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        name: str,
        open_way: Callable[[], contextlib.AbstractContextManager[Way]],
        method: str,
        services: list[str],
    ) -> None:
        self.name = name
        self._open_way = open_way
        self._method = method
        self._services = itertools.cycle(services)

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        """Give a thread its call."""
        service_id = next(self._services)
        with self._open_way() as way:
            call = getattr(way, self._method)
            yield lambda: call(service_id)

    def retries(self) -> collections.Counter[str]:
        """Return nothing: rows of their own need none."""
        return collections.Counter()


def measure_threads(
    target: Target, seconds: float, shown: bar.Bar
) -> list[dict[str, Any]]:
    """Return how many calls a second some threads make.

    :param target: the database
    :param seconds: how long a turn is
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    services = data.add_services(target.url, max(THREADS))
    layer = Layer(target.url, max_pool_size=max(THREADS))
    oslo = OsloStock(target.url, max_pool_size=max(THREADS))
    with contextlib.closing(layer), contextlib.closing(oslo):
        for engine in (layer.engine(), oslo.engine()):
            _open_connections(engine, max(THREADS))
        openers: dict[str, Callable[[], Any]] = {
            'driver': lambda: contextlib.closing(driver.make(target.url)),
            'layer': functools.partial(contextlib.nullcontext, layer),
            'oslo.db': functools.partial(contextlib.nullcontext, oslo),
        }
        text = f'{target.name}: threads'
        cases = [*itertools.product(THREADS, _METHODS)]
        return [
            {'database': target.name, 'call': method, **row}
            for threads, method in shown.track(cases, text)
            for row in _slices(openers, method, services, threads, seconds)
        ]


def _slices(
    openers: dict[str, Callable[[], Any]],
    method: str,
    services: list[str],
    threads: int,
    seconds: float,
) -> list[dict[str, Any]]:
    ways = [
        Threaded(name, opener, method, services)
        for name, opener in openers.items()
    ]
    tallies = {way.name: common.Tally() for way in ways}
    for turn in range(_ROUNDS):
        for way in ways if turn % 2 else ways[::-1]:
            common.Slice(way, threads, seconds, tallies[way.name]).run()
    return [
        {'way': name, 'threads': threads, **_figures(tally)}
        for name, tally in tallies.items()
    ]


def _open_connections(engine: sa.Engine, count: int) -> None:
    """Fill a pool: a new connection may cost more than a hundred calls."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(engine.connect())


def _figures(tally: common.Tally) -> dict[str, Any]:
    found = tally.figures()
    return {
        'calls_a_second': found['pairs_a_second'],
        **{name: found[name] for name in ('p50_ms', 'p99_ms', 'max_ms')},
    }


def measure_pools(
    target: Target, seconds: float, shown: bar.Bar
) -> list[dict[str, Any]]:
    """Return how many calls a second threads make with too few connections.

    :param target: the database
    :param seconds: how long a turn is
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    services = data.add_services(target.url, POOL_THREADS)
    figures = []
    for size in shown.track(POOLS, f'{target.name}: pools'):
        pool = {'max_pool_size': size, 'max_overflow': 0}
        layer = Layer(target.url, **pool)
        oslo = OsloStock(target.url, **pool)
        with contextlib.closing(layer), contextlib.closing(oslo):
            openers: dict[str, Callable[[], Any]] = {}
            for way in (layer, oslo):
                _open_connections(way.engine(), size)
                openers[way.name] = functools.partial(
                    contextlib.nullcontext, way
                )
            rows = _slices(
                openers, _METHODS[1], services, POOL_THREADS, seconds
            )
        figures += [
            {'database': target.name, 'pool_size': size, **row} for row in rows
        ]
    return figures


def measure_rows(
    target: Target, most: int, rounds: int, shown: bar.Bar
) -> list[dict[str, Any]]:
    """Return what calls cost, as the table of services grows.

    :param target: the database
    :param most: how many rows there are in the end
    :param rounds: how often each way is measured
    :param shown: the progress bar
    """
    data.create_tables(target.url)
    services: list[str] = []
    figures = []
    sizes = [size for size in ROWS if size <= most]
    for size in shown.track(sizes, f'{target.name}: rows'):
        services += data.add_services(target.url, size - len(services))
        figures += [
            {'database': target.name, 'rows': size, **row}
            for row in _of_size(target, services, rounds)
        ]
    return figures


def _of_size(
    target: Target, services: list[str], rounds: int
) -> list[dict[str, Any]]:
    # From all over the table, the first and the last among them.
    step = max(len(services) // 50, 1)
    some = [(each,) for each in services[::step]]
    clock = target.clock()
    with contextlib.ExitStack() as stack:
        cases = [
            (name, way, call, some if by_id else [()] * 5)
            for way, calls in _ways(target, services[-_PAGE - 1], stack)
            for name, (call, by_id) in calls.items()
        ]
        samples: dict[tuple[str, str], list[measure.Sample]] = {}
        for turn in range(-1, rounds):
            for name, way, call, arguments in cases:
                sample, _ = measure.timed(call, arguments, clock, False)
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


#: name to a call, and whether it takes an id
_Calls = dict[str, tuple[Callable[..., Any], bool]]


def _ways(
    target: Target, marker: str, stack: contextlib.ExitStack
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


def _first_page(way: Way) -> Callable[[], list[Any]]:
    return lambda: way.service_get_all(_PAGE)


def _paginate(session: Any, marker: str) -> list[Any]:
    """Return a page by oslo.db's own means."""
    service = models.Service
    row = session.get(service, marker)
    query = session.query(service).filter(service.deleted == '')
    return list(utils.paginate_query(query, service, _PAGE, ['id'], row))

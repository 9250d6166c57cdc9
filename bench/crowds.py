"""The parts "quotas" and "claims": many threads that want the same rows.

Each way does the same work:

- "layer": the calls of db.api;
- "driver", in quotas: the bare driver, which sends the statements of the
  layer: the limit of any optimisation;
- "oslo.db": the usual way, by its enginefacade and the ORM: SELECT ... FOR
  UPDATE, compare in Python, write.
"""

import contextlib
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import common
import data
import sqlalchemy as sa
from oslo_db import exception as db_exception
from ways import layer
from ways.captured import Captured
from ways.layer import Layer
from ways.oslo_stock import Retried
from ways.oslo_stock import claim_next

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.engine import engines as engines

# More than the threads can claim in a turn, and as many older ones that are
# held.
_FREE = _HELD = 20_000

_ROUNDS = 4

_LAYER_FAILURES = (db_exception.DBError, exception.MyServiceError)

_Worker = contextlib.AbstractContextManager[Callable[[], Any]]


class Pairs(common.Threads):
    """A pair reserves 1 of each of two resources of a project, and commits.

    :param target: the database
    """

    def __init__(self, target: common.Target) -> None:
        self._bind = sa.create_engine(target.url, poolclass=sa.NullPool)
        layer.pair(context.get_admin_context(), self.name)
        self._before: list[int] = []

    def prepare(self) -> None:
        self._before = self._in_use()

    def check(self, done: int) -> None:
        expected = [before + done for before in self._before]
        if self._in_use() != expected:
            raise RuntimeError(
                f'{self.name}: {self._in_use()} are in use, but {expected} '
                'were committed'
            )

    def _in_use(self) -> list[int]:
        usage = models.QuotaUsage
        query = (
            sa.select(usage.in_use)
            .where(usage.project_id == self.name)
            .order_by(usage.resource)
        )
        with self._bind.connect() as connection:
            return list(connection.scalars(query))


class LayerPairs(Pairs):
    name = 'layer'
    failures = _LAYER_FAILURES

    def worker(self) -> _Worker:
        ctx = context.get_admin_context()
        return contextlib.nullcontext(lambda: layer.pair(ctx, self.name))


class DriverPairs(Pairs):
    name = 'driver'

    def __init__(self, target: common.Target) -> None:
        super().__init__(target)
        engine = engines.get_engines().get_engine('transaction')
        self._captured = Captured(engine)
        self.failures = self._captured.failures

    def worker(self) -> _Worker:
        return self._captured.worker()


class OsloPairs(Pairs):
    name = 'oslo.db'
    failures = (db_exception.DBError,)

    def __init__(self, target: common.Target, usual: Retried) -> None:
        super().__init__(target)
        self._usual = usual

    def worker(self) -> _Worker:
        return contextlib.nullcontext(self._usual.quota_pair)


class Claims(common.Threads):
    """The next free resource; each thread claims for its own service.

    :param target: the database
    :param services: the ids of the services: first the one that holds the
        older half of the resources, then those that claim
    """

    def __init__(self, target: common.Target, services: list[str]) -> None:
        self._bind = sa.create_engine(target.url, poolclass=sa.NullPool)
        holder, *others = services
        self._services = itertools.cycle(others)
        self._is_claimed = models.Resource.service_id != holder

    def prepare(self) -> None:
        release = (
            sa.update(models.Resource)
            .where(self._is_claimed)
            .values(service_id=None, claim_generation=None)
        )
        with self._bind.begin() as connection:
            connection.execute(release)
        data.analyse(self._bind)

    def check(self, done: int) -> None:
        count = sa.select(sa.func.count()).where(self._is_claimed)
        with self._bind.connect() as connection:
            held = connection.scalar(count)
        if held != done or done >= _FREE:
            raise RuntimeError(
                f'{self.name}: {done} of {_FREE} resources were claimed, and '
                f'{held} are held'
            )


class LayerClaims(Claims):
    name = 'layer'
    failures = _LAYER_FAILURES

    def worker(self) -> _Worker:
        ctx, service_id = context.get_admin_context(), next(self._services)

        def claim() -> None:
            if not db.api.resource_claim_next(ctx, service_id):
                raise RuntimeError('nothing is free')

        return contextlib.nullcontext(claim)


class OsloClaims(Claims):
    name = 'oslo.db'
    failures = (db_exception.DBError,)

    def __init__(
        self, target: common.Target, services: list[str], usual: Retried
    ) -> None:
        super().__init__(target, services)
        self._usual = usual

    def worker(self) -> _Worker:
        service_id = next(self._services)
        return contextlib.nullcontext(
            lambda: self._usual.write(claim_next, service_id)
        )


@contextlib.contextmanager
def _usual(target: common.Target, connections: int) -> Iterator[Retried]:
    """Open the layer, for the whole process, and return the usual way."""
    data.create_tables(target.url)
    ways = [
        kind(target.url, max_pool_size=connections)
        for kind in (Layer, Retried)
    ]
    with contextlib.closing(ways[0]), contextlib.closing(ways[1]):
        yield ways[1]


def measure_quotas(
    target: common.Target, threads: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Return how many pairs a second each way makes.

    :param target: the database
    :param threads: how many work at once
    :param seconds: how long each way is measured
    """
    with _usual(target, max(threads)) as usual:
        ways = [
            LayerPairs(target),
            DriverPairs(target),
            OsloPairs(target, usual),
        ]
        return _measure(target, 'pairs', ways, threads, seconds)


def measure_claims(
    target: common.Target, threads: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Return how many claims a second each way makes.

    :param target: the database
    :param threads: how many claim at once
    :param seconds: how long each way is measured
    """
    with _usual(target, max(threads)) as usual:
        services = data.add_services(target.url, max(threads) + 1)
        data.add_resources(target.url, services[0], _HELD)
        data.add_resources(target.url, None, _FREE)
        ways = [
            LayerClaims(target, services),
            OsloClaims(target, services, usual),
        ]
        return _measure(target, 'claims', ways, threads, seconds)


def _measure(
    target: common.Target,
    what: str,
    ways: list[Any],
    threads: list[int],
    seconds: float,
) -> list[dict[str, Any]]:
    figures = []
    for count in threads:
        common.progress(f'{target.name}: {what}, {count} threads')
        for row in common.in_turns(ways, count, seconds, _ROUNDS):
            figures.append({'database': target.name, **row})
    return figures

"""A soak: every public call, again and again, with values that change.

::

    python -m myservice.tests.functional.soak URL [--seconds 600]

It prints how much memory is resident, after garbage was collected. From the
end of the first minute (in a short run, of its first half) to the last window
of the run, of which there are twenty, the least that is resident in a window
may grow by 2 MiB or 3 %, whichever is more; or by ``--growth`` MiB. The tables
have to be there, and empty.
"""

import argparse
import contextlib
import gc
import math
import os
import pathlib
import sys
import time
import uuid
from typing import Any
from typing import Self

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import conf as options
from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.quotas import counters
from myservice.tests import calls

# Of a value that is large, in characters. Whoever keeps it is found out soon.
_LARGE = 2**17

# Into how many parts a run is divided, each of which prints a line.
WINDOWS = 20

_SERVICE: Any = models.Service.__table__
_COUNT = sa.select(sa.func.count()).where(
    _SERVICE.c.topic == sa.bindparam('p_topic')
)

_WRONG = sa.text('SELECT nothing FROM nowhere WHERE something = :p_value')


def resident() -> float:
    """Return how much memory of this process is resident, in MiB."""
    pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE') / 2**20


class Soak:
    """Makes every public call, in rounds.

    :param conf: the configuration of the database
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        # It lives as long as that of a worker may.
        self._context = context.get_admin_context()
        #: the names in db.api that were used
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Return what is public in db.api, and note that it is used."""
        found = getattr(db.api, name)
        self.used.add(name)
        return found

    def __enter__(self) -> Self:
        # Not in each round: SQLAlchemy's mappers keep the INSERTs of the last
        # hundred engines that they were flushed to.
        self.configure(self._conf)
        return self

    def __exit__(self, *_: object) -> None:
        counters.unregister('soaked')
        self.dispose()

    def round(self) -> None:
        """Make every call once, and leave the tables empty."""
        for name in calls.names():
            calls.example(name, self._world())()
            self.used.add(name)
        self._list()
        self._transactions()
        self._sessions()
        self._fail()
        self._count()
        self._use_another()
        self._empty()
        self.statistics()

    def _world(self) -> calls.World:
        return calls.World(str(uuid.uuid4()), str(uuid.uuid4()))

    def _list(self) -> None:
        world = self._world()
        for wanted in (
            world.new,
            [world.new, str(uuid.uuid4())],
            self.Not(world.new),
            self.Not([world.new, None]),
            self.Range(world.new, str(uuid.uuid4())),
            self.StartsWith(world.new),
            self.Contains(world.new),
            [str(uuid.uuid4()) for _ in range(100)],
        ):
            self.resource_get_all(self._context, filters={'name': wanted})
            with contextlib.suppress(exception.ResourceConflict):
                self.resource_update(
                    self._context,
                    world.resource.id,
                    {'name': world.new},
                    expected={'name': wanted},
                )
        for filters in (
            {'metadata': {world.new: world.new}},
            {'tags': [world.new, str(uuid.uuid4())]},
        ):
            self.resource_get_all(
                self._context, filters=filters, limit=3, sort_keys=['name']
            )
        self.resource_get_all(self._context, marker=world.resource.id)
        self.resource_release(
            self._context, self.Claim(**world.claim._asdict())
        )

    def _transactions(self) -> None:
        with self.transaction(self._context) as session:
            with self.savepoint(self._context):
                self.service_create(self._context, self._new())
            session.add(models.Service(**self._new(), version=1))
        with self.transaction(self._context, read_only=True) as session:
            self._read(session)
        self.atomic(lambda ctx: self.service_create(ctx, self._new()))(
            self._context
        )

    def _new(self) -> dict[str, str]:
        return {'host': str(uuid.uuid4()), 'binary': 'b'}

    def _read(self, session: Any) -> None:
        large = str(uuid.uuid4()) + 'x' * _LARGE
        # A value in the statement, and beside it. SQLAlchemy keeps texts, with
        # what is written into them.
        session.execute(sa.select(_SERVICE.c.id, sa.literal(large))).all()
        session.execute(_COUNT, {'p_topic': large}).all()

    def _sessions(self) -> None:
        for form in ({}, {'core': True}, {'read_only': True}):
            session = self.get_session(self._context, **form)
            with session.begin():
                self._read(session)
        session = self.get_session(self._context, autocommit=True)
        with session.begin():
            session.execute(
                sa.update(_SERVICE)
                .where(_SERVICE.c.topic == 'x' * _LARGE + str(uuid.uuid4()))
                .values(version=2)
            )

    def _fail(self) -> None:
        new = self._new()
        self.service_create(self._context, new)
        with contextlib.suppress(exception.ServiceExists):
            self.service_create(self._context, new)
        with contextlib.suppress(exception.InvalidInput):
            self.service_create(self._context, {'host': 'x' * _LARGE})
        with contextlib.suppress(exception.TransactionDoomed):
            with self.transaction(self._context) as session:
                with contextlib.suppress(db_exception.DBError):
                    session.execute(_WRONG, {'p_value': 'x' * _LARGE})
        with contextlib.suppress(exception.WriteInReadOnly):
            with self.transaction(self._context, read_only=True) as session:
                session.execute(
                    sa.delete(_SERVICE).where(_SERVICE.c.host == 'x' * _LARGE)
                )

    def _count(self) -> None:
        self.quota_counter_register(
            'soaked',
            sa.select(sa.func.count()).where(
                _SERVICE.c.host == self.PROJECT,
                _SERVICE.c.topic == str(uuid.uuid4()),
            ),
        )
        self.quota_get_defaults(self._context)
        self.quota_usage_check(self._context, str(uuid.uuid4()))

    def _use_another(self) -> None:
        other = self.Engines(self._conf)
        ctx = self._context.using(other)
        with self.transaction(ctx):
            self.service_create(ctx, self._new())
        other.dispose()

    def _empty(self) -> None:
        with self.get_engine().begin() as connection:
            for table in reversed(models.Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))


def soak(conf: cfg.ConfigOpts, seconds: float) -> tuple[float, float]:
    """Make rounds for some time, and print the memory every so often.

    :param conf: the configuration of the database
    :param seconds: how long
    :returns: the least that was resident right after the start, and in the
        end, in MiB
    """
    windows: list[list[float]] = [[] for _ in range(WINDOWS)]
    rounds, started = 0, time.monotonic()
    with Soak(conf) as work:
        while (passed := time.monotonic() - started) < seconds:
            work.round()
            rounds += 1
            # What waits to be collected is not kept.
            gc.collect()
            window = windows[int(passed / seconds * WINDOWS)]
            window.append(resident())
            if len(window) == 1:
                print(f'{passed:4.0f} s, round {rounds}: {window[0]:.1f} MiB')
                sys.stdout.flush()
    warm = [each for each in windows if each]
    start = math.ceil(min(0.5, 60 / seconds) * len(warm))
    return min(warm[start]), min(warm[-1])


def main() -> int:
    """Run it; the status is 1 where memory has grown."""
    parser = argparse.ArgumentParser()
    parser.add_argument('url', help='of an empty database with tables')
    parser.add_argument('--seconds', type=float, default=600)
    parser.add_argument('--growth', type=float, help='in MiB')
    arguments = parser.parse_args()
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    conf([], project='myservice', default_config_files=[])
    conf.set_override('connection', arguments.url, 'database')
    first, last = soak(conf, arguments.seconds)
    allowed = arguments.growth or max(2, first * 0.03)
    print(f'from {first:.1f} to {last:.1f} MiB; {allowed:.1f} are allowed')
    return int(last - first > allowed)


if __name__ == '__main__':
    sys.exit(main())

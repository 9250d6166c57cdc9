"""Chaos: mixed calls by threads in forked workers, which have accidents.

::

    python -m myservice.tests.functional.chaos URL [--seconds 60] [--seed N]

Every call is written down before it begins and when it ends, in a ledger that
outlives whoever writes it. A random worker is interrupted by a signal that
raises, forks a child that closes all pools, or is killed; another one takes
the place of a dead one. At the end the ledger is compared with the database:
what is done is there once, what was refused is not, and each answer was for
the one who had asked. The tables have to be there, and empty.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import conf as options
from myservice import context
from myservice import db
from myservice import exception

WORKERS = 4
THREADS = 3
PROJECTS = ('red', 'green', 'blue')

# What happens to workers; what comes before they can bear it has to wait.
_ACCIDENTS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

# In seconds; for what takes far less where nothing is wrong.
_LONG = 60

_NOT_DONE = (
    exception.ServerError,
    exception.PoolTimeout,
    db_exception.DBDeadlock,
    db_exception.DBConnectionError,
)


class TimeLimit(Exception):
    """What a signal raises, as the time limits of task queues do."""


class Ledger:
    """A file to which all processes add lines, which survive them.

    :param path: of the file
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *entry: Any) -> None:
        """Add an entry, as a whole."""
        os.write(self._file, json.dumps(entry).encode() + b'\n')

    def entries(self) -> list[list[Any]]:
        """Return all entries."""
        return [json.loads(line) for line in self._path.open()]


class Worker:
    """What one process does until it is told to stop.

    :param ledger: where it writes what it does
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stopped = threading.Event()
        self._wants_child = False
        self._is_in_call = False

    def run(self) -> None:
        """Work in several threads, of which the first has the accidents."""
        signal.signal(signal.SIGUSR1, self._interrupt)
        signal.signal(signal.SIGUSR2, self._ask_for_child)
        signal.signal(signal.SIGTERM, lambda *_: self._stopped.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ACCIDENTS)
        threads = [
            threading.Thread(target=self._keep_working, args=(False,))
            for _ in range(THREADS - 1)
        ]
        for thread in threads:
            thread.start()
        self._keep_working(True)
        for thread in threads:
            thread.join()

    def _interrupt(self, *_: Any) -> None:
        if self._is_in_call:
            raise TimeLimit(5)

    def _ask_for_child(self, *_: Any) -> None:
        self._wants_child = True

    def _keep_working(self, has_accidents: bool) -> None:
        try:
            calls = Calls(context.get_admin_context())
            while not self._stopped.is_set():
                self._call(random.choice(calls.all), has_accidents)
                if has_accidents and self._wants_child:
                    self._wants_child = False
                    self._fork()
        except BaseException as error:
            self._ledger.note('broken', repr(error))
            raise

    def _call(
        self, call: Callable[[str], list[Any] | None], has_accidents: bool
    ) -> None:
        name = str(uuid.uuid4())
        self._ledger.note('begun', call.__name__, name)
        try:
            if has_accidents:
                self._is_in_call = True
            try:
                wrong = call(name)
            finally:
                if has_accidents:
                    self._is_in_call = False
        except TimeLimit as limit:
            noted = 'noted' if getattr(limit, '__notes__', ()) else 'not noted'
            self._ledger.note('interrupted', call.__name__, name, noted)
        except exception.CommitUnknown:
            self._ledger.note('unknown', call.__name__, name)
        except _NOT_DONE as error:
            self._ledger.note('refused', call.__name__, name, repr(error))
        except Exception as error:
            self._ledger.note('other', call.__name__, name, repr(error))
        else:
            self._ledger.note('done', call.__name__, name)
            if wrong:
                self._ledger.note('wrong', call.__name__, name, wrong)

    def _fork(self) -> None:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            self._ledger.note('child', status)
            return
        status = 1
        try:
            signal.alarm(_LONG)
            db.api.dispose()
            db.api.service_get_all(context.get_admin_context(), limit=5)
            db.api.dispose()
            status = 0
        finally:
            os._exit(status)


class Calls:
    """The calls; each takes a name that nobody else has.

    :param ctx: the caller's context, of one thread
    """

    def __init__(self, ctx: context.RequestContext) -> None:
        self._context = ctx
        self.all = (
            self.create,
            self.create_two,
            self.create_in_one_transaction,
            self.destroy,
            self.reserve,
            self.beat,
        )

    def create(self, name: str) -> Any:
        """Create a service; read it back."""
        made = db.api.service_create(
            self._context, {'host': name, 'binary': 'one'}
        )
        row = db.api.service_get(self._context, made.id)
        return [name, row.host] if row.host != name else None

    def create_two(self, name: str) -> Any:
        """Create two services, both or none, with retries."""
        two = db.api.run_in_transaction(self._context, self._two, name)
        return two if two != [name, name] else None

    def create_in_one_transaction(self, name: str) -> Any:
        """Create two services, both or none."""
        with db.api.transaction(self._context):
            two = self._two(self._context, name)
        return two if two != [name, name] else None

    def _two(self, ctx: context.RequestContext, name: str) -> list[str]:
        return [
            db.api.service_create(ctx, {'host': name, 'binary': binary}).host
            for binary in ('one', 'two')
        ]

    def destroy(self, name: str) -> Any:
        """Create a resource, which takes quota, and destroy it."""
        made = self._create_resource(name)
        db.api.resource_destroy(self._context, made.id)
        return [name, made.name] if made.name != name else None

    def reserve(self, name: str) -> Any:
        """Create a resource, and reserve and commit beside it."""
        made = self._create_resource(name)
        project = made.project_id
        reservations = db.api.quota_reserve(
            self._context, {'networks': 1}, project_id=project
        )
        db.api.reservation_commit(
            self._context, reservations, project_id=project
        )
        return [name, made.name] if made.name != name else None

    def _create_resource(self, name: str) -> Any:
        return db.api.resource_create(
            self._context,
            {'name': name, 'size': 1, 'project_id': random.choice(PROJECTS)},
        )

    def beat(self, name: str) -> Any:
        """Register a service, beat, and read."""
        made = db.api.service_register(
            self._context, {'host': name, 'binary': 'one'}
        )
        db.api.service_heartbeat(self._context, made.id)
        row = db.api.service_get_by_host_and_binary(self._context, name, 'one')
        return [made.id, row.id] if row.id != made.id else None


class Chaos:
    """The workers, and what happens to them.

    :param ledger: where they write
    :param seconds: how long it goes on
    """

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._workers: list[int] = []
        self.accidents: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Let it happen."""
        self._workers = [self._start() for _ in range(WORKERS)]
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            time.sleep(random.uniform(0.01, 0.2))
            self._accident()
        for worker in self._workers:
            os.kill(worker, signal.SIGTERM)
        for worker in self._workers:
            _, status = os.waitpid(worker, 0)
            self._ledger.note('ended', status)

    def _start(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ACCIDENTS)
        worker = os.fork()
        if worker:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ACCIDENTS)
            return worker
        status = 1
        try:
            Worker(self._ledger).run()
            status = 0
        finally:
            os._exit(status)

    def _accident(self) -> None:
        number = random.randrange(WORKERS)
        what = random.choices(
            (signal.SIGUSR1, signal.SIGUSR2, signal.SIGKILL), (10, 3, 1)
        )[0]
        self.accidents[what.name] += 1
        os.kill(self._workers[number], what)
        if what == signal.SIGKILL:
            os.waitpid(self._workers[number], 0)
            self._workers[number] = self._start()


def compare(entries: list[list[Any]]) -> tuple[dict[str, int], list[Any]]:
    """Compare what was written down with the database.

    :returns: counts of what became of the calls; and what is wrong
    """
    ends: dict[str, str] = {}
    calls: dict[str, str] = {}
    wrong: list[Any] = []
    for what, *entry in entries:
        if what == 'begun':
            calls[entry[1]] = entry[0]
        elif what in ('done', 'refused', 'interrupted', 'unknown', 'other'):
            ends[entry[1]] = what
        elif what in ('wrong', 'broken') or entry[0] != 0:
            wrong.append([what, *entry])
    found = Found()
    for name, call in calls.items():
        end = ends.get(name, 'cut off')
        if not found.fits(call, name, end):
            wrong.append([end, call, name, found.count(call, name)])
    counts = collections.Counter(ends.values())
    counts['cut off'] = len(calls) - len(ends)
    return dict(counts), wrong + found.quotas()


class Found:
    """What is in the database at the end."""

    def __init__(self) -> None:
        self._context = context.get_admin_context('yes')
        self._services = collections.Counter(
            row.host for row in db.api.service_get_all(self._context)
        )
        self._resources = collections.Counter(
            row.name for row in db.api.resource_get_all(self._context)
        )

    def count(self, call: str, name: str) -> int:
        """Return how many rows a call has left."""
        rows = (
            self._resources
            if call in ('destroy', 'reserve')
            else self._services
        )
        return rows[name]

    def fits(self, call: str, name: str, end: str) -> bool:
        """Return whether what is there is what a call says that it did."""
        whole = 2 if call in ('create_two', 'create_in_one_transaction') else 1
        several = call in ('create', 'destroy', 'reserve', 'beat')
        allowed = {
            'done': {whole},
            # Of several calls the first may have been done.
            'refused': {0, whole} if several else {0},
        }.get(end, {0, whole})
        return self.count(call, name) in allowed

    def quotas(self) -> list[Any]:
        """Return the usages that differ from what they count."""
        living = context.get_admin_context()
        return [
            [project, differences]
            for project in PROJECTS
            if (differences := db.api.quota_usage_check(living, project))
        ]


def main() -> int:
    """Run it, and print what became of the calls."""
    parser = argparse.ArgumentParser()
    parser.add_argument('url', help='of an empty database with tables')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    conf([], project='myservice', default_config_files=[])
    conf.set_override('connection', arguments.url, 'database')
    conf.set_override(
        'default_limits',
        {'resources': -1, 'gigabytes': -1, 'networks': -1},
        'quota',
    )
    db.api.configure(conf)
    # The workers inherit connections that were used.
    db.api.service_get_all(context.get_admin_context())
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(pathlib.Path(directory, 'ledger'))
        chaos = Chaos(ledger, arguments.seconds)
        chaos.run()
        ledger_entries = ledger.entries()
        counts, wrong = compare(ledger_entries)
    print(
        f'seed {arguments.seed}, {arguments.seconds} s: '
        f'accidents {dict(chaos.accidents)}, calls {counts}, '
        f'wrong {len(wrong)}'
    )
    for each in wrong[:20]:
        print(each)
    # An interrupt can come at a moment in which SQLAlchemy makes another error
    # of it. That loses nothing, and is worth a look.
    for what, *entry in ledger_entries:
        if what == 'other':
            print('another error:', *entry)
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())

"""Every public writing function times every fault times every server.

Each cell makes an example call and lets one fault happen at one of the
commands that the call sends, for each of them in turn. What is then in the
database is compared with what the same call leaves there undisturbed:

- a call that returned must have happened once; an empty list says that it
  has passed by what somebody else held, and must have done nothing;
- one that raised an ordinary error must not have happened;
- one that raised CommitUnknown, either;
- one that was interrupted by a signal must not have happened, unless the
  exception notes that this is unknown.

Anything else is a violation. As a program it prints the matrix, and writes a
summary of it, a line for each fault, to a file::

    python -m myservice.tests.functional.fault_matrix [FILE]
"""

import collections
import contextlib
import dataclasses
import datetime
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice import fixtures
from myservice import servers
from myservice.db import models
from myservice.db import operation
from myservice.db.sql import dialects
from myservice.tests import calls
from myservice.tests import interrupts
from myservice.tests import proxy

LATE = 0.15

# More commands than any call sends.
_NEVER = 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """How one call ended, and whether it had a right to."""

    outcome: str
    violation: str = ''


# How often each outcome came, by database, function and fault.
Outcomes = dict[tuple[str, str, str], collections.Counter[str]]

# What a fault does while a call is made: a context manager that is given the
# matrix and the number of the command to hit.
Fault = Callable[['Matrix', int], contextlib.AbstractContextManager[None]]


class Matrix:
    """The matrix of one database.

    :param database: the fixture, set up
    :param between: the proxy in front of it; None for SQLite
    :param interrupt: the fixture, set up
    """

    def __init__(
        self,
        database: fixtures.Database,
        between: proxy.FaultProxy | None,
        interrupt: interrupts.Interrupt,
    ) -> None:
        self.database = database
        self.between = between
        self.interrupt = interrupt
        # Looks at the database past proxy and layer.
        self.direct = sa.create_engine(
            database.connection, poolclass=sa.NullPool
        )

    def rows(self) -> Iterator[tuple[str, str, Cell]]:
        """Return function, fault and outcome, cell by cell."""
        for name in filter(calls.writes, calls.names()):
            expected, commands = self._undisturbed(name)
            for fault_name, fault in self._faults().items():
                positions = (
                    range(commands) if fault_name in AT_COMMANDS else [0]
                )
                cells = [
                    self._cell(name, fault, position, expected)
                    for position in positions
                ]
                for cell in cells:
                    yield name, fault_name, cell

    def _faults(self) -> dict[str, Fault]:
        if self.between is None:
            return {'writer busy': locked} | INTERRUPTS
        return AT_COMMANDS | CONNECTIONS | {'rows locked': locked}

    def _undisturbed(self, name: str) -> tuple[Any, int]:
        world = self._new_world()
        before = self._contents()
        with self.interrupt.at(_NEVER, lambda: None) as commands:
            calls.example(name, world)()
        return _difference(before, self._contents()), commands.seen

    def _cell(
        self, name: str, fault: Fault, position: int, expected: Any
    ) -> Cell:
        world = self._new_world()
        before = self._contents()
        call = calls.example(name, world)
        with fault(self, position):
            try:
                outcome = 'passed by' if call() == [] else 'once'
            except exception.CommitUnknown:
                outcome = 'unknown'
            except interrupts.TimeLimit as error:
                outcome = 'interrupted'
                if operation.says_unknown(error):
                    outcome = 'interrupted, unknown'
            except Exception as error:
                outcome = type(error).__name__
        found = _difference(before, self._contents())
        allowed = {
            'once': (expected,),
            'unknown': (expected, NOTHING),
            'interrupted, unknown': (expected, NOTHING),
        }.get(outcome, (NOTHING,))
        if found in allowed:
            return Cell(outcome)
        return Cell(outcome, f'{name} at {position}: {outcome}, but {found}')

    def _new_world(self) -> calls.World:
        with self.direct.begin() as connection:
            for table in reversed(models.Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))
        world = calls.World()
        # All connections that a call needs are there, as in a process that
        # has been running for a while.
        for form in ('transaction', 'autocommit'):
            self.database.engine(form).connect().close()
        return world

    def _contents(self) -> dict[str, dict[str, dict[str, Any]]]:
        with self.direct.connect() as connection:
            return {
                table.name: {
                    tuple(
                        row._mapping[key] for key in table.primary_key
                    ): dict(row._mapping)
                    for row in connection.execute(sa.select(table))
                }
                for table in models.Base.metadata.sorted_tables
            }


NOTHING: tuple[Any, ...] = ()


def _difference(before: Any, after: Any) -> tuple[Any, ...]:
    """Return what happened to the rows, without what differs each time.

    When a row was written last does not say how often.
    """

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: type(value)
            if isinstance(value, datetime.datetime) or name == 'attempt'
            else bool(value)
            if name in ('deleted', 'operation', 'service_id', 'resource_id')
            else value
            for name, value in row.items()
            if name not in ('id', 'updated_at')
        }

    changes: list[tuple[Any, ...]] = []
    for table, rows in after.items():
        for row_id, row in rows.items():
            old = before[table].get(row_id)
            if old is None:
                changes.append(
                    (table, 'new', sorted(plain(row).items(), key=str))
                )
            elif old != row:
                plainly = plain(row)
                changed = {name for name in plainly if row[name] != old[name]}
                changes.append(
                    (
                        table,
                        'changed',
                        sorted((n, str(plainly[n])) for n in changed),
                    )
                )
        gone = before[table].keys() - rows.keys()
        changes += [(table, 'gone', len(gone))] if gone else []
    return tuple(sorted(changes, key=str))


def _at_command(action: proxy.Action) -> Fault:
    @contextlib.contextmanager
    def fault(matrix: Matrix, position: int) -> Iterator[None]:
        left = [position]
        lock = threading.Lock()

        def decide(command: proxy.Command) -> proxy.Action | None:
            if command.kind in ('connect', 'quit'):
                return None
            with lock:
                left[0] -= 1
                return action if left[0] == -1 else None

        assert matrix.between is not None
        matrix.between.decide = decide
        try:
            yield
            if isinstance(action, proxy.DeliverLate):
                time.sleep(action.seconds + 0.1)
        finally:
            matrix.between.decide = lambda command: None

    return fault


@contextlib.contextmanager
def _stale(matrix: Matrix, position: int) -> Iterator[None]:
    """Every pooled connection has died unnoticed."""
    assert matrix.between is not None
    matrix.between.drop_all()
    yield


@contextlib.contextmanager
def _away(matrix: Matrix, position: int) -> Iterator[None]:
    """The server is gone, and comes back a little later."""
    between = matrix.between
    assert between is not None
    between.refuse = True
    between.drop_all()

    def come_back() -> None:
        between.refuse = False

    timer = threading.Timer(LATE, come_back)
    timer.start()
    yield
    timer.join()


@contextlib.contextmanager
def locked(matrix: Matrix, position: int) -> Iterator[None]:
    """Somebody holds all rows for longer than a statement may wait."""
    with matrix.direct.connect() as connection:
        if dialects.backend_of(connection.dialect) == 'sqlite':
            connection.exec_driver_sql('BEGIN IMMEDIATE')
        else:
            for table in models.Base.metadata.sorted_tables:
                connection.execute(sa.select(table).with_for_update())
        # Longer than each of them waits; MariaDB knows whole seconds only.
        seconds = {'sqlite': 0.5, 'postgresql': 0.8}.get(
            dialects.backend_of(connection.dialect), 1.5
        )
        let_go = threading.Timer(seconds, connection.rollback)
        let_go.start()
        yield
        let_go.join()


def _interrupted(arrives: bool) -> Fault:
    @contextlib.contextmanager
    def fault(matrix: Matrix, position: int) -> Iterator[None]:
        handler = interrupts.raising(interrupts.TimeLimit())
        with matrix.interrupt.at(position, handler, arrives):
            yield
        if arrives:
            # Nobody waits for what the server does now.
            time.sleep(LATE)

    return fault


INTERRUPTS: dict[str, Fault] = {
    'interrupted': _interrupted(arrives=True),
    'interrupted and lost': _interrupted(arrives=False),
}

AT_COMMANDS: dict[str, Fault] = INTERRUPTS | {
    'lost before it arrives': _at_command(proxy.DropBefore()),
    'reply lost': _at_command(proxy.DropAfter()),
    'reply cut in half': _at_command(proxy.DropMiddle()),
    'arrives late': _at_command(proxy.DeliverLate(LATE)),
    'slow': _at_command(proxy.Delay(0.05)),
}

CONNECTIONS: dict[str, Fault] = {
    'pool gone stale': _stale,
    'server away': _away,
}


@contextlib.contextmanager
def matrix_of(backend: str) -> Iterator[Matrix]:
    """Give the matrix of SQLite, or of a private server.

    :param backend: sqlite, mariadb or postgresql
    """
    with contextlib.ExitStack() as stack:
        between = None
        if backend == 'sqlite':
            database = stack.enter_context(
                fixtures.Database(sqlite_busy_timeout=0.1)
            )
        else:
            limits = {
                'mariadb': {'innodb_lock_wait_timeout': 1},
                'postgresql': {'lock_timeout': '500ms'},
            }[backend]
            server = servers.SERVERS[backend](**limits)
            stack.enter_context(server)
            database = stack.enter_context(fixtures.Database(server.url))
            models.Base.metadata.create_all(database.engine())
            between = stack.enter_context(proxy.FaultProxy(server.url))
            database.configure(connection=between.url)
        engine = database.engine() if between is None else None
        interrupt = interrupts.Interrupt(engine, between)
        yield Matrix(database, between, stack.enter_context(interrupt))


def run() -> tuple[Outcomes, list[str]]:
    """Run the whole matrix.

    :returns: how often each outcome came, by database, function and fault;
        and the violations
    """
    outcomes: Outcomes = collections.defaultdict(collections.Counter)
    violations = []
    for backend in ('sqlite', 'mariadb', 'postgresql'):
        with matrix_of(backend) as matrix:
            for name, fault, cell in matrix.rows():
                outcomes[backend, name, fault][cell.outcome] += 1
                if cell.violation:
                    violations.append(f'{backend}: {fault}: {cell.violation}')
    return outcomes, violations


def summary(outcomes: Outcomes) -> list[str]:
    """Return a table in reStructuredText: a line for each fault."""
    functions: collections.Counter[tuple[str, str]] = collections.Counter()
    totals: dict[Any, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for (backend, _, fault), counts in outcomes.items():
        functions[backend, fault] += 1
        totals[backend, fault] += counts
    rows: list[tuple[str, ...]] = [
        ('database', 'fault', 'functions', 'calls', 'outcomes'),
        *(
            (
                backend,
                fault,
                str(functions[backend, fault]),
                str(counts.total()),
                _said(counts),
            )
            for (backend, fault), counts in totals.items()
        ),
    ]
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for first, *others in rows:
        lines.append(f'   * - {first}')
        lines += [f'     - {cell}' for cell in others]
    return lines


def _said(counts: collections.Counter[str]) -> str:
    return ', '.join(f'{what} {n}' for what, n in sorted(counts.items()))


def main() -> int:
    """Print the matrix; write its summary to a file if one is named."""
    started = time.monotonic()
    outcomes, violations = run()
    if len(sys.argv) > 1:
        with open(sys.argv[1], 'w') as file:
            file.write('\n'.join(summary(outcomes)) + '\n')
    for key, counts in outcomes.items():
        print(*key, _said(counts), sep='; ')
    print(*violations, sep='\n')
    seconds = time.monotonic() - started
    print(f'{len(violations)} violations in {seconds:.0f} seconds')
    return bool(violations)


if __name__ == '__main__':
    sys.exit(main())

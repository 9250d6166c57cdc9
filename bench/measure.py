"""Lets ways take turns, and notes what each call costs."""

import dataclasses
import gc
import pathlib
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from data import Data
from jobs import Arguments
from jobs import Job
from ways.base import Way

from myservice.tests import servers

#: what is noted of each call, in microseconds
CLOCKS = ('cpu', 'wall', 'server')


class ServerClock:
    """The CPU time of the processes of a server, by the kernel's clocks.

    :param server: a server that runs; without one there is no such time
    """

    def __init__(self, server: servers.Server | None = None) -> None:
        process = server.process if server else None
        self._pid = process.pid if process else None
        self._seen: dict[int, float] = {}
        self._total = 0.0

    def seconds(self) -> float:
        """Return a time that grows by what the server has used."""
        if self._pid is None:
            return 0.0
        for pid in (self._pid, *_children(self._pid)):
            now = _cpu_seconds(pid)
            self._total += max(now - self._seen.get(pid, 0.0), 0.0)
            self._seen[pid] = now
        return self._total


def _children(pid: int) -> list[int]:
    # PostgreSQL has a process for each connection.
    path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
    return [int(child) for child in path.read_text().split()]


def _cpu_seconds(pid: int) -> float:
    try:
        # The kernel has a clock for the CPU time of every process; this is
        # how glibc's clock_getcpuclockid(3) makes its number.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        # It has just ended.
        return 0.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a call of a batch has cost, in microseconds."""

    cpu: float
    wall: float
    server: float


def timed(
    call: Callable[..., Any],
    arguments: Arguments,
    server: ServerClock,
    keep: bool,
) -> tuple[Sample, list[Any]]:
    """Make some calls, and return what each has cost, and the results.

    :param call: the call
    :param arguments: those of each call
    :param server: the clock of the server
    :param keep: whether somebody wants the results
    """
    results: list[Any] = []
    at_server, wall, cpu = (
        server.seconds(),
        time.perf_counter(),
        time.process_time(),
    )
    if keep:
        for each in arguments:
            results.append(call(*each))
    else:
        for each in arguments:
            call(*each)
    cpu = time.process_time() - cpu
    wall = time.perf_counter() - wall
    at_server = server.seconds() - at_server
    scale = 1e6 / len(arguments)
    return Sample(cpu * scale, wall * scale, at_server * scale), results


class Comparison:
    """The samples of all ways at one job.

    :param job: the job
    :param ways: the ways, the first of which the others are compared with
    :param data: the rows
    :param server: the clock of the server
    :param calls: how many calls a round has, if the job says nothing else
    """

    def __init__(
        self,
        job: Job,
        ways: Sequence[Way],
        data: Data,
        server: ServerClock,
        calls: int,
    ) -> None:
        self._job = job
        self._ways = list(ways)
        self._data = data
        self._server = server
        self._calls = max(round(calls * job.part), 1)
        self.samples: dict[str, dict[str, list[Sample]]] = {
            step: {} for step in job.steps
        }

    def warm_up(self) -> None:
        """Let each way do it some times, unmeasured."""
        # psycopg prepares what it has sent five times.
        count = min(self._calls, 8)
        for label, way in self._labelled():
            for _ in self._batch(label, way, count):
                pass

    def round(self, turn: int) -> None:
        """Measure each way once, in another order each time.

        :param turn: the number of the round
        """
        gc.collect()
        ways = self._labelled()
        first = turn // 2 % len(ways)
        order = ways[first:] + ways[:first]
        for label, way in order if turn % 2 else order[::-1]:
            for step, sample in self._batch(label, way, self._calls):
                self.samples[step].setdefault(label, []).append(sample)

    def _labelled(self) -> list[tuple[str, Way]]:
        # The first one twice: what differs between the two is noise.
        first, *others = ((way.name, way) for way in self._ways)
        return [first, (f'{first[0]} again', first[1]), *others]

    def _batch(
        self, label: str, way: Way, calls: int
    ) -> Iterator[tuple[str, Sample]]:
        arguments = self._job.arguments(self._data, calls)
        steps = list(self._job.steps)
        for step in steps:
            # What the one before has left is not for this one to clear up;
            # of short calls it is little, and all of it would take long.
            gc.collect(1 if self._job.part else 2)
            sample, results = timed(
                getattr(way, step), arguments, self._server, step != steps[-1]
            )
            arguments = [(result,) for result in results]
            yield step, sample

    def figures(self) -> list[dict[str, Any]]:
        """Return what is printed of each step and way."""
        return [
            {
                'job': self._job.name,
                'call': self._job.steps[step],
                'way': way,
                'calls': self._calls * len(samples),
                'rounds': len(samples),
                **{clock: median(samples, clock) for clock in CLOCKS},
                'ratios': {
                    to: {
                        clock: ratio(samples, of_ways[to], clock)
                        for clock in CLOCKS
                    }
                    for to in of_ways
                    if to in ('driver', 'oslo.db') or way == 'layer'
                },
            }
            for step, of_ways in self.samples.items()
            for way, samples in (
                (way, of_ways[way]) for way, _ in self._labelled()
            )
        ]


def median(samples: list[Sample], clock: str) -> float:
    """Return the median of one clock."""
    values: list[float] = [getattr(sample, clock) for sample in samples]
    return statistics.median(values)


def ratio(
    samples: list[Sample], others: list[Sample], clock: str
) -> dict[str, float] | None:
    """Return how one compares with another, round by round.

    :param samples: of the one
    :param others: of the other, in the same rounds
    :param clock: one of CLOCKS
    :returns: median and quartiles of the ratios; None where there is no time
    """
    ratios = [
        getattr(sample, clock) / getattr(other, clock)
        for sample, other in zip(samples, others, strict=True)
        if getattr(other, clock)
    ]
    if not ratios:
        return None
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method='inclusive')
        if len(ratios) > 1
        else ratios * 3
    )
    return {'median': middle, 'low': low, 'high': high}

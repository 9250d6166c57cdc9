"""Lets ways take turns, and records the cost of each call."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from data import Data
from jobs import Arguments
from jobs import Job

#: the clocks that are recorded for each call, in microseconds
CLOCKS = ('cpu', 'wall')


@dataclasses.dataclass(frozen=True)
class Sample:
    """The cost of a call of a batch, in microseconds."""

    cpu: float
    wall: float


def timed(
    call: Callable[..., Any],
    arguments: Arguments,
    keep: bool,
) -> tuple[Sample, list[Any]]:
    """Make some calls, and return the cost of each, and the results.

    :param call: the call
    :param arguments: the arguments of each call
    :param keep: whether to return the results
    """
    results: list[Any] = []
    wall, cpu = time.perf_counter(), time.process_time()
    if keep:
        for each in arguments:
            results.append(call(*each))
    else:
        for each in arguments:
            call(*each)
    cpu = time.process_time() - cpu
    wall = time.perf_counter() - wall
    scale = 1e6 / len(arguments)
    return Sample(cpu * scale, wall * scale), results


class Comparison:
    """The samples of all ways at one job.

    :param job: the job
    :param ways: the ways; the others are compared with the first
    :param data: the rows
    :param calls: how many calls a round has, if the job says nothing else
    """

    def __init__(
        self,
        job: Job,
        ways: Sequence[Any],
        data: Data,
        calls: int,
    ) -> None:
        self._job = job
        self._ways = list(ways)
        self._data = data
        self._calls = max(round(calls * job.part), 1)
        self.samples: dict[str, dict[str, list[Sample]]] = {
            step: {} for step in job.steps
        }

    def warm_up(self) -> None:
        """Let each way do the job a few times, unmeasured."""
        # psycopg prepares a statement after five executions.
        count = min(self._calls, 8)
        for label, way in self._labelled():
            for _ in self._batch(label, way, count):
                pass

    def round(self, turn: int) -> None:
        """Measure each way once; the order changes with the turn.

        :param turn: the number of the round
        """
        gc.collect()
        ways = self._labelled()
        first = turn // 2 % len(ways)
        order = ways[first:] + ways[:first]
        for label, way in order if turn % 2 else order[::-1]:
            for step, sample in self._batch(label, way, self._calls):
                self.samples[step].setdefault(label, []).append(sample)

    def _labelled(self) -> list[tuple[str, Any]]:
        # The first one twice: the difference between the two is noise.
        first, *others = ((way.name, way) for way in self._ways)
        return [first, (f'{first[0]} again', first[1]), *others]

    def _batch(
        self, label: str, way: Any, calls: int
    ) -> Iterator[tuple[str, Sample]]:
        arguments = self._job.arguments(self._data, calls)
        steps = list(self._job.steps)
        for step in steps:
            # A way must not pay for the garbage of the one before; short calls
            # leave little, and a full collection takes long.
            gc.collect(1 if self._job.part else 2)
            sample, results = timed(
                getattr(way, step), arguments, step != steps[-1]
            )
            arguments = [(result,) for result in results]
            yield step, sample

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures to print of each step and way."""
        return [
            {
                'job': self._job.name,
                'call': self._job.steps[step],
                'way': way,
                'calls': self._calls * len(samples),
                'rounds': len(samples),
                **{clock: median(samples, clock) for clock in CLOCKS},
                'ratios': {
                    clock: ratio(samples, of_ways['driver'], clock)
                    for clock in CLOCKS
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
) -> dict[str, float]:
    """Return the ratios of two ways, round by round.

    :param samples: the samples of the first way
    :param others: those of the second way, in the same rounds
    :param clock: one of CLOCKS
    :returns: median and quartiles of the ratios
    """
    ratios = [
        getattr(sample, clock) / getattr(other, clock)
        for sample, other in zip(samples, others, strict=True)
    ]
    low, middle, high = (
        statistics.quantiles(ratios, n=4, method='inclusive')
        if len(ratios) > 1
        else ratios * 3
    )
    return {'median': middle, 'low': low, 'high': high}

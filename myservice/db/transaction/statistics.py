"""Counters of the layer's work in this process."""

import collections
import dataclasses
import threading

from myservice.db.engine import engines
from myservice.db.engine import fork


class _Counters:
    """The counters of this process; a forked child begins at zero."""

    def __init__(self) -> None:
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin at zero."""
        # Reentrant: a signal handler or a finalizer may call while it is held.
        self.lock = threading.RLock()
        self.calls: collections.Counter[str] = collections.Counter()
        self.retries: collections.Counter[str] = collections.Counter()
        self.in_doubt: collections.Counter[str] = collections.Counter()


_counters = _Counters()


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The result of ``statistics()``; all since the process started."""

    #: function to the number of its calls
    calls: dict[str, int]
    #: class of the error to the number of attempts repeated for it
    retries: dict[str, int]
    #: commits whose reply was lost, and which were then settled
    in_doubt_resolved: int
    #: commits whose outcome stayed unknown: CommitUnknown was raised
    in_doubt_unresolved: int
    #: form of the engine to size, checked_out and overflow of its pool
    pools: dict[str, dict[str, int]]


def statistics() -> Statistics:
    """Return counters of this process: calls, retries, doubts, pool use.

    :returns: a Statistics; it does not change any more
    """
    with _counters.lock:
        return Statistics(
            calls=dict(_counters.calls),
            retries=dict(_counters.retries),
            in_doubt_resolved=_counters.in_doubt['resolved'],
            in_doubt_unresolved=_counters.in_doubt['unresolved'],
            pools=engines.get_engines().pool_use(),
        )


def count_call(function: str) -> None:
    """Count one call of a public function."""
    with _counters.lock:
        _counters.calls[function] += 1


def count_retry(error: Exception) -> None:
    """Count one attempt that is repeated."""
    with _counters.lock:
        _counters.retries[type(error).__name__] += 1


def count_in_doubt(resolved: bool) -> None:
    """Count the end of one doubt."""
    with _counters.lock:
        _counters.in_doubt['resolved' if resolved else 'unresolved'] += 1

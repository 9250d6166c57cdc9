"""Periodic tasks: what a process does beside its work, every so often."""

import logging
import threading
import time
from collections.abc import Callable

from oslo_db import exception as db_exception

from myservice import context
from myservice import exception

LOG = logging.getLogger(__name__)

# What a database that is away, or in trouble, makes of a call.
DATABASE_ERRORS = (
    db_exception.DBError,
    exception.CommitUnknown,
    exception.PoolTimeout,
    exception.ServerError,
)

Task = Callable[[context.RequestContext], object]


class PeriodicTasks:
    """Runs tasks in a thread of its own, so that none delays a heartbeat.

    A task whose database is away is left for its next time.

    :param tasks: (seconds between two times, the task), which is called with
        an administrator's context
    """

    def __init__(self, tasks: list[tuple[float, Task]]) -> None:
        self._tasks = tasks
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name='periodic tasks', daemon=True
        )

    def start(self) -> None:
        """Begin; each task comes first after its own interval."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other task; what runs now ends with the process."""
        self._stopped.set()

    def _run(self) -> None:
        started = time.monotonic()
        due = [started + interval for interval, _ in self._tasks]
        while not self._stopped.wait(max(0, min(due) - time.monotonic())):
            number = due.index(min(due))
            interval, task = self._tasks[number]
            self._call(task)
            due[number] = time.monotonic() + interval

    def _call(self, task: Task) -> None:
        name = getattr(task, '__name__', repr(task))
        try:
            task(context.get_admin_context())
        except DATABASE_ERRORS as error:
            LOG.warning('%s failed: %s', name, str(error).partition('\n')[0])
        except Exception:
            # A thread would end here without a word.
            LOG.exception('%s failed', name)

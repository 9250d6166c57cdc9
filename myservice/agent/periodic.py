"""Periodic tasks: what a process does at intervals, beside its work."""

import logging
import threading
import time
from collections.abc import Callable

from myservice import context
from myservice import db
from myservice import threads

LOG = logging.getLogger(__name__)

Task = Callable[[context.RequestContext], object]


class PeriodicTasks:
    """Runs tasks in a separate thread, so that none delays a heartbeat.

    A task that cannot reach the database is tried again after its interval.

    :param tasks: pairs of a function that returns the interval in seconds, and
        a task, which is called with an administrator's context
    :param guard: starts the thread
    :param name: the name of the thread
    """

    def __init__(
        self,
        tasks: list[tuple[Callable[[], float], Task]],
        guard: threads.Guard | None = None,
        name: str = 'periodic tasks',
    ) -> None:
        self._tasks = tasks
        self._guard = guard or threads.Guard()
        self._name = name
        self._is_stopped = False
        self._woken = threading.Event()

    def start(self) -> None:
        """Begin; each task runs first after its own interval."""
        self._guard.start(self._name, self._run)

    def stop(self) -> None:
        """Start no other task; one that runs now ends with the process."""
        self._is_stopped = True
        self._woken.set()

    def wake(self) -> None:
        """Read the intervals again."""
        self._woken.set()

    def _run(self) -> None:
        ended = [time.monotonic()] * len(self._tasks)
        while not self._is_stopped:
            due = [
                before + interval()
                for before, (interval, _) in zip(
                    ended, self._tasks, strict=True
                )
            ]
            if self._woken.wait(max(0, min(due) - time.monotonic())):
                self._woken.clear()
                continue
            number = due.index(min(due))
            self._call(self._tasks[number][1])
            ended[number] = time.monotonic()

    def _call(self, task: Task) -> None:
        name = getattr(task, '__name__', repr(task))
        try:
            task(context.get_admin_context())
        except db.api.DATABASE_ERRORS as error:
            LOG.warning('%s failed: %s', name, str(error).partition('\n')[0])
        except Exception:
            # Otherwise the thread would end here.
            LOG.exception('%s failed', name)

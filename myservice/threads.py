"""The threads of an agent: none of them fails without a message."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from myservice import exception

LOG = logging.getLogger(__name__)


class Guard:
    """Starts threads, and reports when one of them has failed.

    Otherwise the process would go on with only a part of its work, and nobody
    would notice.

    :param on_failure: called in the thread that has failed
    """

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        self._on_failure = on_failure
        #: the first failure, if there was one
        self.failure: exception.ThreadFailed | None = None

    def start(
        self, name: str, target: Callable[..., None], *args: Any
    ) -> threading.Thread:
        """Start a thread, which ends with the process.

        :param name: the name of the thread
        :param target: what it runs
        :param args: its arguments
        :returns: the thread
        """
        thread = threading.Thread(
            target=self._run, args=(target, *args), name=name, daemon=True
        )
        thread.start()
        return thread

    def check(self) -> None:
        """Raise the failure, if there was one.

        :raises ThreadFailed: when a thread has failed
        """
        if self.failure is not None:
            raise self.failure

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        name = threading.current_thread().name
        try:
            target(*args)
        # SystemExit would only end the thread.
        except BaseException as error:
            self.failure = self.failure or exception.ThreadFailed(
                thread=name, reason=f'{type(error).__name__}: {error}'
            )
            LOG.critical('Thread "%s" failed', name, exc_info=True)
            self._on_failure()

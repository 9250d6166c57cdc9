"""The attempts of one call: which errors are followed by another, and when."""

import contextlib
import logging
import random
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Generic
from typing import TypeVar

from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import exception
from myservice.db import operation
from myservice.db.engine import engines
from myservice.db.engine import errors
from myservice.db.transaction import contention
from myservice.db.transaction import statistics

LOG = logging.getLogger(__name__)

_REFUSALS = (
    exception.NotFound,
    exception.Conflict,
    db_exception.DBDuplicateEntry,
)
_LOST = (exception.CommitUnknown, db_exception.DBConnectionError)

# In seconds. A deadlock is over when it is reported; waiting a second would
# cost a thousand calls.
_SHORT_START = 0.01


R = TypeVar('R')


class Attempts(Generic[R]):
    """One call and its attempts.

    :param call: the operation of all attempts
    :param attempt: makes one attempt and returns the result
    :param settle_call: returns the result of an earlier attempt that has left
        its trace in the database, else raises NotFound
    """

    def __init__(
        self,
        call: operation.Operation,
        attempt: Callable[[], R],
        settle_call: Callable[[], R],
    ) -> None:
        self._attempt = attempt
        self._settle_call = settle_call
        self._operation = call
        self._doubt: exception.CommitUnknown | None = None
        self._final = False
        self._started = self._attempted = time.monotonic()

    def run(self) -> R:
        """Try until there is a result, or an error that is final."""
        try:
            return operation.run(self._operation, self._run)
        except BaseException as error:
            self._operation.note_doubt(error)
            raise

    def _run(self) -> R:
        number = 1
        while True:
            self._operation.attempt = number
            try:
                result = self._in_turn()
            except Exception as error:
                transient = self._transient(error)
                # A transient error has done nothing, or is a doubt.
                self._operation.sent = self._doubt is not None
                self._wait_or_give_up(number, transient)
            else:
                self.end_doubt()
                return result
            number += 1

    def _transient(self, error: Exception) -> Exception:
        """Return the transient cause of an error, or raise the final one."""
        if operation.says_unknown(error):
            raise error
        if isinstance(error, errors.TRANSIENT):
            return error
        if isinstance(error, exception.CommitUnknown):
            if error.operation != self._operation.id or self._final:
                raise error
            self._doubt = error
            return error
        if isinstance(error, exception.TransactionDoomed):
            # The error that doomed it was caught on its way up.
            if isinstance(error.__cause__, errors.TRANSIENT):
                return error.__cause__
        if self._doubt is None or not errors.is_typed(error):
            raise error
        # This error does not tell about the attempt that was lost.
        raise self._unknown(error) from error

    def _in_turn(self) -> R:
        collisions = contention.collisions_of(
            engines.get_engines(), self._operation.function
        )
        try:
            return collisions.avoid(self._attempt_or_trace)
        except db_exception.DBDeadlock as error:
            if errors.has_ended_transaction(error):
                collisions.note(time.monotonic() - self._attempted)
            raise

    def _attempt_or_trace(self) -> R:
        self._attempted = time.monotonic()
        try:
            return self._attempt()
        except _REFUSALS as refusal:
            if self._doubt is None:
                raise
            try:
                return self._settle_call()
            except exception.NotFound:
                raise self._unknown(refusal) from refusal

    @contextlib.contextmanager
    def foreign_doubts(self) -> Iterator[None]:
        """Note that a COMMIT in this block belongs to another operation."""
        try:
            yield
        except exception.CommitUnknown:
            self._final = True
            raise
        finally:
            # COMMITs in between belong to another operation.
            self._operation.sent = False

    def end_doubt(self) -> None:
        """Note that the outcome of the attempts so far is known."""
        if self._doubt is not None:
            self._doubt = None
            self._operation.sent = False
            statistics.count_in_doubt(resolved=True)

    def _unknown(self, reason: Exception) -> exception.CommitUnknown:
        self._final = True
        statistics.count_in_doubt(resolved=False)
        lost = self._doubt.known if self._doubt else ''
        return exception.CommitUnknown(
            function=self._operation.function,
            operation=self._operation.id,
            known=f'{lost}; tried again: {errors.first_line(reason)}',
        )

    def _wait_or_give_up(self, number: int, error: Exception) -> None:
        database = engines.get_conf().database
        delay = _delay(number, database)
        deadline = database.db_retry_deadline
        late = time.monotonic() - self._started + delay > deadline > 0
        exhausted = number > database.db_max_retries >= 0
        refused = isinstance(error, _LOST) and not database.use_db_reconnect
        if late or exhausted or refused:
            if self._doubt is None:
                raise error
            raise self._unknown(error) from error
        statistics.count_retry(error)
        LOG.warning(
            '%s: attempt %s failed and is repeated in %.3f seconds: %s',
            self._operation.function,
            number,
            delay,
            errors.first_line(error),
        )
        time.sleep(delay)


def _delay(number: int, database: cfg.ConfigOpts.GroupAttr) -> float:
    longest = float(database.db_retry_interval or _SHORT_START)
    if database.db_inc_retry_interval:
        longest *= 2 ** min(number - 1, 30)
    if database.db_max_retry_interval > 0:
        longest = min(longest, database.db_max_retry_interval)
    # Full jitter: callers that have collided do not collide again.
    return random.uniform(0, longest)  # noqa: S311

"""When a call is tried again, and how a lost COMMIT is settled.

Retries belong to whoever owns the transaction, with COMMIT inside of the
loop. A call that joined a transaction is not repeated: its error has undone,
or doomed, the work of others, and goes up to the owner.

After a transient error nothing was done, and the call starts anew. After
``CommitUnknown`` it may have been done, or may yet be, as the lost command
can still be on its way. A read would not tell, so the call is repeated: its
first statement meets the same key, or the same row lock, as the lost one, and
waits until the server has decided that. Then

- the call succeeds: the lost attempt had no effect, or one that repeating
  does not change;
- or it is refused (``NotFound``, ``Conflict``): perhaps by what the lost
  attempt did. The function's *settle* looks for the uuid of the operation. If
  it is there, the call was done; if not, nobody can tell: ``CommitUnknown``.
"""

import contextlib
import functools
import inspect
import itertools
import logging
import random
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import TypeVar
from typing import cast
from typing import overload

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice import plain
from myservice.context import RequestContext
from myservice.context import check_context
from myservice.db import models
from myservice.db import operation
from myservice.db.engine import engines
from myservice.db.engine import errors
from myservice.db.transaction import statistics
from myservice.db.transaction.session import get_session
from myservice.db.transaction.session import open_transaction
from myservice.db.transaction.session import transaction

LOG = logging.getLogger(__name__)

R = TypeVar('R')
F = TypeVar('F', bound=Callable[..., Any])

_REFUSALS = (
    exception.NotFound,
    exception.Conflict,
    db_exception.DBDuplicateEntry,
)
_LOST = (exception.CommitUnknown, db_exception.DBConnectionError)

# A deadlock is over when it is reported; a second would be a thousand calls.
_SHORT_START = 0.01


@overload
def retry_on_failure(function: F) -> F: ...


@overload
def retry_on_failure(*, settle: Callable[..., Any]) -> Callable[[F], F]: ...


def retry_on_failure(
    function: Any = None, *, settle: Callable[..., Any] | None = None
) -> Any:
    """Repeat a public function that owns its transaction, where that is right.

    :param function: the function; its first argument is the context
    :param settle: called with the function's arguments and a read-only
        ``session`` when the function is refused after a lost COMMIT: returns
        what the function would have if ``session.operation`` has left its
        trace, else raises NotFound. A function whose effect is the same
        however often it is repeated needs none.
    """
    if function is None:
        return functools.partial(retry_on_failure, settle=settle)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = plain.arguments(args, kwargs)
        context = kwargs.get('context', args[0] if args else None)
        statistics.count_call(function.__name__)

        def attempt() -> Any:
            return function(*args, **kwargs)

        def new_operation() -> operation.Operation:
            named = None if context is None else context.engines
            return operation.Operation(function.__name__, named)

        if open_transaction(context) is not None:
            # An operation of its own: two creates in one transaction must
            # not make the same id.
            return operation.run(new_operation(), attempt)

        def find_trace() -> Any:
            if settle is None:
                raise exception.NotFound()
            # From the primary, whatever would do for the caller.
            session = get_session(read_only=True)
            with session.begin():
                return settle(*args, session=session, **kwargs)

        return _Attempts(new_operation(), attempt, find_trace).run()

    return call


def in_batches(function: F) -> F:
    """Repeat a public function until nothing is left for it to do.

    Each batch is a transaction of its own, so that locks are held for a short
    time only, and what was done stays done when the next one fails.

    :param function: wrapped by ``retry_on_failure``; takes ``batch_size`` and
        returns how much it has done, less than that where nothing is left
    :returns: a function that returns the sum
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> int:
        args, kwargs = plain.arguments(args, kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        total = 0
        while True:
            done: int = function(*args, **kwargs)
            total += done
            if done < bound.arguments['batch_size']:
                return total

    return cast(F, call)


def run_in_transaction(
    context: RequestContext,
    function: Callable[..., R],
    /,
    *args: Any,
    **kwargs: Any,
) -> R:
    """Run a function in a transaction, again as a whole where that is right.

    Everything that the function does with the context happens once, or not
    at all and an error is raised. Inside of an open transaction it joins, and
    is not repeated.

    :param context: the caller
    :param function: called with the context, unless it takes none, and with
        the other arguments; what it does besides the database is repeated too
    :returns: what the function returned
    :raises InvalidInput: when context is no RequestContext
    :raises CommitUnknown: when the connection was lost during COMMIT and the
        database could not be reached again to tell
    """
    check_context(context)
    if _takes_context(function, context, args, kwargs):
        body = functools.partial(function, context, *args, **kwargs)
    else:
        body = functools.partial(function, *args, **kwargs)
    statistics.count_call('run_in_transaction')
    if open_transaction(context) is not None:
        return body()
    results: list[Any] = []

    def attempt() -> Any:
        results.append(None)
        with transaction(context) as session:
            session.execute(
                sa.insert(models.Operation),
                {'id': session.operation.id, 'attempt': len(results) - 1},
            )
            # The key was free, so no earlier attempt has held or will.
            attempts.settle_doubt()
            with attempts.foreign_doubts():
                results[-1] = body()
        return results[-1]

    def find_trace() -> Any:
        session = get_session(read_only=True)
        with session.begin():
            done = session.scalar(
                sa.select(models.Operation.attempt).where(
                    models.Operation.id == session.operation.id
                )
            )
        if done is None:
            raise exception.NotFound()
        return results[done]

    name = getattr(function, '__name__', 'run_in_transaction')
    attempts = _Attempts(
        operation.Operation(name, context.engines), attempt, find_trace
    )
    return cast(R, attempts.run())


def atomic(function: F) -> F:
    """Make each call of a function a ``run_in_transaction``.

    :param function: its first argument is ``context``
    :returns: the function, with the same arguments
    """

    @functools.wraps(function)
    def call(context: RequestContext, *args: Any, **kwargs: Any) -> Any:
        return run_in_transaction(context, function, *args, **kwargs)

    return cast(F, call)


class _Attempts:
    """One call and its attempts.

    :param call: the operation of all of them
    :param attempt: makes one attempt and returns the result
    :param find_trace: returns the result of an earlier attempt, if that has
        left its trace in the database, else raises NotFound
    """

    def __init__(
        self,
        call: operation.Operation,
        attempt: Callable[[], Any],
        find_trace: Callable[[], Any],
    ) -> None:
        self._attempt = attempt
        self._find_trace = find_trace
        self._operation = call
        self._doubt: exception.CommitUnknown | None = None
        self._final = False
        self._started = self._attempted = time.monotonic()

    def run(self) -> Any:
        """Try until there is a result, or an error that is final."""
        try:
            return operation.run(self._operation, self._run)
        except BaseException as error:
            self._operation.note_doubt(error)
            raise

    def _run(self) -> Any:
        for number in itertools.count(1):
            self._operation.attempt = number
            try:
                result = self._in_turn()
            except Exception as error:
                transient = self._transient(error)
                # What is transient has done nothing, or is a doubt.
                self._operation.sent = self._doubt is not None
                self._wait_or_give_up(number, transient)
            else:
                self.settle_doubt()
                return result

    def _transient(self, error: Exception) -> Exception:
        """Return what is transient in an error, or raise what is final."""
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
            # What doomed it was caught on its way up.
            if isinstance(error.__cause__, errors.TRANSIENT):
                return error.__cause__
        if self._doubt is None or not errors.is_typed(error):
            raise error
        # It says nothing of the attempt that was lost.
        raise self._unknown(error) from error

    def _in_turn(self) -> Any:
        collisions = engines.get_engines().collisions[self._operation.function]
        try:
            return collisions.avoid(self._attempt_or_trace)
        except db_exception.DBDeadlock as error:
            if errors.has_ended_transaction(error):
                collisions.note(time.monotonic() - self._attempted)
            raise

    def _attempt_or_trace(self) -> Any:
        self._attempted = time.monotonic()
        try:
            return self._attempt()
        except _REFUSALS as refusal:
            if self._doubt is None:
                raise
            try:
                return self._find_trace()
            except exception.NotFound:
                raise self._unknown(refusal) from refusal

    @contextlib.contextmanager
    def foreign_doubts(self) -> Iterator[None]:
        """Note that a COMMIT that is lost in this block is another one's."""
        try:
            yield
        except exception.CommitUnknown:
            self._final = True
            raise
        finally:
            # What was committed meanwhile was another one's.
            self._operation.sent = False

    def settle_doubt(self) -> None:
        """Note that it is known what became of the attempts so far."""
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


def _delay(number: int, database: Any) -> float:
    longest = float(database.db_retry_interval or _SHORT_START)
    if database.db_inc_retry_interval:
        longest *= 2 ** min(number - 1, 30)
    if database.db_max_retry_interval > 0:
        longest = min(longest, database.db_max_retry_interval)
    # Full jitter: callers that have collided do not collide again.
    return random.uniform(0, longest)  # noqa: S311


def _takes_context(
    function: Callable[..., Any],
    context: RequestContext,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bool:
    try:
        inspect.signature(function).bind(context, *args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        # Some functions that are written in C do not tell.
        return True
    return True

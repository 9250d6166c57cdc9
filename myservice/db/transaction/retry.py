"""Which calls are tried again, and how a lost COMMIT is settled.

``attempts.py`` has the loop: how often, after which errors, with which delay.

The owner of the transaction retries, with COMMIT inside of the loop. A call
that joined a transaction is not repeated: its error has undone, or doomed, the
work of others, and goes up to the owner.

After a transient error nothing was done, and the call starts anew. After
``CommitUnknown`` it may have been done, or may still be, as the lost command
can still be on its way. A read would not tell, so the call is repeated: its
first statement needs the same key, or the same row lock, as the lost one, and
waits until the server has decided the lost one. Then

- the call succeeds: the lost attempt had no effect, or one that repeating
  does not change;
- or it is refused (``NotFound``, ``Conflict``): perhaps because of the lost
  attempt. The function's *settle* looks for the uuid of the operation. If it
  finds it, the call was done; if not, nobody can tell: ``CommitUnknown``.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import TypeVar
from typing import cast
from typing import overload

import sqlalchemy as sa

from myservice import exception
from myservice import plain
from myservice.context import RequestContext
from myservice.context import check_context
from myservice.db import models
from myservice.db import operation
from myservice.db.rows import Row
from myservice.db.transaction import attempts
from myservice.db.transaction import statistics
from myservice.db.transaction.session import AnySession
from myservice.db.transaction.session import get_session
from myservice.db.transaction.session import open_transaction
from myservice.db.transaction.session import transaction

LOG = logging.getLogger(__name__)

P = ParamSpec('P')
R = TypeVar('R')
TheRow = TypeVar('TheRow', bound=Row)


@overload
def retry_on_failure(function: Callable[P, R]) -> Callable[P, R]: ...


@overload
def retry_on_failure(
    *, settle: Callable[..., R]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def retry_on_failure(
    function: Callable[P, R] | None = None,
    *,
    settle: Callable[..., R] | None = None,
) -> object:
    """Repeat a public function that owns its transaction, if that is safe.

    :param function: the function; its first argument is the context
    :param settle: called with the function's arguments and a read-only
        ``session`` when the function is refused after a lost COMMIT: if
        ``session.operation`` has left its trace, it returns the result of the
        function, else it raises NotFound. A function whose effect is the same
        however often it is repeated needs none.
    """
    if function is None:
        return functools.partial(retry_on_failure, settle=settle)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        args, kwargs = plain.arguments(args, kwargs)
        context: Any = kwargs.get('context', args[0] if args else None)
        statistics.count_call(function.__name__)

        def attempt() -> R:
            return function(*args, **kwargs)

        def new_operation() -> operation.Operation:
            named = None if context is None else context.engines
            return operation.Operation(function.__name__, named)

        if open_transaction(context) is not None:
            # An operation of its own: two creates in one transaction must
            # not make the same id.
            return operation.run(new_operation(), attempt)

        def settle_call() -> R:
            if settle is None:
                raise exception.NotFound()
            # From the primary, even if the caller accepts stale reads.
            session = get_session(read_only=True)
            with session.begin():
                return settle(*args, session=session, **kwargs)

        return attempts.Attempts(new_operation(), attempt, settle_call).run()

    return call


@overload
def trace_in(column: sa.ColumnElement[str]) -> Callable[..., None]: ...


@overload
def trace_in(
    column: sa.ColumnElement[str], row_class: type[TheRow]
) -> Callable[..., TheRow]: ...


def trace_in(
    column: sa.ColumnElement[str], row_class: type[TheRow] | None = None
) -> Callable[..., TheRow | None]:
    """Return the settle of a call that leaves its uuid in a column.

    :param column: the column of the operation's uuid; it begins a key or an
        index
    :param row_class: the class of the row that the call returns; None if the
        call returns nothing
    """
    columns = (column,) if row_class is None else row_class.columns
    trace = sa.select(*columns).where(column == sa.bindparam('operation'))

    def settle(*_: object, session: AnySession, **__: object) -> TheRow | None:
        operation_id = {'operation': session.operation.id}
        row = session.execute(trace, operation_id).first()
        if row is None:
            raise exception.NotFound()
        return None if row_class is None else row_class(row)

    return settle


def in_batches(function: Callable[P, int]) -> Callable[P, int]:
    """Repeat a public function until nothing is left for it to do.

    Each batch is a transaction of its own, so that locks are held for a short
    time only, and earlier batches stay done when one fails.

    :param function: a function wrapped by ``retry_on_failure``; takes
        ``batch_size`` and returns how much it has done, less than that if
        nothing is left
    :returns: a function that returns the sum
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> int:
        args, kwargs = plain.arguments(args, kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        total = 0
        while True:
            done = function(*args, **kwargs)
            total += done
            if done < bound.arguments['batch_size']:
                return total

    return call


def run_in_transaction(
    context: RequestContext,
    function: Callable[Concatenate[RequestContext, P], R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run a function in a transaction, and repeat all of it if that is safe.

    Everything that the function does with the context happens once; or it does
    not happen, and an error is raised. Inside of an open transaction the
    function joins, and is not repeated.

    :param context: the caller
    :param function: called with the context and the other arguments; its
        effects outside of the database are repeated too
    :returns: the result of the function
    :raises InvalidInput: when context is not a RequestContext
    :raises CommitUnknown: when the connection was lost during COMMIT and the
        database could not be reached again to tell
    """
    check_context(context)
    body = functools.partial(function, context, *args, **kwargs)
    statistics.count_call('run_in_transaction')
    if open_transaction(context) is not None:
        return body()
    results: list[Any] = []

    def attempt() -> R:
        results.append(None)
        with transaction(context) as session:
            session.execute(
                sa.insert(models.Operation),
                {'id': session.operation.id, 'attempt': len(results) - 1},
            )
            # The key was free, so no earlier attempt was committed, or will
            # be.
            made.end_doubt()
            with made.foreign_doubts():
                result = results[-1] = body()
        return result

    def settle_call() -> R:
        session = get_session(read_only=True)
        with session.begin():
            done = session.scalar(
                sa.select(models.Operation.attempt).where(
                    models.Operation.id == session.operation.id
                )
            )
        if done is None:
            raise exception.NotFound()
        result: R = results[done]
        return result

    name = getattr(function, '__name__', 'run_in_transaction')
    made = attempts.Attempts(
        operation.Operation(name, context.engines), attempt, settle_call
    )
    return made.run()


def atomic(function: Callable[P, R]) -> Callable[P, R]:
    """Make each call of a function a ``run_in_transaction``.

    :param function: its first argument is ``context``
    :returns: the function, with the same arguments
    """

    takes_context: Callable[..., R] = function

    @functools.wraps(function)
    def call(context: RequestContext, *args: Any, **kwargs: Any) -> R:
        return run_in_transaction(context, takes_context, *args, **kwargs)

    return cast(Callable[P, R], call)

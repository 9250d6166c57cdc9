"""FastAPI: a context for each request, and a transaction on demand.

::

    @app.post('/services')
    def register(context: Transaction, values: dict[str, Any]) -> str:
        return db.api.service_register(context, values).id

    @app.get('/services')
    async def count(context: Context) -> int:
        return len(await run(db.api.service_get_all, context))

The transaction ends before the response starts, so that a COMMIT that fails is
answered by a 500. Streamed bodies and background tasks run without it.
keystonemiddleware does not work with FastAPI: put authentication in front of
the application. It has to remove the identity headers that it does not set
itself.
"""

import collections
import contextlib
import contextvars
import functools
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterator
from typing import Annotated
from typing import ParamSpec
from typing import TypeAlias
from typing import TypeVar

import fastapi
from anyio import CapacityLimiter
from anyio import Semaphore
from anyio import lowlevel
from anyio import to_thread
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.requests import HTTPConnection

from myservice import db
from myservice import exception
from myservice.context import RequestContext
from myservice.web import request_transaction

# By default FastAPI has 40 threads. If all of them waited for the locks of an
# open transaction, the transaction could not go on.
_THREADS_BUT_ONE = 39

P = ParamSpec('P')
R = TypeVar('R')


async def run(
    function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Call a function in a worker thread, from an async endpoint.

    Two calls at once in one transaction raise TransactionInUse.

    :param function: its first argument is the context, as in ``db.api``
    :returns: the result of the function
    """
    call = functools.partial(function, *args, **kwargs)
    context = kwargs.get('context', args[0] if args else None)
    limiter = None
    if isinstance(context, RequestContext):
        if context.transaction_slot.transaction is not None:
            # All other threads may be waiting for its locks.
            limiter = CapacityLimiter(1)
    return await to_thread.run_sync(call, limiter=limiter)


async def _make_context(request: HTTPConnection) -> RequestContext:
    headers = collections.defaultdict(list)
    for name, value in request.headers.items():
        # X_Roles would become X-Roles after a proxy has checked X-Roles.
        if '_' not in name:
            headers[name.upper().replace('-', '_')].append(value)
    return request_transaction.make_context(
        {f'HTTP_{name}': ','.join(all_) for name, all_ in headers.items()},
        getattr(request.app.state, 'admin_roles', ('admin',)),
        # Other requests use the same thread.
        overwrite=False,
    )


async def get_context(
    context: Annotated[RequestContext, fastapi.Depends(_make_context)],
) -> RequestContext:
    """Return the context of the request, without a transaction.

    ``app.state.admin_roles``, by default ``('admin',)``, are the roles that
    make a user an administrator. They do not apply to other applications that
    are mounted in this one.

    :param context: made from the headers of the request or the WebSocket
    :returns: the context, the same for all dependencies
    """
    return context


Context: TypeAlias = Annotated[RequestContext, fastapi.Depends(get_context)]


_turns: lowlevel.RunVar[Semaphore] = lowlevel.RunVar('transactions')
_has_turn: contextvars.ContextVar[bool] = contextvars.ContextVar(
    'has_turn', default=False
)


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Wait for a turn, unless the request is inside of another request."""
    if _has_turn.get():
        # If all requests that have a turn waited for another, none would go
        # on.
        yield
        return
    turns = _turns.get(None)
    if turns is None:
        turns = Semaphore(_THREADS_BUT_ONE)
        _turns.set(turns)
    async with turns:
        token = _has_turn.set(True)
        try:
            yield
        finally:
            _has_turn.reset(token)


@contextlib.contextmanager
def _transaction(context: RequestContext) -> Iterator[None]:
    """Open a transaction, unless the context is that of another request."""
    mine = object()
    slot = vars(context.transaction_slot)
    if slot.setdefault('request', mine) is not mine:
        raise exception.TransactionInUse(
            owner='another request', caller='this one'
        )
    try:
        with db.api.transaction(context, handover=True):
            yield
    finally:
        del slot['request']


async def _open(context: Context) -> AsyncIterator[RequestContext]:
    async with _turn(), contextmanager_in_threadpool(_transaction(context)):
        yield context


async def get_transaction(
    context: Annotated[
        RequestContext, fastapi.Depends(_open, scope='function')
    ],
) -> RequestContext:
    """Return the context of the request, in its one transaction.

    It is rolled back when the endpoint raises, an ``HTTPException`` too, and
    committed when it returns.

    :param context: the context, and the transaction
    :returns: the context, the same as that of ``get_context``
    """
    return context


Transaction: TypeAlias = Annotated[
    RequestContext, fastapi.Depends(get_transaction)
]

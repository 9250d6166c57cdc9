"""FastAPI: a context for each request, and a transaction on demand.

::

    @app.post('/services')
    def register(context: Transaction, values: dict[str, Any]) -> str:
        return db.api.service_register(context, values).id

    @app.get('/services')
    async def count(context: Context) -> int:
        return len(await run(db.api.service_get_all, context))

The transaction ends before the response starts, so that a COMMIT that fails
is answered by a 500. Streamed bodies and background tasks run without it.
FastAPI knows no keystonemiddleware: whatever authenticates has to be in front
of it, and to remove the headers that it does not set itself.
"""

import collections
import functools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Annotated
from typing import ParamSpec
from typing import TypeAlias
from typing import TypeVar

import fastapi
from anyio import CapacityLimiter
from anyio import to_thread
from fastapi.requests import HTTPConnection

from myservice import db
from myservice.context import RequestContext
from myservice.web import common

# By default FastAPI has 40 threads. If all of them were waiting for what an
# open transaction holds, it could not go on.
_THREADS_BUT_ONE = 39

P = ParamSpec('P')
R = TypeVar('R')


async def run(
    function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Call a function in a worker thread, from an async endpoint.

    Two at once in one transaction are refused by TransactionInUse.

    :param function: its first argument is the context, as in ``db.api``
    :returns: what it returns
    """
    call = functools.partial(function, *args, **kwargs)
    context = kwargs.get('context', args[0] if args else None)
    limiter = None
    if isinstance(context, RequestContext):
        if context.transaction_slot.transaction is not None:
            # All threads may be waiting for its locks.
            limiter = CapacityLimiter(1)
    return await to_thread.run_sync(call, limiter=limiter)


async def get_context(request: HTTPConnection) -> RequestContext:
    """Return the context of the request, without a transaction.

    ``app.state.admin_roles``, by default ``('admin',)``, are the roles that
    make an administrator.

    :param request: the request, or the WebSocket
    :returns: the context, the same for all who depend on it
    """
    headers = collections.defaultdict(list)
    for name, value in request.headers.items():
        # X_Roles would become X-Roles behind the back of who checks that.
        if '_' not in name:
            headers[name.upper().replace('-', '_')].append(value)
    return common.make_context(
        {f'HTTP_{name}': ','.join(all_) for name, all_ in headers.items()},
        getattr(request.app.state, 'admin_roles', ('admin',)),
        # The thread is everybody's.
        overwrite=False,
    )


Context: TypeAlias = Annotated[RequestContext, fastapi.Depends(get_context)]


def _open(context: Context) -> Iterator[RequestContext]:
    with db.api.transaction(context, handover=True):
        yield context


async def get_transaction(
    context: Annotated[
        RequestContext,
        fastapi.Depends(
            _open, scope='function', max_concurrency=_THREADS_BUT_ONE
        ),
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

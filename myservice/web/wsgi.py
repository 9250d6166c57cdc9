"""WSGI middleware: a context for each request, a transaction on demand.

::

    application = ContextMiddleware(application, transaction=True)

The transaction ends before the first byte of the response is sent. It covers
the call of the application. If the application has not set its status by then,
as a generator, it also covers the body up to the status. A streamed body runs
without a transaction. Use it only behind keystonemiddleware: the context is
made from headers, which are trusted.
"""

import contextlib
import itertools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

from myservice import db
from myservice.web import request_transaction

if TYPE_CHECKING:
    from wsgiref.types import StartResponse
    from wsgiref.types import WSGIApplication
    from wsgiref.types import WSGIEnvironment

CONTEXT = 'myservice.context'


class ContextMiddleware:
    """Puts a RequestContext into the environment of each request.

    :param application: the WSGI application
    :param transaction: whether a request is one transaction; it is rolled
        back on an exception
    :param rollback_from: it is also rolled back on a response with this status
        or above
    :param admin_roles: the roles that make a user an administrator
    """

    def __init__(
        self,
        application: 'WSGIApplication',
        *,
        transaction: bool = False,
        rollback_from: int = 500,
        admin_roles: Collection[str] = ('admin',),
    ) -> None:
        self._application = application
        self._transaction = transaction
        self._rollback_from = rollback_from
        self._admin_roles = admin_roles

    def __call__(
        self, environ: 'WSGIEnvironment', start_response: 'StartResponse'
    ) -> Iterable[bytes]:
        """Answer a request.

        :param environ: its environment
        :param start_response: called when the transaction has ended
        :returns: the body
        """
        if CONTEXT in environ:
            # It is that of the outer request, which still needs it.
            environ = {**environ}
        with request_transaction.Serving(
            environ, self._admin_roles
        ) as serving:
            environ[CONTEXT] = serving.context
            if self._transaction:
                return self._in_transaction(environ, start_response)
            return self._application(environ, start_response)

    def _in_transaction(
        self, environ: 'WSGIEnvironment', start_response: 'StartResponse'
    ) -> Iterable[bytes]:
        response = _Response(start_response)
        try:
            with (
                contextlib.suppress(request_transaction.RolledBack),
                db.api.transaction(environ[CONTEXT], handover=True) as session,
            ):
                response.take(self._application(environ, response.start))
                # A statement may have failed and caused the error response;
                # then nothing can be committed.
                refused = response.status >= request_transaction.FIRST_ERROR
                if response.status >= self._rollback_from or (
                    refused and session.failures
                ):
                    raise request_transaction.RolledBack
            return response.release()
        except BaseException:
            response.close()
            raise


class _Response:
    """A response that is held back until it is released."""

    def __init__(self, start_response: 'StartResponse') -> None:
        self._start_response = start_response
        self._started_with: tuple[Any, ...] = ()
        self._send: Callable[[bytes], object] | None = None
        self._chunks: list[bytes] = []
        self._body: Iterable[bytes] = ()

    def start(self, *arguments: Any) -> Callable[[bytes], object]:
        """Be the ``start_response`` of the application."""
        if self._send is not None:
            # It failed in the middle of its body: the server decides.
            return self._start_response(*arguments)
        if self._started_with:
            if len(arguments) < 3 or not arguments[2]:
                raise RuntimeError('start_response was called twice')
            # Nothing was sent yet: the error replaces the response.
            self._chunks.clear()
        self._started_with = arguments
        return self._write

    def take(self, body: Iterable[bytes]) -> None:
        """Take the body, and read it until the status is known."""
        self._body = body
        self._rest = iter(body)
        while not self._started_with:
            try:
                self._chunks.append(next(self._rest))
            except StopIteration:
                raise RuntimeError('start_response was not called') from None

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self._started_with[0][:3])

    def release(self) -> Iterable[bytes]:
        """Start the response, and return its body."""
        self._send = self._start_response(*self._started_with)
        # Servers handle some bodies specially, such as files.
        return self if self._chunks else self._body

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain(self._chunks, self._rest)

    def close(self) -> None:
        """Close the body of the application."""
        if hasattr(self._body, 'close'):
            self._body.close()

    def _write(self, data: bytes) -> None:
        send = self._send or self._chunks.append
        send(data)

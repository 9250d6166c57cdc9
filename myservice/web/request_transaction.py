"""What the adapters share: the context of a request, and its transaction."""

import contextlib
import contextvars
from collections.abc import Collection
from collections.abc import Iterator
from typing import Any
from typing import Self

from oslo_context import context as oslo_context

from myservice import db
from myservice.context import RequestContext

# A response with this status or above is an error.
FIRST_ERROR = 400


class RolledBack(Exception):
    """Leaves a transaction that is to be rolled back, and is caught there."""


def make_context(
    environ: dict[str, Any],
    admin_roles: Collection[str] = ('admin',),
    overwrite: bool = True,
) -> RequestContext:
    """Return the context of a request, from its headers.

    The headers are trusted. If callers can reach the application without
    authentication in front of it, they can claim to be anybody.

    :param environ: the WSGI environment, as keystonemiddleware leaves it
    :param admin_roles: the roles that make a user an administrator
    :param overwrite: whether it becomes the thread's context, for logging
    :returns: the context
    """
    # oslo.context names the headers: X-Project-Id, X-User-Id, X-Roles …
    context = RequestContext.from_environ(environ, overwrite=overwrite)
    # Keystone's roles are the same in upper and lower case.
    known = {role.lower() for role in admin_roles}
    held = {role.lower() for role in context.roles}
    context.is_admin = context.is_admin_project and bool(known & held)
    return context


class RequestTransaction:
    """A transaction that begins and ends where a framework has its hooks.

    :param context: its calls join the transaction, from any thread, but never
        two at once
    """

    def __init__(self, context: RequestContext) -> None:
        self._block = db.api.transaction(context, handover=True)
        self._block.__enter__()

    def end(self, commit: bool) -> None:
        """Commit, or roll back.

        :param commit: whether to commit
        :raises TransactionDoomed: when it should be committed, but a
            statement in it has failed
        :raises CommitUnknown: when the connection was lost during COMMIT
        """
        if commit:
            self._block.__exit__(None, None, None)
        else:
            self._block.__exit__(RolledBack, RolledBack(), None)


class Serving:
    """A request that a thread is serving, perhaps inside of another one.

    Each request has its own context, and so its own rights and transaction. At
    its end, the context of the request around it becomes that of the thread
    again, for logging.

    :param environ: as for ``make_context``
    :param admin_roles: as for ``make_context``
    """

    def __init__(
        self, environ: dict[str, Any], admin_roles: Collection[str]
    ) -> None:
        self._outer = _innermost.get()
        self._before = oslo_context.get_current()
        self._transaction: RequestTransaction | None = None
        self.context = make_context(environ, admin_roles)
        _innermost.set(self)

    def begin(self) -> None:
        """Begin the transaction of the request."""
        self._transaction = RequestTransaction(self.context)

    def end(self, commit: bool) -> None:
        """End the transaction of the request, if it is open.

        :param commit: whether to commit
        :raises TransactionDoomed: when it should be committed, but a
            statement in it has failed
        :raises CommitUnknown: when the connection was lost during COMMIT
        """
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.end(commit)

    def leave(self) -> None:
        """End the request; a transaction that is still open is rolled back."""
        with contextlib.ExitStack() as ends:
            ends.callback(self.end, commit=False)
            inside = [*served()]
            if self not in inside:
                return
            # The requests inside of this one have not ended by themselves.
            for each in reversed(inside[: inside.index(self)]):
                ends.callback(each.end, commit=False)
            _innermost.set(self._outer)
            if self._outer is not None and self._before is not None:
                self._before.update_store()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


_innermost: contextvars.ContextVar[Serving | None] = contextvars.ContextVar(
    'innermost', default=None
)


def served() -> Iterator[Serving]:
    """Return the requests that this thread is serving, innermost first."""
    serving = _innermost.get()
    while serving is not None:
        yield serving
        serving = serving._outer

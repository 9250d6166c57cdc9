"""What the adapters share: the context of a request, and its transaction."""

from collections.abc import Collection
from typing import Any

from myservice import db
from myservice.context import RequestContext

# A response from this status on says that something was refused.
FIRST_ERROR = 400


class RolledBack(Exception):
    """Leaves a transaction that is to be rolled back, and goes no further."""


def make_context(
    environ: dict[str, Any],
    admin_roles: Collection[str] = ('admin',),
    overwrite: bool = True,
) -> RequestContext:
    """Return the context of a request, from its headers.

    They are believed, so whoever can reach the application without an
    authentication in front of it can be anybody.

    :param environ: the WSGI environment, as keystonemiddleware leaves it
    :param admin_roles: who has one of these roles is an administrator
    :param overwrite: whether it becomes the thread's context, for logging
    :returns: the context
    """
    context = RequestContext.from_environ(environ, overwrite=overwrite)
    # Keystone's roles are the same in upper and lower case.
    known = {role.lower() for role in admin_roles}
    held = {role.lower() for role in context.roles}
    context.is_admin = context.is_admin_project and bool(known & held)
    return context


class RequestTransaction:
    """A transaction that begins and ends where a framework has its hooks.

    :param context: whose calls join it, from any thread, though never two at
        once
    """

    def __init__(self, context: RequestContext) -> None:
        self._block = db.api.transaction(context, handover=True)
        self._block.__enter__()

    def end(self, commit: bool) -> None:
        """Commit, or roll back.

        :param commit: whether to commit
        :raises TransactionDoomed: when a statement in it has failed, and it
            should be committed
        :raises CommitUnknown: when the connection was lost during COMMIT
        """
        if commit:
            self._block.__exit__(None, None, None)
        else:
            self._block.__exit__(RolledBack, RolledBack(), None)

"""RequestContext: the caller, what they may see, and their transaction."""

import copy
import weakref
from typing import Any
from typing import Literal
from typing import Self
from typing import cast

from oslo_context import context

from myservice import exception
from myservice import plain

ReadDeleted = Literal['no', 'yes', 'only']


class TransactionSlot:
    """Holds the transaction that the calls of a context join, if one is open.

    A context and its ``elevated()`` copies share the slot, not the
    transaction: whichever of them opens a transaction, all of them join it.
    """

    def __init__(self) -> None:
        self.transaction: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> 'TransactionSlot':
        # A transaction belongs to one thread of control; a deep copy is for
        # another thread.
        return TransactionSlot()


class _Slots:
    """The slots of a context and of its copies, one for each database.

    The slot of an engine is dropped with the engine, even if the context lives
    on.
    """

    def __init__(self) -> None:
        self.of_configured = TransactionSlot()
        # Made when it is needed: it costs more than the context.
        self._of_engines: (
            weakref.WeakKeyDictionary[Any, TransactionSlot] | None
        ) = None

    def of(self, engines: Any) -> TransactionSlot:
        """Return the slot for a ``db.api.Engines``, or for None."""
        if engines is None:
            return self.of_configured
        if self._of_engines is None:
            self._of_engines = weakref.WeakKeyDictionary()
        return self._of_engines.setdefault(engines, TransactionSlot())


# These belong to this process, so they are not pickled.
_LEFT_BEHIND = ('engines', '_slots', 'transaction_slot')


class RequestContext(context.RequestContext):
    """The caller of the database API.

    Like a session, a context belongs to one thread of control. It can be
    pickled, for a queue of tasks: the user and their rights are pickled, the
    transaction and the engines of ``using()`` are not.

    :param user_id: the user who makes the call
    :param project_id: the project whose rows the caller sees
    :param is_admin: whether the caller is an administrator
    :param read_deleted: which rows reads return: 'no' (living ones), 'yes'
        (also soft-deleted ones) or 'only' (soft-deleted ones)
    :param kwargs: other keyword arguments of oslo.context's RequestContext
    :raises InvalidInput: when read_deleted is not one of the three
    """

    FROM_DICT_EXTRA_KEYS = ['read_deleted']

    def __init__(
        self,
        user_id: str | None = None,
        project_id: str | None = None,
        *,
        is_admin: bool = False,
        read_deleted: ReadDeleted = 'no',
        overwrite: bool = True,
        **kwargs: Any,
    ) -> None:
        self._overwrite = overwrite
        super().__init__(
            user_id=user_id,
            project_id=project_id,
            is_admin=is_admin,
            overwrite=overwrite,
            **kwargs,
        )
        self.read_deleted = _check_read_deleted(read_deleted)
        self.takes_stale = False
        self._stand_alone()

    def _stand_alone(self) -> None:
        self.engines: Any = None
        self._slots = _Slots()
        self.transaction_slot = self._slots.of_configured

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in _LEFT_BEHIND
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._stand_alone()

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def update_store(self) -> None:
        """Become the thread's context, unless told not to."""
        # oslo.context does it anyway if the thread has no context yet.
        if self._overwrite:
            super().update_store()

    @classmethod
    def from_dict(cls, values: dict[str, Any], **kwargs: Any) -> Self:
        """Return the context from a dict that ``to_dict`` made."""
        return super().from_dict({'read_deleted': 'no'} | values, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict, without an open transaction."""
        return super().to_dict() | {'read_deleted': self.read_deleted}

    def with_deleted(self, read_deleted: ReadDeleted) -> Self:
        """Return a copy that sees other rows, in the same transaction.

        :param read_deleted: as for the constructor
        :returns: the copy; this context stays as it is
        :raises InvalidInput: when read_deleted is not one of the three
        """
        other = copy.copy(self)
        other.read_deleted = _check_read_deleted(read_deleted)
        return other

    def stale(self) -> Self:
        """Return a copy that accepts out-of-date rows.

        Its reads go to ``[database] slave_connection``, if there is one. In an
        open transaction, reads go to the primary, so that they see its writes.
        All other contexts read from the primary.

        :returns: the copy, in the same transaction; this context stays as it
            is
        """
        other = copy.copy(self)
        other.takes_stale = True
        return other

    def using(self, engines: Any) -> Self:
        """Return a copy whose calls go to another database.

        A transaction belongs to one database, so this context and the copy
        have separate transactions. Copies for the same engines share one.
        ``to_dict`` does not include the engines.

        :param engines: a ``db.api.Engines``; None means the configured ones
        :returns: the copy; this context stays as it is
        :raises InvalidInput: when engines is something else
        """
        if engines is not None and not hasattr(engines, 'get_engine'):
            raise exception.InvalidInput(
                field='engines',
                reason=f'{engines!r:.100} is not a db.api.Engines',
            )
        other = copy.copy(self)
        other.engines = engines
        other.transaction_slot = self._slots.of(engines)
        return other

    def elevated(self, read_deleted: ReadDeleted | None = None) -> Self:
        """Return an administrator's copy that joins the same transaction.

        :param read_deleted: as for the constructor; None keeps it
        :returns: the copy; this context stays as it is
        :raises InvalidInput: when read_deleted is not one of the three
        """
        elevated = self.with_deleted(read_deleted or self.read_deleted)
        elevated.is_admin = True
        return elevated


def get_admin_context(read_deleted: ReadDeleted = 'no') -> RequestContext:
    """Return a new administrator's context without user or project.

    :param read_deleted: as for RequestContext
    :returns: a new context; making one is cheap
    :raises InvalidInput: when read_deleted is not one of the three
    """
    return RequestContext(
        is_admin=True, read_deleted=read_deleted, overwrite=False
    )


def require_admin(context: RequestContext, function: str) -> None:
    """Refuse a caller who is not an administrator.

    :param context: the caller
    :param function: the function that was called, for the message
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when context is not a RequestContext
    """
    check_context(context)
    if not context.is_admin:
        raise exception.AdminRequired(
            user_id=context.user_id, function=function
        )


def require_project(
    context: RequestContext, project_id: str | None, function: str
) -> str:
    """Refuse a caller who is neither in a project nor an administrator.

    :param context: the caller
    :param project_id: the project; None means that of the context
    :param function: the function that was called, for the message
    :returns: the project
    :raises ProjectForbidden: when the caller is in another project
    :raises InvalidInput: when there is no project, or context is not a
        RequestContext
    """
    check_context(context)
    asked = plain.plain(
        context.project_id if project_id is None else project_id
    )
    if type(asked) is not str or not asked:
        raise exception.InvalidInput(
            field='project_id',
            reason=f'{asked!r:.100} is not a project: pass project_id, or '
            f'use a context that has one',
        )
    if asked != context.project_id and not context.is_admin:
        raise exception.ProjectForbidden(
            user_id=context.user_id, function=function, project_id=asked
        )
    return asked


def check_context(context: Any) -> None:
    """Refuse a value that is not a context.

    :param context: the caller
    :raises InvalidInput: when context is not a RequestContext
    """
    if not isinstance(context, RequestContext):
        raise exception.InvalidInput(
            field='context',
            reason=f'{context!r:.100} is not a myservice RequestContext',
        )


def _check_read_deleted(value: str) -> ReadDeleted:
    if value not in ('no', 'yes', 'only'):
        raise exception.InvalidInput(
            field='read_deleted',
            reason=f"{value!r} is not one of 'no', 'yes' and 'only'",
        )
    return cast(ReadDeleted, value)

"""Only the block that opened a transaction ends it.

Functions that join a transaction, its *parts*, get the session, and through it
SQLAlchemy's objects, each of which could commit, roll back or close the common
transaction. While a transaction is shared, these objects refuse that before
anything has changed, so the transaction goes on.
"""

import functools
import types
from collections.abc import Callable
from typing import Any
from typing import NoReturn
from typing import ParamSpec
from typing import TypeVar
from typing import cast

import sqlalchemy as sa
from sqlalchemy import orm

from myservice import exception
from myservice.db.engine import errors
from myservice.db.sql import write_detection

P = ParamSpec('P')
F = TypeVar('F', bound=Callable[..., object])
T = TypeVar('T')


class OwnedTransaction(orm.SessionTransaction):
    """A transaction of a session, or a savepoint, which its block ends."""

    session: Any
    # Whether parts have it, too, which must not end it.
    is_shared = False
    # Whether its changes are committed, or part of the transaction around it.
    is_kept = False

    def commit(self, *args: bool, **kwargs: bool) -> None:
        """Commit; not by a part.

        :raises NotTransactionOwner: while it is shared
        """
        self.refuse_part('commit()')
        self.is_kept = True
        try:
            super().commit(*args, **kwargs)
        except BaseException:
            self.is_kept = False
            raise

    def rollback(self, *args: bool, **kwargs: bool) -> None:
        """Roll back; not by a part.

        :raises NotTransactionOwner: while it is shared
        """
        self.refuse_part('rollback()')
        self._end(super().rollback, *args, **kwargs)

    def close(self, *args: bool, **kwargs: bool) -> None:
        """Roll back and close; not by a part.

        :raises NotTransactionOwner: while it is shared
        """
        self.refuse_part('close()')
        self._end(super().close, *args, **kwargs)

    def _end(
        self, end: Callable[P, None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        session = self.session
        outer, session.is_ending = session.is_ending, True
        try:
            end(*args, **kwargs)
        finally:
            session.is_ending = outer

    def prepare(self) -> None:
        """Prepare a commit in two phases; not by a part.

        :raises NotTransactionOwner: while it is shared
        """
        self.refuse_part('prepare()')
        super().prepare()

    def refuse_part(self, what: str) -> None:
        """Refuse a command that would end it.

        :param what: the command
        :raises NotTransactionOwner: while it is shared
        """
        if self.is_shared:
            raise exception.NotTransactionOwner(what=what)

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        failures = [*self.session.failures]
        # SQLAlchemy does not report a flush that failed and was caught.
        failed = type_ is None and self._has_failed()
        super().__exit__(type_, value, traceback)
        if failed and failures:
            raise errors.doomed(failures[0]) from failures[0]

    def _has_failed(self) -> bool:
        session = self.session
        return not self.is_active and self in (
            session.get_transaction(),
            session.get_nested_transaction(),
        )


def _admitted(method: F) -> F:
    """Return a method of a connection, for statements that may be sent.

    :param method: its first argument is the statement
    """

    @functools.wraps(method)
    def call(
        self: 'ReadingConnection',
        statement: sa.Executable | str,
        *args: object,
        **kwargs: object,
    ) -> object:
        self._admit(statement)
        return method(self, statement, *args, **kwargs)

    return cast(F, call)


class ReadingConnection(sa.Connection):
    """The connection of a session, which refuses writes if that only reads.

    A session sends everything by these methods.
    """

    transaction: OwnedTransaction

    execute = _admitted(sa.Connection.execute)
    scalar = _admitted(sa.Connection.scalar)  # type: ignore[assignment, arg-type]
    scalars = _admitted(sa.Connection.scalars)
    exec_driver_sql = _admitted(sa.Connection.exec_driver_sql)

    def _admit(self, statement: sa.Executable | str) -> None:
        transaction = self.transaction
        if transaction.is_active and transaction.session.read_only:
            write_detection.refuse_write(statement)


class SharedConnection(ReadingConnection):
    """The connection of a shared transaction, which does not end it."""

    def begin(self) -> sa.RootTransaction:
        """Begin a transaction, once the shared one is over.

        :raises NotTransactionOwner: before that
        """
        self._refuse_part('begin()')
        return super().begin()

    def commit(self) -> None:
        """Commit, once the shared transaction is over.

        :raises NotTransactionOwner: before that
        """
        self._refuse_part('commit()')
        super().commit()

    def rollback(self) -> None:
        """Roll back, once the shared transaction is over.

        :raises NotTransactionOwner: before that
        """
        self._refuse_part('rollback()')
        super().rollback()

    def close(self) -> None:
        """Close it, once the shared transaction is over.

        :raises NotTransactionOwner: before that
        """
        self._refuse_part('close()')
        super().close()

    def detach(self) -> None:
        """Take it out of the pool, once the shared transaction is over.

        :raises NotTransactionOwner: before that
        """
        self._refuse_part('detach()')
        super().detach()

    def invalidate(self, exception: BaseException | None = None) -> None:
        """Drop the connection, because of an error.

        :param exception: the error
        :raises NotTransactionOwner: without one, while the transaction lasts
        """
        # SQLAlchemy always passes the error that has lost the connection.
        if exception is None:
            self._refuse_part('invalidate()')
        super().invalidate(exception)

    def execution_options(self, **options: object) -> sa.Connection:
        """Set options; the isolation level belongs to the transaction.

        :param options: as SQLAlchemy's
        :returns: this connection
        :raises NotTransactionOwner: for another level, while it lasts
        """
        if 'isolation_level' in options:
            self._refuse_part('another isolation level')
        return super().execution_options(**options)

    def get_transaction(self) -> sa.RootTransaction | None:
        """Return the transaction, without the methods that end it."""
        return self._lend(super().get_transaction())

    def get_nested_transaction(self) -> sa.NestedTransaction | None:
        """Return the savepoint, without the methods that end it."""
        return self._lend(super().get_nested_transaction())

    # A Session that is bound to a connection finds by these the transaction to
    # join.
    def _get_required_transaction(self) -> sa.RootTransaction:
        return self._lend(super()._get_required_transaction())

    def _get_required_nested_transaction(self) -> sa.NestedTransaction:
        return self._lend(super()._get_required_nested_transaction())

    def _lend(self, transaction: T) -> T:
        if transaction is None or not self.transaction.is_active:
            return transaction
        return cast(T, _Lent(transaction))

    def _refuse_part(self, what: str) -> None:
        if self.transaction.is_active:
            raise exception.NotTransactionOwner(what=what)

    def _admit(self, statement: sa.Executable | str) -> None:
        super()._admit(statement)
        if isinstance(statement, write_detection.IN_SQL):
            if write_detection.ends_transaction(statement, self.dialect):
                self._refuse_part(write_detection.shown(statement))


class _Lent:
    """A transaction of a connection, as parts get it."""

    def __init__(self, transaction: object) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def commit(self) -> NoReturn:
        raise exception.NotTransactionOwner(what='commit()')

    def rollback(self) -> NoReturn:
        raise exception.NotTransactionOwner(what='rollback()')

    def close(self) -> NoReturn:
        raise exception.NotTransactionOwner(what='close()')

    def prepare(self) -> NoReturn:
        raise exception.NotTransactionOwner(what='prepare()')


def own(transaction: orm.SessionTransaction) -> OwnedTransaction:
    """Let only its block end a transaction, once it is shared.

    :param transaction: a transaction that SQLAlchemy has just made
    :returns: the same
    """
    # SQLAlchemy makes them itself, and only of its own class.
    transaction.__class__ = OwnedTransaction
    return cast(OwnedTransaction, transaction)


def guard(connection: sa.Connection, transaction: OwnedTransaction) -> None:
    """Let a connection not end a transaction that is shared, nor write where
    its session only reads.

    :param connection: the session's connection for it
    :param transaction: the transaction of the session
    """
    if transaction.is_shared:
        connection.__class__ = SharedConnection
    elif transaction.session.read_only:
        connection.__class__ = ReadingConnection
    else:
        return
    cast(ReadingConnection, connection).transaction = transaction

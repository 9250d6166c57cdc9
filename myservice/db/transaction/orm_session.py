"""SQLAlchemy's Session, which calls join while a transaction is open.

It keeps the errors of its statements, so that a transaction commits as a
whole or not at all. ``joining.py`` decides who may use it.
"""

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import Protocol
from typing import cast
from typing import overload

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import orm
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice import exception
from myservice.db import operation
from myservice.db.engine import connection_state
from myservice.db.engine import errors
from myservice.db.engine import wire
from myservice.db.operation import Operation
from myservice.db.sql.dialects import is_server
from myservice.db.transaction import ownership
from myservice.db.transaction.annotations import Binds
from myservice.db.transaction.write_guard import GuardedSession


class Sharing(Protocol):
    """What lets others use a session, one at a time."""

    def in_use(self) -> contextlib.AbstractContextManager['Session']:
        """Keep others out while the caller uses the session."""
        ...

    def admits_caller(self) -> bool:
        """Return whether the caller is in a block, or is about to end it."""
        ...

    def is_ended_by_caller(self) -> bool:
        """Return whether the caller is about to end it."""
        ...


class Session(GuardedSession):
    """SQLAlchemy's Session, which others can join while it is shared.

    :param bind: what it works on
    :param binds: model to what it works on for that model
    :param read_only: whether it refuses to write
    """

    def __init__(
        self,
        bind: sa.Engine | sa.Connection,
        binds: Binds | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(bind, binds=dict(binds or {}), expire_on_commit=False)
        self.shared_by: Sharing | None = None
        self.read_only = read_only
        self.connection_in_use: sa.Connection | None = None
        # Whether a transaction, or a savepoint, of it is on its way out.
        self.is_ending = False
        # The driver's, where there is a wire.
        self.driver_connection: DBAPIConnection | None = None
        # The errors of its statements, and how many there were before each
        # savepoint: to roll back to it takes back those that came after it.
        self.failures: list[BaseException] = []
        self.failures_before: weakref.WeakKeyDictionary[
            orm.SessionTransaction, int
        ] = weakref.WeakKeyDictionary()

    @property
    def operation(self) -> Operation:
        """The operation of the call that the session works for."""
        return operation.current()

    @overload  # type: ignore[override]
    def begin(self, nested: Literal[True]) -> ownership.OwnedTransaction: ...

    # A block that joins is no transaction that could be ended.
    @overload
    def begin(
        self, nested: Literal[False] = False
    ) -> contextlib.AbstractContextManager[object]: ...

    def begin(
        self, nested: bool = False
    ) -> contextlib.AbstractContextManager[object]:
        """Begin a transaction, or join the one that is shared."""
        if self.shared_by is not None and not nested:
            return self.shared_by.in_use()
        return super().begin(nested)

    def flush(self, objects: Sequence[object] | None = None) -> None:
        """Send what was changed; while it is shared, keep others out."""
        try:
            if self.shared_by is None or self.shared_by.admits_caller():
                super().flush(objects)
            else:
                with self.shared_by.in_use():
                    super().flush(objects)
        except BaseException as error:
            # SQLAlchemy has rolled back, whatever it was.
            if not self.is_active:
                self.failures.append(error)
            raise

    def commit(self) -> None:
        """Commit; while it is shared, only flush: the owner commits."""
        if self.shared_by is not None:
            self.flush()
        else:
            super().commit()

    def rollback(self) -> None:
        """Roll back; while it is shared, doom it: the owner rolls back."""
        if self.shared_by is not None:
            self.failures.append(exception.PartRolledBack())
        else:
            super().rollback()

    def close(self) -> None:
        """Give everything back; while it is shared, that is the owner's."""
        if self.shared_by is None or self.shared_by.is_ended_by_caller():
            super().close()

    def reset(self) -> None:
        """Give everything back, and forget it; not while it is shared.

        :raises NotTransactionOwner: then
        """
        self._refuse_part('reset()')
        super().reset()

    def invalidate(self) -> None:
        """Give everything back, and drop connections; not while it is shared.

        :raises NotTransactionOwner: then
        """
        self._refuse_part('invalidate()')
        super().invalidate()

    def _refuse_part(self, what: str) -> None:
        transaction = self.get_transaction()
        if isinstance(transaction, ownership.OwnedTransaction):
            transaction.refuse_part(what)

    def is_sending(self) -> bool:
        """Return whether its connection waits for an answer."""
        used = self.connection_in_use
        return (
            used is not None
            and self.driver_connection is not None
            and wire.is_busy(self.driver_connection)
            and not (used.closed or used.invalidated)
        )

    def locks(self) -> bool:
        """Return whether a get by id locks its row: unless it only reads."""
        return not self.read_only

    def check_failures(self) -> None:
        """Refuse to go on after a statement that failed.

        :raises TransactionDoomed: when one has
        """
        for failure in self.failures:
            raise errors.doomed(failure) from failure


@event.listens_for(Session, 'after_begin')
def _collect_failures(
    session: Session, _: object, connection: sa.Connection
) -> None:
    session.connection_in_use = connection
    if is_server(connection.dialect):
        session.driver_connection = connection.connection.driver_connection
    connection_state.collect_failures(
        connection,
        session.failures,
        commits=not isinstance(session.bind, sa.Connection),
    )
    transaction = session.get_transaction()
    if isinstance(transaction, ownership.OwnedTransaction):
        ownership.guard(connection, transaction)


@event.listens_for(Session, 'after_transaction_create')
def _begin(session: Session, begun: orm.SessionTransaction) -> None:
    if begun.nested:
        ownership.own(begun)
        session.failures_before[begun] = len(session.failures)
    elif begun.parent is None:
        ownership.own(begun).is_shared = session.shared_by is not None
        session.failures.clear()


# SQLAlchemy only closes a savepoint in which a flush has failed.
@event.listens_for(Session, 'after_soft_rollback')
@event.listens_for(Session, 'after_transaction_end')
def _take_failures_back(
    session: Session, ended: orm.SessionTransaction
) -> None:
    connection = session.connection_in_use
    if not ended.nested or cast(ownership.OwnedTransaction, ended).is_kept:
        return
    if connection is None or not connection.invalidated:
        del session.failures[session.failures_before[ended] :]


@event.listens_for(Session, 'before_commit')
def _refuse_to_commit_a_part(session: Session) -> None:
    session.check_failures()


@event.listens_for(Session, 'do_orm_execute')
def _execute(
    state: orm.ORMExecuteState,
) -> sa.Result[*tuple[Any, ...]] | None:
    session = state.session
    if not isinstance(session, Session):
        return None
    if session.shared_by is None or session.shared_by.admits_caller():
        return None
    with session.shared_by.in_use():
        return state.invoke_statement()


@event.listens_for(Session, 'before_flush')
def _refuse_flush(session: Session, *_: object) -> None:
    session.refuse_write('flush of changed objects')
    session.check_failures()

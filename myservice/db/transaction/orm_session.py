"""SQLAlchemy's Session, which calls join while a transaction is open.

``Session`` knows which of its statements have failed, so that a transaction
commits as a whole or not at all; ``Transaction`` knows who may use it.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import cast
from typing import overload

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import orm
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice import exception
from myservice.context import TransactionSlot
from myservice.db import operation
from myservice.db.engine import connection_state
from myservice.db.engine import errors
from myservice.db.engine import fork
from myservice.db.engine import wire
from myservice.db.operation import Operation
from myservice.db.sql.dialects import backend_of
from myservice.db.transaction import control
from myservice.db.transaction import ownership
from myservice.db.transaction.annotations import Binds
from myservice.db.transaction.write_guard import GuardedSession


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
        self.shared_by: Transaction | None = None
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
    if backend_of(connection.dialect) != 'sqlite':
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


class Transaction:
    """What is open in a context: a session, and who may use it.

    :param session: the session that calls join
    :param handover: whether any thread may use it, one at a time
    :param slot: that of the context, where calls find it
    """

    def __init__(
        self, session: Session, handover: bool, slot: TransactionSlot
    ) -> None:
        self.session = session
        self._slot = slot
        self._outer = slot.transaction
        self._handover = handover
        self._pid = fork.pid
        self._owner = control.current()
        # How many blocks the owner is in, and how many of them may be sending
        # something: all but those that only belong to the transaction.
        self._depth = self._busy = 0
        # Its end lets nobody in but what listens to the session while the
        # owner commits, and so can still write.
        self._is_over = self._commits = self._is_closed = False
        self._ended_by: threading.Thread | None = None
        # Reentrant: the handler of a signal may call in the middle of it.
        self._changed = threading.Condition(threading.RLock())

    def begin(self) -> orm.SessionTransaction:
        """Begin, and let calls join.

        :returns: the block that commits or rolls back
        """
        self._slot.transaction = self.session.shared_by = self
        return orm.Session.begin(self.session)

    def join(self) -> Session:
        """Return the session, to one who may use it.

        :raises TransactionInUse: from another thread or asyncio task
        :raises TransactionDoomed: when a statement in it has failed
        :raises TransactionEnded: when it is over
        :raises CannotJoinHere: to a listener, while the session is beginning
            or ending something
        """
        with self.in_use():
            return self.session

    @contextlib.contextmanager
    def in_use(self, busy: bool = True) -> Iterator[Session]:
        """Keep others out while the caller uses the session.

        :param busy: whether what they do there is send statements
        """
        caller = control.current()
        self.refuse_child()
        with self._changed:
            if self._is_over:
                self._check_joins_end()
            if caller != self._owner:
                if self._depth or not self._handover:
                    raise control.in_use(self._owner, caller)
                self._owner = caller
            elif self.session.driver_connection and self.session.is_sending():
                raise exception.TransactionInUse(
                    owner=f'{control.name(caller)}, which waits for an answer',
                    caller='the same, as from the handler of a signal',
                )
            self._depth += 1
            self._busy += busy
        try:
            session = self.session
            if session.failures:
                session.check_failures()
            if session.is_ending or not session.is_active:
                raise exception.CannotJoinHere()
            yield session
        finally:
            with self._changed:
                self._depth -= 1
                self._busy -= busy
                if self._is_closed:
                    self._leave_slot()
                self._changed.notify_all()

    def end(self) -> None:
        """Let nobody else in any more, before it is committed.

        :raises TransactionInUse: while another thread is in the middle of it
        :raises TransactionDoomed: when a statement in it has failed
        """
        self.refuse_child()
        with self._changed:
            if self._depth:
                raise control.in_use(self._owner, control.current())
            self.session.check_failures()
            self._is_over = self._commits = True
            self._ended_by = threading.current_thread()
        self._let_go()

    def abandon(self, patience: float) -> None:
        """Let nobody in any more, and wait until nobody is sending.

        A connection that was given back while a thread waits for an answer
        would bring that answer to whoever has it next.

        :param patience: seconds to wait, at most, for another thread
        """
        if self._pid != fork.pid:
            # The block ends in a child of the process that opened it.
            self._let_go()
            self._slot.transaction = self._outer
            return
        with self._changed:
            self._is_over = True
            self._commits = False
            self._ended_by = threading.current_thread()
            is_owner = self._owner[0] is threading.current_thread()
            try:
                if not is_owner:
                    self._changed.wait_for(lambda: not self._busy, patience)
            finally:
                # Whoever is interrupted here does not leave it to the pool.
                if not is_owner and self._busy:
                    self._detach()
                self._let_go()

    def _detach(self) -> None:
        connection = self.session.connection_in_use
        if connection is None or connection.closed:
            return
        # In SQLite answers belong to statements, and cannot be mixed up.
        if backend_of(connection.dialect) != 'sqlite':
            sa.Connection.detach(connection)

    def _let_go(self) -> None:
        transaction = self.session.get_transaction()
        if isinstance(transaction, ownership.OwnedTransaction):
            transaction.is_shared = False

    def refuse_child(self) -> None:
        """Refuse a child of the process that opened it.

        :raises TransactionInUse: naming that process
        """
        # Its locks may be held by threads that the child does not have.
        if self._pid != fork.pid:
            raise fork.in_use(self._pid)

    def _leave_slot(self) -> None:
        # Who is still inside must not go on with transactions of their own.
        if not self._depth:
            self._slot.transaction = self._outer

    def close(self) -> None:
        """Close the session; who still has it is told that it is over."""
        try:
            self.session.close()
        finally:
            if self._owner == control.current():
                # Blocks of theirs that have not ended were interrupted.
                self._depth = self._busy = 0
            # In this order, whoever leaves last also leaves the slot, and no
            # lock is needed, which a child might wait for.
            self._is_closed = self._is_over = True
            self._ended_by = None
            self._leave_slot()

    def admits_caller(self) -> bool:
        """Return whether the caller is in a block, or is about to end it."""
        if self._busy > 0:
            return self._owner == control.current()
        return self.is_ended_by_caller() and self._joins_end()

    def _check_joins_end(self) -> None:
        if not self.is_ended_by_caller():
            raise exception.TransactionEnded()
        if not self._joins_end():
            raise exception.CannotJoinHere()

    def _joins_end(self) -> bool:
        # Once COMMIT or ROLLBACK is on its way, nothing joins.
        session = self.session
        return (
            self._commits
            and session.in_transaction()
            and session.is_active
            and not session.is_ending
        )

    def is_ended_by_caller(self) -> bool:
        """Return whether the caller is about to end it."""
        return self._ended_by is threading.current_thread()

"""The open transaction of a context: which thread or task may use it."""

import contextlib
import enum
import threading
from collections.abc import Callable
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import orm

from myservice import exception
from myservice.context import TransactionSlot
from myservice.db.engine import fork
from myservice.db.sql.dialects import is_server
from myservice.db.transaction import control
from myservice.db.transaction import ownership
from myservice.db.transaction.orm_session import Session


class _State(enum.Enum):
    """Where a transaction is on its way, which has one direction."""

    OPEN = enum.auto()
    #: its end lets nobody in but listeners to the session, while the owner
    #: commits, and they can still write
    COMMITTING = enum.auto()
    ABANDONED = enum.auto()
    CLOSED = enum.auto()


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
        self._state = _State.OPEN
        self._ended_by: threading.Thread | None = None
        # Reentrant: the handler of a signal may call in the middle of it.
        self._changed = threading.Condition(threading.RLock())

    @contextlib.contextmanager
    def block(
        self, commit: Callable[[Callable[[], None]], None], patience: float
    ) -> Iterator[Session]:
        """Begin, let calls join in this block, and commit or roll back.

        :param commit: called with what sends the COMMIT
        :param patience: seconds to wait, at most, for another thread
        """
        try:
            self._slot.transaction = self.session.shared_by = self
            with orm.Session.begin(self.session) as begun:
                try:
                    yield self.session
                    self._end()
                except BaseException:
                    self._abandon(patience)
                    raise
                commit(begun.commit)
        finally:
            self._close()

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
            if self._state is not _State.OPEN:
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
                if self._state is _State.CLOSED:
                    self._leave_slot()
                self._changed.notify_all()

    def _end(self) -> None:
        """Let nobody else in any more, before it is committed."""
        self.refuse_child()
        with self._changed:
            if self._depth:
                raise control.in_use(self._owner, control.current())
            self.session.check_failures()
            self._state = _State.COMMITTING
            self._ended_by = threading.current_thread()
        self._let_go()

    def _abandon(self, patience: float) -> None:
        """Let nobody in any more, and wait until nobody is sending.

        If a connection is given back while a thread waits for an answer, the
        answer goes to the next thread that has the connection.
        """
        if self._pid != fork.pid:
            # The block ends in a child of the process that opened it.
            self._let_go()
            self._slot.transaction = self._outer
            return
        with self._changed:
            self._state = _State.ABANDONED
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
        if is_server(connection.dialect):
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

    def _close(self) -> None:
        """Close the session; whoever still has it is told that it is over."""
        try:
            self.session.close()
        finally:
            if self._owner == control.current():
                # Blocks of theirs that have not ended were interrupted.
                self._depth = self._busy = 0
            # In this order, whoever leaves last also leaves the slot, and no
            # lock is needed, which a child might wait for.
            self._state = _State.CLOSED
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
            self._state is _State.COMMITTING
            and session.in_transaction()
            and session.is_active
            and not session.is_ending
        )

    def is_ended_by_caller(self) -> bool:
        """Return whether the caller is about to end it."""
        return self._ended_by is threading.current_thread()

"""Sessions and transactions: their rules, in one place.

Every public function is one transaction::

    session = get_session(context)
    with session.begin():
        ...

``get_session`` has four forms: for a transaction, either with objects or,
Core, of statements only; for reads; and for a write that is one statement.
Inside ``with transaction(context):`` all of them give the session that is open
there, whose ``begin()`` then opens nothing and whose ``commit()`` leaves the
commit to the owner. retry.py decides when to try again.
"""

import contextlib
import functools
import types
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Literal
from typing import Protocol
from typing import Self
from typing import overload

import sqlalchemy as sa

from myservice import exception
from myservice.context import RequestContext
from myservice.context import check_context
from myservice.db import operation
from myservice.db.engine import engines
from myservice.db.engine.purpose import Purpose
from myservice.db.engine.purpose import is_autocommit
from myservice.db.operation import Operation
from myservice.db.transaction.annotations import Binds
from myservice.db.transaction.annotations import Parameters
from myservice.db.transaction.core_session import CoreSession
from myservice.db.transaction.core_session import CoreTransaction
from myservice.db.transaction.joining import Transaction
from myservice.db.transaction.orm_session import Session


class AnySession(Protocol):
    """The methods that sessions of all forms have."""

    @property
    def operation(self) -> Operation:
        """The operation of the call that the session works for."""
        ...

    def begin(self) -> contextlib.AbstractContextManager[object]:
        """Return the block in which the session works."""
        ...

    @overload
    def execute(
        self, statement: sa.UpdateBase, params: Parameters | None = None, /
    ) -> sa.CursorResult[*tuple[Any, ...]]: ...

    @overload
    def execute(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.Result[*tuple[Any, ...]]: ...

    def execute(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.Result[*tuple[Any, ...]]:
        """Execute a statement and return its result."""
        ...

    def scalars(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.ScalarResult[Any]:
        """Execute a statement and return the first column of its rows."""
        ...

    def scalar(
        self,
        statement: sa.Executable,
        params: Mapping[str, object] | None = None,
        /,
    ) -> Any:
        """Execute a statement and return the first column of one row."""
        ...

    def get_bind(self) -> sa.Engine | sa.Connection:
        """Return the engine or connection that it executes on."""
        ...

    def locks(self) -> bool:
        """Return whether a get by id locks its row."""
        ...

    def close(self) -> None:
        """Give everything back; in a transaction only the owner does so."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: types.TracebackType | None,
        /,
    ) -> None: ...


@overload
def get_session(
    context: RequestContext | None = None,
    *,
    read_only: Literal[False] = False,
    autocommit: Literal[False] = False,
    core: Literal[False] = False,
) -> Session: ...


@overload
def get_session(
    context: RequestContext | None = None,
    *,
    read_only: bool = False,
    bind: sa.Engine | sa.Connection,
    binds: Binds | None = None,
) -> Session: ...


@overload
def get_session(
    context: RequestContext | None = None,
    *,
    read_only: bool = False,
    binds: Binds,
) -> Session: ...


# Without a context there is no transaction to join.
@overload
def get_session(
    *, read_only: Literal[True], autocommit: bool = False, core: bool = False
) -> CoreSession: ...


@overload
def get_session(
    *, autocommit: Literal[True], core: bool = False
) -> CoreSession: ...


@overload
def get_session(*, core: Literal[True]) -> CoreTransaction: ...


@overload
def get_session(
    context: RequestContext | None = None,
    *,
    read_only: bool = False,
    autocommit: bool = False,
    core: bool = False,
) -> AnySession: ...


def get_session(
    context: RequestContext | None = None,
    *,
    read_only: bool = False,
    autocommit: bool = False,
    core: bool = False,
    bind: sa.Engine | sa.Connection | None = None,
    binds: Binds | None = None,
) -> Session | CoreSession | CoreTransaction:
    """Return a session in one of four forms.

    By default it is SQLAlchemy's Session, for a transaction. The others are
    Core sessions: they execute statements, have no objects, and two of them
    send no BEGIN and COMMIT. If the context is inside of
    ``transaction(context)``, all of them are the session there.

    :param context: the caller; without one the session stands alone
    :param read_only: for reads; a write raises before it is sent
    :param autocommit: for a write that is one statement; a second one raises
    :param core: for a transaction of statements only
    :param bind: the engine or connection that a Session uses instead; if the
        connection has begun a transaction, the caller that began it commits
    :param binds: model to the engine or connection that a Session uses for it;
        the commits are one after the other, and the last can fail alone
    :returns: a Session, CoreSession or CoreTransaction, not yet begun
    :raises InvalidInput: for a bind together with another form
    :raises TransactionInUse: when the transaction of the context belongs to
        another thread or asyncio task
    :raises TransactionDoomed: when a statement in it has failed
    """
    joined = open_transaction(context)
    if joined is not None:
        _refuse_bind(bind or binds, 'the transaction of the context is open')
        return joined.join()
    ours = engines.get_engines(context)
    if bind is not None or binds is not None:
        _refuse_bind(autocommit or core, 'it is for the default form')
        for each in (bind, *(binds or {}).values()):
            known = each is None or isinstance(each, sa.Engine | sa.Connection)
            _refuse_bind(
                not known, f'{each!r:.100} is not an Engine or Connection'
            )
            _refuse_bind(each and each.dialect.is_async, 'it is for asyncio')
        default = bind or ours.get_engine('transaction')
        return Session(default, binds, read_only)
    if read_only:
        stale = context is not None and context.takes_stale
        purpose: Purpose = 'stale_read' if stale else 'read'
        return CoreSession(ours.get_engine(purpose), writes=0)
    if autocommit:
        return CoreSession(ours.get_engine('autocommit'), writes=1)
    if core:
        return CoreTransaction(ours.get_engine('core'))
    return Session(ours.get_engine('transaction'))


@contextlib.contextmanager
def transaction(
    context: RequestContext,
    read_only: bool = False,
    independent: bool = False,
    handover: bool = False,
    bind: sa.Connection | None = None,
) -> Iterator[Session]:
    """Make one transaction of all the calls with a context in this block.

    The outermost block owns COMMIT; calls and blocks inside of it join. An
    exception that leaves the outermost block rolls everything back. The block
    cannot be repeated after a transient error: see ``run_in_transaction``.

    :param context: the caller; its ``elevated()`` copies join too
    :param read_only: a consistent snapshot, without locks; refuses writes
    :param independent: own a transaction also inside of another one, on a
        second connection; on SQLite its first statement raises
        WouldWaitForItself if the other one has begun to write
    :param handover: let any thread use it, though never two at once;
        otherwise it belongs to the thread or task that opened it
    :param bind: own a transaction on this connection of ``get_engine(context,
        read_only)``; if it has begun one, the caller that began it commits
    :returns: a context manager that gives the Session
    :raises TransactionInUse: when the transaction of the context belongs to
        another thread or asyncio task
    :raises TransactionDoomed: when a statement in it has failed, and the
        block goes on or ends without an exception
    :raises TransactionEnded: when the session is used after the block, or by a
        listener to its end where no call can join any more
    :raises NotTransactionOwner: when the transaction is ended inside of the
        block
    :raises InvalidInput: when context is not a RequestContext; for a bind
        inside of an open transaction, or of another engine
    :raises CommitUnknown: when the connection was lost during COMMIT
    """
    check_context(context)
    outer = open_transaction(context)
    if outer is not None and not independent:
        _refuse_bind(bind, 'the transaction of the context is open')
        with outer.in_use(busy=False) as session:
            yield session
        return
    own = _own_session(context, read_only, bind)
    opened = Transaction(own, handover, context.transaction_slot)
    # No statement waits longer than that for its answer.
    patience = engines.get_engines(context).conf.database.read_timeout
    call = operation.current()
    try:
        with opened.block(functools.partial(operation.run, call), patience):
            yield own
    except BaseException as error:
        call.note_doubt(error)
        raise


def _own_session(
    context: RequestContext, read_only: bool, bind: sa.Connection | None
) -> Session:
    purpose: Purpose = 'transaction'
    if read_only:
        purpose = 'stale_snapshot' if context.takes_stale else 'snapshot'
    if bind is not None:
        # Calls that join rely on its isolation level and on our errors.
        ours = engines.get_engine(context, read_only)
        _refuse_bind(
            not isinstance(bind, sa.Connection) or bind.engine is not ours,
            'it is not a connection of get_engine()',
        )
        _refuse_bind(
            is_autocommit(bind.get_execution_options()), 'it is in AUTOCOMMIT'
        )
    return Session(
        bind or engines.get_engines(context).get_engine(purpose),
        read_only=read_only,
    )


def _refuse_bind(refused: object, reason: str) -> None:
    if refused:
        raise exception.InvalidInput(field='bind', reason=reason)


@contextlib.contextmanager
def savepoint(context: RequestContext) -> Iterator[Session]:
    """Let a part of a transaction fail alone.

    An exception that leaves the block undoes the writes of the block, and the
    transaction can go on; unless the error has rolled back all of it (a
    deadlock, a certification failure, a snapshot conflict).

    :param context: the caller, inside of ``transaction(context)``
    :returns: a context manager that gives the Session
    :raises NoTransaction: when no transaction is open
    :raises TransactionDoomed: when a statement in the block failed and the
        block ends without an exception
    :raises TransactionInUse: as for ``transaction``
    """
    joined = open_transaction(context)
    if joined is None:
        raise exception.NoTransaction()
    with joined.join().begin(nested=True) as begun:
        begun.is_shared = True
        try:
            yield begun.session
        finally:
            begun.is_shared = False


@contextlib.contextmanager
def undo_on_refusal(context: RequestContext) -> Iterator[None]:
    """Undo the writes of a function that refuses after it has written.

    Its own transaction is rolled back as a whole. If it joined one, the caller
    may catch the refusal and go on, so its writes need a savepoint.

    :param context: the caller of the function
    """
    if open_transaction(context) is None:
        yield
    else:
        with savepoint(context):
            yield


def open_transaction(context: RequestContext | None) -> Transaction | None:
    """Return the transaction that calls with a context join, or None.

    :raises InvalidInput: when context is not a RequestContext
    :raises TransactionInUse: when the transaction belongs to a process that
        this one was forked from
    """
    if context is None:
        return None
    try:
        opened: Transaction | None = context.transaction_slot.transaction
    except AttributeError:
        check_context(context)
        raise
    if opened is not None:
        opened.refuse_child()
    return opened

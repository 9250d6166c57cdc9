"""Sessions and transactions: the one home of their rules.

Every public function is one transaction::

    session = get_session(context)
    with session.begin():
        ...

``get_session`` has three forms: for a transaction, for reads, and for a write
that is a single statement. Inside ``with transaction(context):`` all of them
give the session that is open there, whose ``begin()`` then opens nothing and
whose ``commit()`` leaves the commit to the owner.
"""

import asyncio
import contextlib
import functools
import random
import re
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import ParamSpec
from typing import Protocol
from typing import Self
from typing import TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import orm

from myservice import exception
from myservice.context import RequestContext
from myservice.db import engine

P = ParamSpec('P')
R = TypeVar('R')


class AnySession(Protocol):
    """What the helpers of resource modules may use of any session."""

    def begin(self) -> contextlib.AbstractContextManager[Any]:
        """Return the block in which the session works."""
        ...

    def execute(self, statement: Any, params: Any = None, /) -> Any:
        """Execute a statement and return its result."""
        ...

    def in_transaction(self) -> bool:
        """Return whether what is locked now stays locked."""
        ...


class Session(orm.Session):
    """SQLAlchemy's Session, which others can join while it is shared."""

    shared = False

    def begin(self, nested: bool = False) -> Any:
        """Begin a transaction, or join the one that is shared."""
        if self.shared and not nested:
            return contextlib.nullcontext(self)
        return super().begin(nested)

    def commit(self) -> None:
        """Commit; while it is shared, only flush: the owner commits."""
        if self.shared:
            self.flush()
        else:
            super().commit()

    def close(self) -> None:
        """Give everything back; while it is shared, that is the owner's."""
        if not self.shared:
            super().close()


class LightSession:
    """Executes on one connection of the AUTOCOMMIT engine.

    It has no unit of work and no identity map: the result of a select is rows
    of columns, also where it names a model.

    :param engine: an engine whose connections are in AUTOCOMMIT
    :param writes: how many statements of a block may write
    """

    __slots__ = ('_connection', '_depth', '_engine', '_writes', '_written')

    def __init__(self, engine: sa.Engine, writes: int) -> None:
        self._engine = engine
        self._writes = writes
        self._written = 0
        self._depth = 0
        self._connection: sa.Connection | None = None

    def begin(self) -> Self:
        """Return the block in which the session has a connection."""
        return self

    def __enter__(self) -> Self:
        if self._depth == 0:
            self._connection = self._engine.connect()
            self._written = 0
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.close()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def execute(self, statement: Any, params: Any = None, /) -> Any:
        """Execute one statement.

        :param statement: an executable of SQLAlchemy
        :param params: its parameters, a dict
        :returns: SQLAlchemy's result
        :raises WriteInReadOnly: a write in a session that only reads
        :raises SecondWriteInAutocommit: a second write in a block
        :raises SessionNotBegun: outside of ``with session.begin():``
        """
        if self._connection is None:
            raise exception.SessionNotBegun()
        if _writes(statement):
            self._count_write(statement, params)
        return self._connection.execute(statement, params)

    def in_transaction(self) -> bool:
        """Return False: each statement is a transaction of its own."""
        return False

    def scalars(self, statement: Any, params: Any = None, /) -> Any:
        """Execute one statement and return the first column of its rows."""
        return self.execute(statement, params).scalars()

    def scalar(self, statement: Any, params: Any = None, /) -> Any:
        """Execute one statement and return the first column of one row."""
        return self.execute(statement, params).scalar()

    def _count_write(self, statement: Any, params: Any) -> None:
        if not self._writes:
            raise exception.WriteInReadOnly(statement=str(statement))
        # A list of parameters is a statement for each in most drivers.
        self._written += len(params) if isinstance(params, list) else 1
        if self._written > self._writes:
            raise exception.SecondWriteInAutocommit(statement=str(statement))


class Transaction:
    """What is open in a context: the session, and to whom it belongs."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._owner = _thread_of_control()

    def join(self) -> Session:
        """Return the session, to its owner.

        :raises TransactionInUse: from another thread or asyncio task
        """
        caller = _thread_of_control()
        if caller != self._owner:
            raise exception.TransactionInUse(
                owner=' of '.join(filter(None, self._owner[1:])),
                caller=' of '.join(filter(None, caller[1:])),
            )
        return self.session


def get_session(
    context: RequestContext | None = None,
    *,
    read_only: bool = False,
    autocommit: bool = False,
) -> Any:
    """Return a session in one of three forms.

    By default it is SQLAlchemy's Session, for a transaction. The other two
    are light, and travel only as the statements themselves. Where the context
    is inside of ``transaction(context)``, all three are the session there.

    :param context: the caller; without one the session stands alone
    :param read_only: for reads; a write raises before it is sent
    :param autocommit: for a write that is one statement; a second one raises
    :returns: a Session or LightSession, not yet begun
    :raises TransactionInUse: when the transaction of the context belongs to
        another thread or asyncio task
    """
    transaction = _open_transaction(context)
    if transaction is not None:
        return transaction.join()
    engines = engine.get_engines()
    if read_only or autocommit:
        return LightSession(
            engines.get_engine('autocommit'), writes=0 if read_only else 1
        )
    return Session(engines.get_engine('transaction'), expire_on_commit=False)


@contextlib.contextmanager
def transaction(context: RequestContext) -> Iterator[Session]:
    """Make one transaction of all the calls with a context in this block.

    The outermost block owns COMMIT; calls and blocks inside of it join. An
    exception that leaves the outermost block rolls everything back.

    :param context: the caller; its ``elevated()`` copies join too
    :returns: a context manager that gives the Session
    :raises TransactionInUse: when the transaction of the context belongs to
        another thread or asyncio task
    """
    open_transaction = _open_transaction(context)
    if open_transaction is not None:
        yield open_transaction.join()
        return
    session: Session = get_session()
    slot = context.transaction_slot
    with contextlib.closing(session), session.begin():
        slot.transaction = Transaction(session)
        session.shared = True
        try:
            yield session
        finally:
            session.shared = False
            slot.transaction = None


def retry_on_failure(function: Callable[P, R]) -> Callable[P, R]:
    """Repeat a call that owns its transaction after a transient error.

    A call that joined cannot be repeated alone, the error has undone the work
    of others: it raises the error up to the owner.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        context = kwargs.get('context', args[0] if args else None)
        if _open_transaction(context) is not None:
            return function(*args, **kwargs)
        database = engine.get_conf().database
        attempt = 0
        while True:
            try:
                return function(*args, **kwargs)
            except db_exception.DBDeadlock:
                if attempt == database.db_max_retries:
                    raise
            # Full jitter: callers that collided do not collide again.
            time.sleep(random.uniform(0, min(0.01 * 2**attempt, 1)))
            attempt += 1

    return call


def _open_transaction(context: Any) -> Transaction | None:
    slot = getattr(context, 'transaction_slot', None)
    return None if slot is None else slot.transaction


def _thread_of_control() -> tuple[Any, str, str | None]:
    thread = threading.current_thread()
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return (thread, task), f'thread {thread.name}', task and task.get_name()


_QUOTED = re.compile(r"'[^']*'")
_READS = re.compile(r'[\s(]*(select|values|show|desc|describe|with)\b', re.I)
_WRITES = re.compile(
    r'\b(insert|update(?<!for update)|delete|merge|into)\b|;\s*\S', re.I
)


@functools.lru_cache(maxsize=1000)
def _writes(statement: Any) -> bool:
    if isinstance(statement, sa.TextClause):
        text = _QUOTED.sub("''", statement.text)
        return not _READS.match(text) or bool(_WRITES.search(text))
    if not getattr(statement, 'is_select', False):
        return True
    # PostgreSQL lets a CTE of a SELECT write.
    parts = sa.sql.visitors.iterate(statement)
    return any(getattr(part, 'is_dml', False) for part in parts)

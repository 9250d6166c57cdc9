"""The Core sessions: they execute statements, without objects.

A Session of SQLAlchemy would take as much CPU again as the statement itself.
"""

import contextlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Self

import sqlalchemy as sa

from myservice import exception
from myservice.db import operation
from myservice.db.engine import connection_state
from myservice.db.engine import errors
from myservice.db.operation import Operation
from myservice.db.sql import write_detection
from myservice.db.sql.write_detection import Effect
from myservice.db.transaction.annotations import Parameters


class _Core:
    """The common parts of Core sessions."""

    __slots__ = ('_connection', '_engine')

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    @property
    def operation(self) -> Operation:
        """The operation of the call that the session works for."""
        return operation.current()

    def get_bind(self) -> sa.Engine:
        """Return the engine that it executes on, which has the dialect."""
        return self._engine

    def execute(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute one statement and return its result."""
        raise NotImplementedError

    def scalars(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.ScalarResult[Any]:
        """Execute one statement and return the first column of its rows."""
        return self.execute(statement, params).scalars()

    def scalar(
        self,
        statement: sa.Executable,
        params: Mapping[str, object] | None = None,
        /,
    ) -> Any:
        """Execute one statement and return the first column of one row."""
        return self.execute(statement, params).scalar()


class CoreSession(_Core):
    """Executes on one connection of the AUTOCOMMIT engine.

    It has no unit of work and no identity map: the result of a select is rows
    of columns, also where it names a model.

    :param engine: an engine whose connections are in AUTOCOMMIT
    :param writes: how many statements of a block may write
    """

    __slots__ = ('_call', '_depth', '_writes', '_written')

    def __init__(self, engine: sa.Engine, writes: int) -> None:
        super().__init__(engine)
        self._writes = writes
        self._written = 0
        self._depth = 0
        self._call: Operation | None = None

    def begin(self) -> Self:
        """Return the block in which the session has a connection."""
        return self

    def __enter__(self) -> Self:
        if self._depth == 0:
            self._connection = self._engine.connect()
            self._written = 0
            self._call = None
        self._depth += 1
        return self

    def __exit__(
        self, _: object, error: BaseException | None, __: object
    ) -> None:
        if error is not None and self._call is not None:
            self._call.note_doubt(error)
        self._depth -= 1
        if self._depth == 0:
            self.close()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def locks(self) -> bool:
        """Return False: each statement is a transaction of its own."""
        return False

    def execute(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute one statement.

        :param statement: an executable of SQLAlchemy
        :param params: its parameters, a dict
        :returns: SQLAlchemy's result
        :raises WriteInReadOnly: a write in a session that only reads
        :raises SecondWriteInAutocommit: a second write in a block
        :raises LockInAutocommit: a SELECT that locks rows
        :raises SessionNotBegun: outside of ``with session.begin():``
        :raises CommitUnknown: the connection was lost during a write
        """
        if self._connection is None:
            raise exception.SessionNotBegun()
        effect = write_detection.effect_of(statement)
        writes = effect is Effect.WRITES
        done = self._written
        if effect is not Effect.READS:
            if not self._writes:
                write_detection.refuse_write(statement)
            if not writes:
                raise exception.LockInAutocommit(
                    statement=write_detection.shown(statement)
                )
            self._count_write(statement, params)
        try:
            result = self._connection.execute(statement, params)
            if writes and self._call is not None:
                self._call.sent = True
            return result
        except errors.TRANSIENT as error:
            # A write commits by itself: losing its reply is like losing that
            # of a COMMIT, and after the write no error may say that it was not
            # done.
            if done or (writes and errors.is_lost(error)):
                raise errors.commit_unknown(error) from error
            raise

    def _count_write(
        self, statement: sa.Executable, params: Parameters | None
    ) -> None:
        # With a list of parameters most drivers send a statement for each.
        self._written += len(params) if isinstance(params, list) else 1
        if self._written > self._writes:
            raise exception.SecondWriteInAutocommit(
                statement=write_detection.shown(statement)
            )
        self._call = operation.current()


class CoreTransaction(_Core):
    """Executes statements in a transaction.

    The block commits at its end, and rolls back if an exception leaves it, or
    if a statement has failed.

    :param engine: an engine that need not fire events: this class does what
        its listeners would do at BEGIN and COMMIT
    """

    __slots__ = ('_failure',)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Self]:
        """Return the block that is the transaction."""
        with self._engine.connect() as connection:
            connection_state.mark_ended(connection)
            self._connection = connection
            self._failure: BaseException | None = None
            try:
                yield self
            except BaseException:
                connection.rollback()
                connection_state.mark_ended(connection)
                raise
            finally:
                self._connection = None
            if self._failure is not None:
                raise errors.doomed(self._failure) from self._failure
            if connection.in_transaction():
                connection_state.mark_committing(connection)
                connection.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: outside of its block it has no connection."""

    def locks(self) -> bool:
        """Return True: a get by id locks its row."""
        return True

    def execute(
        self, statement: sa.Executable, params: Parameters | None = None, /
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """Execute one statement.

        :param statement: an executable of SQLAlchemy
        :param params: its parameters, a dict
        :returns: SQLAlchemy's result
        :raises SessionNotBegun: outside of ``with session.begin():``
        """
        connection = self._connection
        if connection is None:
            raise exception.SessionNotBegun()
        if not connection.in_transaction():
            connection_state.mark_open(connection)
        try:
            return connection.execute(statement, params)
        except BaseException as error:
            self._failure = error
            raise

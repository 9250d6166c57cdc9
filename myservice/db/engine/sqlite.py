"""The setup of an engine on SQLite: one engine for all purposes.

Which BEGIN each purpose sends is in ``purpose.py``.
"""

import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import pool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.interfaces import DBAPICursor

from myservice import exception
from myservice.db.engine import fair_lock
from myservice.db.engine import pools
from myservice.db.engine import purpose
from myservice.db.engine import setup
from myservice.db.engine import sqlite_connection
from myservice.db.engine import sqlite_url

# A mark of oslo.db: without it, oslo.db's listener sends a deferred BEGIN to
# SQLite, in AUTOCOMMIT too. So our listener, which runs first, always sets it.
_OSLO_DB_HAS_BEGUN = 'in_transaction'


class MemoryPool(pools.Pool):
    """The pool of the one connection that is a database in memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = fair_lock.Turns(
            'the one connection of the SQLite database in memory'
        )

    def connect(self) -> pool.PoolProxiedConnection:
        """Check the connection out, in turn.

        :raises PoolTimeout: when the connection did not become free
        :raises WouldWaitForItself: when the caller has it already
        """
        place = fair_lock.Place(self._turns)
        try:
            if not place.take(self.timeout()):
                raise exception.PoolTimeout(timeout=self.timeout(), held=1)
            lent = super().connect()
            driver: Any = lent.dbapi_connection
            driver.place = place
        except BaseException:
            place.leave()
            raise
        return lent


class Setup(setup.Setup):
    """The setup for the driver of Python's standard library."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._busy_timeout = self.option('sqlite_busy_timeout')
        self._turns: fair_lock.Turns | None = None
        arguments = self.arguments
        arguments['check_same_thread'] = False
        if 'timeout' in url.query:
            self._busy_timeout = float(str(url.query['timeout']))
        arguments['timeout'] = self._busy_timeout
        # oslo.db sets no sizes, and would open the file at each call.
        file = sqlite_url.file_of(url)
        if file is None:
            # The connection is the database: there is only one, one caller has
            # it at a time, and it is never replaced.
            kwargs['poolclass'] = MemoryPool
            kwargs['pool_size'] = 1
            kwargs['max_overflow'] = 0
            kwargs['pool_recycle'] = -1
            arguments['factory'] = sqlite_connection.Connection
        else:
            arguments['factory'] = sqlite_connection.FileConnection
            self._turns = sqlite_connection.turns_of(file)
            kwargs['pool_use_lifo'] = True
            kwargs['pool_size'] = int(self.option('max_pool_size'))
            kwargs['max_overflow'] = int(self.option('max_overflow'))
        if 'myservice_pool_timeout' in self.query:
            kwargs['pool_timeout'] = self.option('pool_timeout')

    def listen(self, engine: sa.Engine) -> None:
        """Listen to events of the engine."""
        event.listen(engine, 'begin', self._begin)
        if self._turns is not None:
            event.listen(engine, 'after_cursor_execute', _end_turn)
        event.listen(engine, 'reset', _roll_back)
        event.listen(engine, 'checkin', _give_back)
        event.listen(engine, 'connect', self._use_write_ahead_log)

    def _begin(self, connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        name = options[purpose.KEY]
        traits = purpose.TRAITS[name]
        # In AUTOCOMMIT each statement waits for itself, and not for long.
        if 'isolation_level' not in options or not purpose.is_autocommit(
            options
        ):
            if self._turns is not None and traits.writes:
                self._begin_in_turn(connection, traits.sqlite_begin)
            elif traits.sqlite_begin:
                connection.exec_driver_sql(traits.sqlite_begin)
            if name == 'snapshot':
                _driver_of(connection).only_read()
        connection.info[_OSLO_DB_HAS_BEGUN] = True

    def _begin_in_turn(self, connection: sa.Connection, begin: str) -> None:
        driver = _driver_of(connection)
        try:
            driver.take_turn(self._turns, self._busy_timeout)
            if begin:
                connection.exec_driver_sql(begin)
        except BaseException:
            driver.end_turn()
            raise

    def _use_write_ahead_log(
        self, dbapi_connection: DBAPIConnection, _: object
    ) -> None:
        # Readers do not wait for the writer, nor the writer for them. The file
        # keeps the mode, so only the first connection ever changes it; while
        # it does, SQLite tells others "locked" and ignores their timeout.
        give_up = time.monotonic() + self._busy_timeout
        while True:
            try:
                dbapi_connection.execute('PRAGMA journal_mode = WAL').close()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                    return
                busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > give_up:
                    raise
            time.sleep(0.01)


def _driver_of(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection


def _end_turn(_: sa.Connection, cursor: DBAPICursor, *__: object) -> None:
    # A statement that commits by itself has ended the transaction.
    driver = cursor.connection
    if driver.place is not None and not driver.in_transaction:
        driver.end_turn()


def _roll_back(
    dbapi_connection: DBAPIConnection, record: object, state: object
) -> None:
    # SQLAlchemy does not see a transaction that was begun by hand.
    if dbapi_connection.in_transaction:
        dbapi_connection.roll_back_all()


def _give_back(
    dbapi_connection: DBAPIConnection | None, record: object
) -> None:
    if dbapi_connection is not None:
        dbapi_connection.give_back()

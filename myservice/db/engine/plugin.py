"""How an engine is shaped, by public hooks of SQLAlchemy.

``EnginePlugin`` is loaded by the URL parameter ``plugin=myservice``, which
engines.py adds. It puts right what the defaults of oslo.db and SQLAlchemy
cost: pings, double rollbacks, connections that are not pooled.
"""

import logging
import sqlite3
import time
import weakref
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy import pool
from sqlalchemy.engine import CreateEnginePlugin

from myservice import exception
from myservice.db import operation
from myservice.db.engine import errors
from myservice.db.engine import fair_lock
from myservice.db.engine import fork
from myservice.db.engine import interrupts
from myservice.db.engine import marks
from myservice.db.engine import pooler
from myservice.db.engine import sqlite_connection
from myservice.db.engine import sqlite_url
from myservice.db.engine import url_arguments
from myservice.db.engine import wire
from myservice.db.sql import dialects

LOG = logging.getLogger(__name__)

# What an engine is for: transactions of a Session; those of statements only;
# writes that are one statement; reads; read-only transactions; the last two on
# the replica; and migrations, whose statements may take hours.
Form = Literal[
    'transaction',
    'light',
    'autocommit',
    'read',
    'snapshot',
    'stale_read',
    'stale_snapshot',
    'migration',
]

# Marks in the ``info`` of a connection, beside those of marks.py.
_RETURNED_AT = 'myservice.returned_at'

# oslo.db's own: its listener sends a deferred BEGIN to SQLite, in AUTOCOMMIT
# too, unless it finds this mark, so ours, which runs first, always leaves it.
_OSLO_DB_HAS_BEGUN = 'in_transaction'

# The list of failures that must be empty when COMMIT is sent.
_STANDING_AGAINST = 'myservice.standing_against'

# What SQLite is told for each form: there, a form is no mode of a connection,
# so one engine serves them all. A deferred transaction that reads first and
# then writes would fail at once if another one wrote in between.
_SQLITE_BEGIN = {
    'transaction': 'BEGIN IMMEDIATE',
    'snapshot': 'BEGIN',
    'autocommit': '',
    'read': '',
}
_SQLITE_WRITES = ('transaction', 'autocommit')

# Parameters of the URL that say something about TLS, or name a file that may.
_ABOUT_TLS = ('ssl', 'read_default')

_ISOLATION = {
    'transaction': 'READ COMMITTED',
    'autocommit': 'AUTOCOMMIT',
    'snapshot': 'REPEATABLE READ',
    'migration': 'READ COMMITTED',
}


class Pool(pool.QueuePool):
    """SQLAlchemy's pool, whose timeout says how many connections are held."""

    #: whether a fork has cut off the first connection of the engine, which
    #: makes the engine unusable in the child
    is_cut_off = False

    def connect(self) -> pool.PoolProxiedConnection:
        """Check out a connection.

        :raises PoolTimeout: when none became free
        """
        try:
            return super().connect()
        except exc.TimeoutError as error:
            raise exception.PoolTimeout(
                timeout=self.timeout(), held=self.checkedout()
            ) from error


class MemoryPool(Pool):
    """The pool of the one connection that is a database in memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = fair_lock.Turns(
            'the one connection of the SQLite database in memory'
        )

    def connect(self) -> pool.PoolProxiedConnection:
        """Check the connection out, in turn.

        :raises PoolTimeout: when it did not become free
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


class EnginePlugin(CreateEnginePlugin):
    """Shapes an engine, by public hooks of SQLAlchemy, as it is created."""

    OPTIONS = (
        'ping_after_idle',
        'connect_timeout',
        'read_timeout',
        'sqlite_busy_timeout',
        'max_pool_size',
        'max_overflow',
        'pool_timeout',
    )

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self._query = url.query
        self._form = str(url.query[marks.FORM])
        kwargs['execution_options'] = {marks.FORM: self._form}
        self._arguments = kwargs.setdefault('connect_args', {})
        self._busy_timeout = self._option('sqlite_busy_timeout')
        self._turns: fair_lock.Turns | None = None
        self._pid = fork.pid
        self._records: weakref.WeakSet[Any] = weakref.WeakSet()
        # One ping before each call would be a third of its round trips.
        kwargs['pool_pre_ping'] = False
        # We know better when a ROLLBACK is due: see _roll_back_if_open.
        kwargs['pool_reset_on_return'] = None
        kwargs['poolclass'] = Pool
        shape = {
            'mysql': self._shape_mysql,
            'postgresql': self._shape_postgresql,
            'sqlite': self._shape_sqlite,
        }[dialects.backend_of(url)]
        shape(url, kwargs)

    def update_url(self, url: sa.URL) -> sa.URL:
        """Take our parameters out of the URL; the driver knows none."""
        ours = [marks.FORM, *(f'myservice_{name}' for name in self.OPTIONS)]
        if self._form == 'migration':
            ours.append('read_timeout')
        url = url.difference_update_query(ours)
        self._arguments |= url_arguments.of(url)
        if dialects.backend_of(url) == 'sqlite':
            url = sqlite_url.absolute(url)
        return url_arguments.without_secrets(url)

    def engine_created(self, engine: sa.Engine) -> None:
        """Listen to the events by which we do less than the defaults."""
        self._engine = weakref.ref(engine)
        fork.renew_in_child(self)
        event.listen(engine, 'do_connect', self._note_record)
        if self._form != 'autocommit':
            event.listen(engine, 'engine_connect', mark_ended)
            event.listen(engine, 'begin', mark_open)
            event.listen(engine, 'commit', mark_committing)
            event.listen(engine, 'rollback', mark_rolled_back)
            event.listen(engine, 'reset', _roll_back_if_open)
            _mark_committed(engine.dialect)
        backend = dialects.backend_of(engine.dialect)
        if backend == 'sqlite':
            event.listen(engine, 'begin', self._begin_sqlite)
            if self._turns is not None:
                event.listen(engine, 'after_cursor_execute', _end_turn)
            event.listen(engine, 'reset', _roll_back)
            event.listen(engine, 'checkin', _give_back)
            event.listen(engine, 'connect', self._use_write_ahead_log)
        else:
            event.listen(engine, 'checkin', _note_time)
            event.listen(engine, 'checkout', self._ping_if_idle(engine))
            event.listen(engine, 'invalidate', interrupts.cancel)
            if self._form != 'autocommit':
                interrupts.let_the_first_error_win(engine)
        if backend == 'postgresql' and 'prepare_threshold' not in self._query:
            pooler.prepare_where_possible(engine)
        if backend == 'mysql':
            one_context = not any(
                name.startswith(_ABOUT_TLS) for name in self._query
            )
            event.listen(
                engine, 'do_connect', _connect_pymysql(engine, one_context)
            )
        if self._form == 'snapshot' and backend in _ONLY_READ:
            event.listen(engine, 'connect', _ONLY_READ[backend])

    def renew(self) -> None:
        """Begin in a forked child, with a pool of its own."""
        parent, self._pid = self._pid, fork.pid
        records, self._records = list(self._records), weakref.WeakSet()
        for record in records:
            fork.leave_to_parent(record, parent)
        engine = self._engine()
        if engine is not None:
            engine.dispose(close=False)
            initialized = engine.dialect.server_version_info is not None
            if records and not initialized and isinstance(engine.pool, Pool):
                engine.pool.is_cut_off = True

    def _note_record(self, dialect: Any, record: Any, *_: Any) -> None:
        self._records.add(record)

    def _option(self, name: str) -> float:
        return float(str(self._query[f'myservice_{name}']))

    def _shape_server(self, kwargs: dict[str, Any]) -> None:
        # The connection used last is the likeliest to be alive; the others
        # get old, and are pinged, only when they are needed.
        kwargs['pool_use_lifo'] = True
        kwargs['isolation_level'] = _ISOLATION[self._form]
        if self._form == 'autocommit':
            kwargs['skip_autocommit_rollback'] = True

    def _shape_mysql(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self._shape_server(kwargs)
        arguments = self._arguments
        # oslo.db's "utf8" is MySQL's name for the part of UTF-8 that has no
        # emoji. It looks at the URL; so must we, or we would overrule it.
        if 'charset' not in url.query:
            arguments['charset'] = 'utf8mb4'
        # PyMySQL would take it for latin1, where servers have it in UTF-8.
        if url.password and not url.password.isascii():
            arguments['password'] = url.password.encode()
        # PyMySQL waits for ever by default, and its connect timeout does
        # not cover the handshake: a paused server would hold the caller.
        for name, option in (
            ('connect_timeout', 'connect_timeout'),
            ('read_timeout', 'read_timeout'),
            ('write_timeout', 'read_timeout'),
        ):
            if name not in url.query:
                arguments[name] = int(self._option(option))
        if self._form == 'migration':
            # A server that dies is noticed by the keepalive of TCP.
            arguments['read_timeout'] = None

    def _shape_postgresql(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self._shape_server(kwargs)
        arguments = self._arguments
        if 'connect_timeout' not in url.query:
            arguments['connect_timeout'] = int(self._option('connect_timeout'))
        # libpq has no read timeout; this one notices a dead host, in
        # milliseconds, but not a server that is alive and paused.
        if 'tcp_user_timeout' not in url.query:
            arguments['tcp_user_timeout'] = int(
                self._option('read_timeout') * 1000
            )

    def _shape_sqlite(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        arguments = self._arguments
        arguments['check_same_thread'] = False
        if 'timeout' in url.query:
            self._busy_timeout = float(str(url.query['timeout']))
        arguments['timeout'] = self._busy_timeout
        # oslo.db has given no sizes: it would open the file at each call.
        file = sqlite_url.file_of(url)
        if file is None:
            # The connection is the database: there is one, it is lent to one
            # caller at a time, and it is never replaced.
            kwargs['poolclass'] = MemoryPool
            kwargs['pool_size'] = 1
            kwargs['max_overflow'] = 0
            kwargs['pool_recycle'] = -1
            arguments['factory'] = sqlite_connection.Connection
        else:
            arguments['factory'] = sqlite_connection.FileConnection
            self._turns = sqlite_connection.turns_of(file)
            kwargs['pool_use_lifo'] = True
            kwargs['pool_size'] = int(self._option('max_pool_size'))
            kwargs['max_overflow'] = int(self._option('max_overflow'))
        if 'myservice_pool_timeout' in self._query:
            kwargs['pool_timeout'] = self._option('pool_timeout')

    def _ping_if_idle(self, engine: sa.Engine) -> Callable[..., None]:
        longest = self._option('ping_after_idle')

        def ping_if_idle(dbapi_connection: Any, record: Any, _: Any) -> None:
            record.info[marks.STATE] = marks.UNKNOWN
            returned_at = record.info.get(_RETURNED_AT)
            if returned_at is None or time.monotonic() - returned_at < longest:
                return
            try:
                engine.dialect.do_ping(dbapi_connection)
                return
            except engine.dialect.loaded_dbapi.Error as error:
                failure = error
            taken = errors.taken_by_driver(failure, engine.dialect)
            if taken is None and wire.is_busy(dbapi_connection):
                # Cleaning up after an interrupt, the ping has failed.
                taken = failure.__context__
            if taken is not None:
                raise taken
            # What killed this connection (a restart, a failover) has most
            # likely killed the other idle ones too.
            raise exc.InvalidatePoolError() from failure

        return ping_if_idle

    def _begin_sqlite(self, connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        form = options[marks.FORM]
        # In AUTOCOMMIT each statement waits for itself, and not for long.
        if 'isolation_level' not in options or not is_autocommit(options):
            if self._turns is not None and form in _SQLITE_WRITES:
                self._begin_in_turn(connection, _SQLITE_BEGIN[form])
            elif _SQLITE_BEGIN[form]:
                connection.exec_driver_sql(_SQLITE_BEGIN[form])
            if form == 'snapshot':
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

    def _use_write_ahead_log(self, dbapi_connection: Any, _: Any) -> None:
        # Readers do not wait for the writer, nor he for them. The file keeps
        # the mode, so only the first connection ever changes it; while it
        # does, SQLite tells others "locked" without heeding their timeout.
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


def _connect_pymysql(
    engine: sa.Engine, one_context: bool
) -> Callable[..., Any]:
    """Return what connects PyMySQL as by default, but with one TLS context.

    Its default is TLS if the server has it, and no verification. Yet it reads
    the machine's CA certificates for each connection, which takes 20 ms. It
    accepts a context, too, but then TLS is a must; so we put ours where it
    puts its own. A URL that says something about TLS is left to it: the files
    that are named there may change.
    """
    make = wire.pymysql_connection(engine.dialect)
    tls = make(defer_connect=True).ctx
    without_tls = {'ssl_disabled': True, 'defer_connect': True}

    def connect(_: Any, record: Any, args: Any, kwargs: Any) -> Any:
        if not one_context:
            return make(*args, **kwargs)
        connection = make(*args, **(kwargs | without_tls))
        connection.ssl = True
        connection.ctx = tls
        connection.connect()
        return connection

    return connect


def _only_read_in_mysql(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.query('SET SESSION TRANSACTION READ ONLY')


def _only_read_in_postgresql(dbapi_connection: Any, _: Any) -> None:
    # psycopg sends it with its BEGIN.
    dbapi_connection.read_only = True


# SQLite's connections are for all forms: see _begin_sqlite.
_ONLY_READ = {
    'mysql': _only_read_in_mysql,
    'postgresql': _only_read_in_postgresql,
}


def is_autocommit(options: Mapping[str, Any]) -> bool:
    """Return whether execution options ask for AUTOCOMMIT.

    :param options: those of a connection of ``get_engine()``
    """
    # SQLAlchemy does not heed the case.
    return str(options.get('isolation_level')).upper() == 'AUTOCOMMIT'


def _driver_of(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection


def _end_turn(_: sa.Connection, cursor: Any, *__: Any) -> None:
    # A statement that has committed by itself has ended what it was for.
    driver = cursor.connection
    if driver.place is not None and not driver.in_transaction:
        driver.end_turn()


def _roll_back(dbapi_connection: Any, record: Any, state: Any) -> None:
    # What was begun by hand is not known to SQLAlchemy.
    if dbapi_connection.in_transaction:
        dbapi_connection.roll_back_all()


def _give_back(dbapi_connection: Any, record: Any) -> None:
    if dbapi_connection is not None:
        dbapi_connection.give_back()


def _note_time(dbapi_connection: Any, record: Any) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


# SQLAlchemy rolls back at every return to the pool, after a COMMIT too. Here
# a connection that comes back with its transaction ended sends nothing. The
# server's own status flags would not do: PyMySQL does not refresh them after
# a SELECT, nor after an error.


def mark_open(connection: sa.Connection) -> None:
    """Note that a transaction begins."""
    info = connection.info
    info[marks.STATE] = marks.OPEN
    # Those of sessions before, which would collect errors for ever.
    info.pop(marks.FAILURES, None)


def collect_failures(
    connection: sa.Connection, failures: list[BaseException], commits: bool
) -> None:
    """Let a list have the errors of a connection until the next begin.

    :param connection: the connection
    :param failures: the list
    :param commits: whether whoever has the list commits, and only while it is
        empty
    """
    connection.info.setdefault(marks.FAILURES, []).append(failures)
    if commits:
        connection.info[_STANDING_AGAINST] = failures


def mark_committing(connection: sa.Connection) -> None:
    """Note that a COMMIT is sent.

    :raises TransactionDoomed: when a statement has failed
    """
    info = connection.info
    standing: Any = info.get(_STANDING_AGAINST)
    for failures in info.get(marks.FAILURES, ()):
        if failures is standing:
            for failure in failures:
                raise errors.doomed(failure) from failure
    info[marks.STATE] = marks.COMMITTING
    if connection.get_execution_options()[marks.FORM] != 'snapshot':
        info[marks.COMMITTER] = call = operation.current()
        call.sent = True


def _mark_committed(dialect: Any) -> None:
    """Note that a COMMIT was answered; there is no event for that."""
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:
        commit(connection)
        info = connection.info
        info[marks.STATE] = marks.ENDED
        info.pop(marks.COMMITTER, None)

    dialect.do_commit = do_commit


def mark_rolled_back(connection: sa.Connection) -> None:
    """Note that a ROLLBACK is sent, so that nothing has taken effect."""
    mark_ended(connection)
    if not connection.invalidated and marks.COMMITTER in connection.info:
        connection.info.pop(marks.COMMITTER).sent = False


def mark_ended(connection: sa.Connection) -> None:
    """Note that no transaction is open."""
    # To look at the info of an invalidated connection would reconnect.
    if not connection.invalidated:
        connection.info[marks.STATE] = marks.ENDED


def _roll_back_if_open(dbapi_connection: Any, record: Any, state: Any) -> None:
    if state.terminate_only:
        return
    if wire.is_busy(dbapi_connection):
        # It would wait for the answer, or take it for its own.
        LOG.warning('A connection came back busy, and is closed.')
        record.invalidate()
        return
    if record.info.get(marks.STATE) not in (
        marks.OPEN,
        marks.COMMITTING,
        marks.UNKNOWN,
    ):
        return
    # SQLAlchemy says that it was reset also where a COMMIT was not sent,
    # because of what a listener has raised.
    dbapi_connection.rollback()
    record.info[marks.STATE] = marks.ENDED


# Of all engines, and at the front: listeners are called in this order, and
# those that others have for all engines come before those of one engine. So
# they, too, see what an error means.
@event.listens_for(sa.Engine, 'handle_error', insert=True)
def _handle_error(context: Any) -> BaseException | None:
    engine = context.engine
    if engine is None or marks.FORM not in engine.get_execution_options():
        return None
    return _translate_error(context)


def _translate_error(context: Any) -> BaseException | None:
    error = errors.translate(context)
    connection = context.connection
    if not connection or connection.closed or connection.invalidated:
        return error
    if marks.FORM not in connection.get_execution_options():
        # By this one SQLAlchemy asks the server what it is, on the first one
        # of an engine. It has no info, and is dropped, whatever it meets.
        return error
    interrupts.drop_if_busy(context)
    # COMMIT and ROLLBACK are no statements to SQLAlchemy.
    committing = (
        context.statement is None
        and connection.info.get(marks.STATE) == marks.COMMITTING
    )
    if marks.STATE in connection.info:
        connection.info[marks.STATE] = marks.OPEN
    is_ours = error is not None and errors.is_typed(error)
    for failures in connection.info.get(marks.FAILURES, []):
        failures.append(error if is_ours else context.original_exception)
    if committing and error is not None and errors.is_lost(error):
        return errors.commit_unknown(error)
    return error

"""The engines: oslo.db's enginefacade, configured from oslo.config.

Each configuration has up to three engines on the same database: one for
transactions, one in AUTOCOMMIT for calls that are a single statement, and one
for read-only transactions, so that no connection changes its mode, which would
cost round trips. The enginefacade makes them, so ``[database]`` means what
operators know; EnginePlugin, which SQLAlchemy loads by the URL parameter
``plugin=myservice``, puts right what its defaults cost: pings, double
rollbacks, connections that are not pooled.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Literal
from urllib.parse import urlencode

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy import pool
from sqlalchemy.engine import CreateEnginePlugin

from myservice import conf as options
from myservice import exception
from myservice.db import errors
from myservice.db import turn

Form = Literal['transaction', 'autocommit', 'read', 'snapshot']

# Marks in the ``info`` of a connection.
_STATE = 'myservice.state'
_OPEN, _COMMITTING, _ENDED = 'open', 'committing', 'ended'
_HAS_TURN = 'myservice.has_turn'
_RETURNED_AT = 'myservice.returned_at'

# oslo.db's own: its listener sends a deferred BEGIN to SQLite, in AUTOCOMMIT
# too, unless it finds this mark, so ours, which runs first, always leaves it.
_OSLO_DB_HAS_BEGUN = 'in_transaction'

# The list, in the ``info`` of a connection, that a session wants the errors
# of its statements in.
FAILURES = 'myservice.failures'

# A parameter of the URL, and an execution option.
_FORM = 'myservice_form'

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

_ISOLATION = {
    'transaction': 'READ COMMITTED',
    'autocommit': 'AUTOCOMMIT',
    'snapshot': 'REPEATABLE READ',
}


class Engines:
    """The engines of one configuration; each starts at its first use.

    :param conf: the ConfigOpts whose [database] group configures them
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        options.register_opts(conf)
        self.conf = conf
        self._facades: dict[Form, Any] = {}
        self._engines: dict[Form, sa.Engine] = {}
        self._lock = threading.RLock()

    @property
    def url(self) -> sa.URL:
        """The URL of the database; nothing is connected.

        :raises InvalidInput: when it is no URL
        """
        with _url_errors():
            return sa.make_url(self.conf.database.connection)

    def get_engine(self, form: Form) -> sa.Engine:
        """Return the engine of a form.

        :param form: 'transaction'; 'autocommit' for a write that is one
            statement; 'read' for reads; 'snapshot' for read-only transactions
        :returns: an engine; on SQLite all forms share one, and on a server
            reads share that of autocommit
        :raises InvalidInput: when [database] connection cannot be used
        """
        try:
            return self._engines[form]
        except KeyError:
            with self._lock:
                return self._engines.setdefault(form, self._start(form))

    def pool_use(self) -> dict[str, dict[str, int]]:
        """Return size, checked_out and overflow of the pool of each form."""
        return {
            form: {
                'size': engine.pool.size(),
                'checked_out': engine.pool.checkedout(),
                'overflow': max(engine.pool.overflow(), 0),
            }
            for form, engine in list(self._engines.items())
            if form in self._facades and isinstance(engine.pool, Pool)
        }

    def dispose(self) -> None:
        """Close the pooled connections; the next call starts anew."""
        with self._lock:
            for facade in self._facades.values():
                facade.dispose_pool()
            self._facades.clear()
            self._engines.clear()

    def _shared(self, form: Form) -> Form | None:
        if self.url.get_backend_name() == 'sqlite':
            return None if form == 'transaction' else 'transaction'
        return 'autocommit' if form == 'read' else None

    def _start(self, form: Form) -> sa.Engine:
        shared = self._shared(form)
        if shared is not None:
            return self.get_engine(shared).execution_options(**{_FORM: form})
        facade = enginefacade.transaction_context()
        facade.configure(**_facade_arguments(self.conf, form))
        with _url_errors():
            started: sa.Engine = facade.writer.get_engine()
        self._facades[form] = facade
        return started


@contextlib.contextmanager
def _url_errors() -> Iterator[None]:
    """Turn what libraries make of a wrong URL into one error."""
    try:
        yield
    except (exc.ArgumentError, ImportError, ValueError) as error:
        raise exception.InvalidInput(
            field='[database] connection', reason=errors.first_line(error)
        ) from error


_engines: Engines | None = None
_engines_lock = threading.Lock()


def get_engines() -> Engines:
    """Return the engines in use: those of configure(), else of cfg.CONF."""
    global _engines
    if _engines is None:
        with _engines_lock:
            _engines = _engines or Engines(options.CONF)
    return _engines


def get_conf() -> cfg.ConfigOpts:
    """Return the configuration in use."""
    return get_engines().conf


def configure(conf: cfg.ConfigOpts) -> None:
    """Use another configuration than the global cfg.CONF.

    :param conf: a ConfigOpts; the options of myservice are registered on it
    """
    global _engines
    with _engines_lock:
        old, _engines = _engines, Engines(conf)
    if old is not None:
        old.dispose()


def dispose() -> None:
    """Close all pooled connections; the next call opens new ones."""
    if _engines is not None:
        _engines.dispose()


def _facade_arguments(conf: cfg.ConfigOpts, form: Form) -> dict[str, Any]:
    arguments = options.database.for_enginefacade(conf)
    ours = {
        f'myservice_{name}': conf.database[name]
        for name in EnginePlugin.OPTIONS
        if conf.database[name] is not None
    }
    ours |= {'plugin': 'myservice', _FORM: form}
    parameters = [arguments['connection_parameters'], urlencode(ours)]
    return arguments | {
        'connection_parameters': '&'.join(filter(None, parameters)),
        'sqlite_fk': True,
        # It sleeps at each return of a connection, for eventlet's sake.
        'thread_checkin': False,
    }


class Pool(pool.QueuePool):
    """SQLAlchemy's pool, whose timeout says how many connections are held."""

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
        self._form = str(url.query[_FORM])
        kwargs['execution_options'] = {_FORM: self._form}
        self._busy_timeout = self._option('sqlite_busy_timeout')
        self._turns = turn.Turns()
        # One ping before each call would be a third of its round trips.
        kwargs['pool_pre_ping'] = False
        # We know better when a ROLLBACK is due: see _roll_back_if_open.
        kwargs['pool_reset_on_return'] = None
        kwargs['poolclass'] = Pool
        shape = {
            'mysql': self._shape_mysql,
            'postgresql': self._shape_postgresql,
            'sqlite': self._shape_sqlite,
        }.get(url.get_backend_name())
        if shape is not None:
            shape(url, kwargs)

    def update_url(self, url: sa.URL) -> sa.URL:
        """Take our parameters out of the URL; the driver knows none."""
        return url.difference_update_query(
            [_FORM, *(f'myservice_{name}' for name in self.OPTIONS)]
        )

    def engine_created(self, engine: sa.Engine) -> None:
        """Listen to the events by which we do less than the defaults."""
        event.listen(engine, 'handle_error', _translate_error)
        if self._form != 'autocommit':
            event.listen(engine, 'begin', _mark_open)
            event.listen(engine, 'commit', _mark_committing)
            event.listen(engine, 'rollback', _mark_ended)
            event.listen(engine, 'reset', _roll_back_if_open)
        if engine.dialect.name == 'sqlite':
            event.listen(engine, 'begin', self._begin_sqlite)
            event.listen(engine, 'checkin', self._end_turn)
            event.listen(engine, 'connect', self._use_write_ahead_log)
        else:
            event.listen(engine, 'checkin', _note_time)
            event.listen(engine, 'checkout', self._ping_if_idle(engine))

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
        arguments = kwargs.setdefault('connect_args', {})
        # oslo.db's "utf8" is MySQL's name for the part of UTF-8 that has no
        # emoji. It looks at the URL; so must we, or we would overrule it.
        if 'charset' not in url.query:
            arguments['charset'] = 'utf8mb4'
        # PyMySQL waits for ever by default, and its connect timeout does
        # not cover the handshake: a paused server would hold the caller.
        for name, option in (
            ('connect_timeout', 'connect_timeout'),
            ('read_timeout', 'read_timeout'),
            ('write_timeout', 'read_timeout'),
        ):
            if name not in url.query:
                arguments[name] = int(self._option(option))

    def _shape_postgresql(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self._shape_server(kwargs)
        arguments = kwargs.setdefault('connect_args', {})
        if 'connect_timeout' not in url.query:
            arguments['connect_timeout'] = int(self._option('connect_timeout'))
        # libpq has no read timeout; this one notices a dead host, in
        # milliseconds, but not a server that is alive and paused.
        if 'tcp_user_timeout' not in url.query:
            arguments['tcp_user_timeout'] = int(
                self._option('read_timeout') * 1000
            )

    def _shape_sqlite(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        arguments = kwargs.setdefault('connect_args', {})
        arguments['check_same_thread'] = False
        if 'timeout' in url.query:
            self._busy_timeout = float(str(url.query['timeout']))
        arguments['timeout'] = self._busy_timeout
        # oslo.db has given no sizes: it would open the file at each call.
        if _is_in_memory(url):
            # The connection is the database: there is one, it is lent to one
            # caller at a time, and it is never replaced.
            kwargs['pool_size'] = 1
            kwargs['max_overflow'] = 0
            kwargs['pool_recycle'] = -1
        else:
            kwargs['pool_use_lifo'] = True
            kwargs['pool_size'] = int(self._option('max_pool_size'))
            kwargs['max_overflow'] = int(self._option('max_overflow'))
        if 'myservice_pool_timeout' in self._query:
            kwargs['pool_timeout'] = self._option('pool_timeout')

    def _ping_if_idle(self, engine: sa.Engine) -> Callable[..., None]:
        longest = self._option('ping_after_idle')

        def ping_if_idle(dbapi_connection: Any, record: Any, _: Any) -> None:
            returned_at = record.info.get(_RETURNED_AT)
            if returned_at is None or time.monotonic() - returned_at < longest:
                return
            try:
                engine.dialect.do_ping(dbapi_connection)
            except engine.dialect.loaded_dbapi.Error as error:
                # What killed this connection (a restart, a failover) has
                # most likely killed the other idle ones too.
                raise exc.InvalidatePoolError() from error

        return ping_if_idle

    def _begin_sqlite(self, connection: sa.Connection) -> None:
        form = connection.get_execution_options()[_FORM]
        if form in _SQLITE_WRITES and not connection.info.get(_HAS_TURN):
            # SQLite would let them wait, too, but not in any order.
            if not self._turns.take(self._busy_timeout):
                raise db_exception.DBDeadlock('database is locked')
            connection.info[_HAS_TURN] = True
        if _SQLITE_BEGIN[form]:
            connection.exec_driver_sql(_SQLITE_BEGIN[form])
        connection.info[_OSLO_DB_HAS_BEGUN] = True

    def _end_turn(self, dbapi_connection: Any, record: Any) -> None:
        if record.info.pop(_HAS_TURN, False):
            self._turns.end()

    def _use_write_ahead_log(self, dbapi_connection: Any, _: Any) -> None:
        # Readers do not wait for the writer, nor he for them. The file keeps
        # the mode, so only the first connection ever changes it; while it
        # does, SQLite tells others "locked" without heeding their timeout.
        give_up = time.monotonic() + self._busy_timeout
        while True:
            try:
                dbapi_connection.execute('PRAGMA journal_mode = WAL')
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > give_up:
                    raise
            time.sleep(0.01)


def _is_in_memory(url: sa.URL) -> bool:
    return url.database in (None, '', ':memory:')


def _note_time(dbapi_connection: Any, record: Any) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


# SQLAlchemy rolls back at every return to the pool, after a COMMIT too. Here
# a connection that comes back with its transaction ended sends nothing. The
# server's own status flags would not do: PyMySQL does not refresh them after
# a SELECT, nor after an error.


def _mark_open(connection: sa.Connection) -> None:
    connection.info[_STATE] = _OPEN


def _mark_committing(connection: sa.Connection) -> None:
    connection.info[_STATE] = _COMMITTING


def _mark_ended(connection: sa.Connection) -> None:
    # To look at the info of an invalidated connection would reconnect.
    if not connection.invalidated:
        connection.info[_STATE] = _ENDED


def _roll_back_if_open(dbapi_connection: Any, record: Any, state: Any) -> None:
    if state.terminate_only or record.info.get(_STATE) != _OPEN:
        return
    if not state.transaction_was_reset:
        dbapi_connection.rollback()
    record.info[_STATE] = _ENDED


def _translate_error(context: Any) -> None:
    connection = context.connection
    if not connection or connection.closed or connection.invalidated:
        errors.translate(context)
        return
    # COMMIT and ROLLBACK are no statements to SQLAlchemy.
    committing = (
        context.statement is None
        and connection.info.get(_STATE) == _COMMITTING
    )
    if _STATE in connection.info:
        connection.info[_STATE] = _OPEN
    try:
        errors.translate(context)
    except Exception as error:
        connection.info.get(FAILURES, []).append(error)
        if committing and errors.is_lost(error):
            raise errors.commit_unknown(error) from error
        raise

"""The engines: oslo.db's enginefacade, configured from oslo.config.

Each configuration has up to three engines on the same database: one for
transactions, one in AUTOCOMMIT for calls that are a single statement, and one
for read-only transactions, so that no connection changes its mode, which would
cost round trips. The enginefacade makes them, so ``[database]`` means what
operators expect; plugin.py corrects its expensive defaults.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db.sqlalchemy import enginefacade
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import event
from sqlalchemy import exc

from myservice import conf as options
from myservice import exception
from myservice.context import RequestContext
from myservice.db import operation
from myservice.db.engine import errors
from myservice.db.engine import fork
from myservice.db.engine import url_arguments
from myservice.db.engine.plugin import EnginePlugin
from myservice.db.engine.pools import Pool
from myservice.db.engine.purpose import KEY
from myservice.db.engine.purpose import ON_PRIMARY
from myservice.db.engine.purpose import Purpose
from myservice.db.sql.dialects import is_server
from myservice.db.sql.dialects import parse_url


class Engines:
    """The engines of one configuration; each starts at its first use.

    :param conf: the ConfigOpts whose [database] group configures them
    :raises InvalidInput: when conf is not a ConfigOpts, has an option that is
        out of its range, or names a database or a driver that is not supported
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not isinstance(conf, cfg.ConfigOpts):
            raise exception.InvalidInput(
                field='conf', reason=f'{conf!r:.100} is not a ConfigOpts'
            )
        options.register_opts(conf)
        options.check(conf)
        _check_urls(conf)
        self.conf = conf
        self._facades: dict[Purpose, Any] = {}
        self._engines: dict[Purpose, sa.Engine] = {}
        self.renew()
        fork.renew_in_child(self)

    def renew(self) -> None:
        """Begin; a forked child begins again, with pools of its own.

        Each engine stays the same object: others may listen to it.
        """
        for purpose, engine in list(self._engines.items()):
            if getattr(engine.pool, 'is_cut_off', False):
                del self._engines[purpose]
                self._facades.pop(purpose, None)

    def __deepcopy__(self, memo: dict[int, object]) -> 'Engines':
        # Copies of a context use the same pools.
        return self

    @property
    def url(self) -> sa.URL:
        """The URL of the database; nothing is connected.

        :raises InvalidInput: when it is not a URL, or names a database or a
            driver that is not supported
        """
        return url_arguments.without_secrets(_url(self.conf, 'connection'))

    def get_engine(self, purpose: Purpose) -> sa.Engine:
        """Return the engine of a purpose.

        :param purpose: 'transaction'; 'core' for a transaction of statements
            only; 'autocommit' for a write that is one statement; 'read' for
            reads; 'snapshot' for read-only transactions; 'stale_read' and
            'stale_snapshot' for the same on the replica
        :returns: an engine; on SQLite all purposes share one, on a server
            reads share the one of autocommit, and without a replica the
            engines of the primary are used, whose rows are never stale
        :raises InvalidInput: when [database] connection cannot be used
        """
        try:
            return self._engines[purpose]
        except KeyError:
            with fork.in_one_piece:
                if purpose in self._engines:
                    return self._engines[purpose]
                _check_urls(self.conf)
                return self._engines.setdefault(purpose, self._start(purpose))

    def pool_use(self) -> dict[str, dict[str, int]]:
        """Return size, checked_out and overflow of each pool, by purpose."""
        return {
            purpose: {
                'size': engine.pool.size(),
                'checked_out': engine.pool.checkedout(),
                'overflow': max(engine.pool.overflow(), 0),
            }
            for purpose, engine in list(self._engines.items())
            if purpose in self._facades and isinstance(engine.pool, Pool)
        }

    def dispose(self) -> None:
        """Close the pooled connections; the next call starts anew."""
        with fork.in_one_piece:
            for facade in self._facades.values():
                facade.dispose_pool()
            self._facades.clear()
            self._engines.clear()

    def _shared(self, purpose: Purpose) -> Purpose | None:
        if not is_server(self.url):
            return None if purpose == 'transaction' else 'transaction'
        return 'autocommit' if purpose == 'read' else None

    def _start(self, purpose: Purpose) -> sa.Engine:
        if purpose == 'core':
            return self._without_events(self.get_engine('transaction'))
        replica = self.conf.database.slave_connection
        if purpose in ON_PRIMARY and not replica:
            return self.get_engine(ON_PRIMARY[purpose])
        shared = None if purpose in ON_PRIMARY else self._shared(purpose)
        if shared is not None:
            return self.get_engine(shared).execution_options(**{KEY: purpose})
        facade = enginefacade.transaction_context()
        with _url_errors(_option(purpose)):
            facade.configure(**_facade_arguments(self.conf, purpose))
            started: sa.Engine = facade.writer.get_engine()
        # A signal handler that makes a call may have started it meanwhile.
        if purpose in self._engines:
            return self._engines[purpose]
        # This handler looks for words in texts, which servers have in many
        # languages, and would translate again what errors.py has translated.
        event.remove(started, 'handle_error', exc_filters.handler)
        self._facades[purpose] = facade
        if purpose in ('autocommit', 'stale_read'):
            return self._without_events(started)
        return started

    def _without_events(self, engine: sa.Engine) -> sa.Engine:
        """Return an engine on the same pool, which fires no events.

        oslo.db listens to COMMIT and ROLLBACK. Once an engine has a listener,
        SQLAlchemy looks for listeners of every event, seven times in a call of
        one statement, which is a fifth of its CPU. The translation of errors
        listens to the dialect, and stays. SQLite needs its listener for BEGIN,
        and connection_trace has to see the statements.
        """
        trace = self.conf.database.connection_trace
        if trace or not is_server(engine.dialect):
            return engine
        without = sa.Engine(
            engine.pool,
            engine.dialect,
            engine.url,
            execution_options=engine.get_execution_options(),
        )

        def follow(disposed: sa.Engine) -> None:
            without.pool = disposed.pool

        event.listen(engine, 'engine_disposed', follow)
        return without


@contextlib.contextmanager
def _url_errors(option: str) -> Iterator[None]:
    """Turn the errors of libraries for a wrong URL into one error."""
    try:
        yield
    except (exc.ArgumentError, ImportError, ValueError) as error:
        raise exception.InvalidInput(
            field=f'[database] {option}', reason=errors.first_line(error)
        ) from error


def _option(purpose: Purpose) -> str:
    return 'slave_connection' if purpose in ON_PRIMARY else 'connection'


def _url(conf: cfg.ConfigOpts, option: str) -> sa.URL:
    return parse_url(_text(conf, option) or '', f'[database] {option}')


def _text(conf: cfg.ConfigOpts, option: str) -> str | None:
    # The error quotes the text after the $, which may be a password.
    with contextlib.suppress(cfg.Error):
        text: str | None = conf.database[option]
        return text
    raise exception.InvalidInput(
        field=f'[database] {option}',
        reason='a $ in it names no option; in a password, write $$ for $',
    )


def _check_urls(conf: cfg.ConfigOpts) -> None:
    # The URL of the replica would be checked much later.
    _check_url(conf, 'connection')
    if _text(conf, 'slave_connection'):
        _check_url(conf, 'slave_connection')


def _check_url(conf: cfg.ConfigOpts, option: str) -> None:
    url = _url(conf, option)
    with _url_errors(option):
        url = url.update_query_string(
            conf.database.connection_parameters or '', append=True
        )
        # Only when an engine is made is it known what a plugin takes out.
        if 'plugin' not in url.query:
            url_arguments.of(url)


_engines: Engines | None = None


def get_engines(context: RequestContext | None = None) -> Engines:
    """Return the engines that a call uses.

    :param context: the caller; by default that of the current call
    :returns: the engines that the caller names, else those of configure(),
        else those of the global cfg.CONF
    """
    global _engines
    caller = operation.current() if context is None else context
    if caller.engines is not None:
        named: Engines = caller.engines
        return named
    if _engines is None:
        made = Engines(options.CONF)
        with fork.in_one_piece:
            _engines = _engines or made
    return _engines


def get_conf() -> cfg.ConfigOpts:
    """Return the configuration that the current call uses."""
    return get_engines().conf


def get_engine(
    context: RequestContext | None = None, read_only: bool = False
) -> sa.Engine:
    """Return SQLAlchemy's engine, for work that the API has no function for.

    Nothing is connected before its first use. A connection of it can be the
    ``bind`` of a session or a transaction. Others share its pool: close it
    with ``dispose()`` of this module.

    :param context: the caller, whose engines are used; by default those of the
        current call, else the configured ones
    :param read_only: whether it is for read-only transactions
    :returns: the engine of transactions
    :raises InvalidInput: when [database] connection cannot be used
    """
    purpose: Purpose = 'snapshot' if read_only else 'transaction'
    return get_engines(context).get_engine(purpose)


def configure(conf: cfg.ConfigOpts) -> None:
    """Use another configuration than the global cfg.CONF.

    :param conf: a ConfigOpts; the options of myservice are registered on it
    :raises InvalidInput: as for Engines
    """
    global _engines
    made = Engines(conf)
    with fork.in_one_piece:
        old, _engines = _engines, made
    if old is not None:
        old.dispose()


def dispose() -> None:
    """Close all pooled connections; the next call opens new ones."""
    if _engines is not None:
        _engines.dispose()


def _facade_arguments(
    conf: cfg.ConfigOpts, purpose: Purpose
) -> dict[str, Any]:
    arguments = options.database.for_enginefacade(conf)
    ours = {
        f'myservice_{name}': conf.database[name]
        for name in EnginePlugin.OPTIONS
        if conf.database[name] is not None
    }
    connection = _url(conf, _option(purpose))
    purpose = ON_PRIMARY.get(purpose, purpose)
    if purpose == 'read' and is_server(connection):
        purpose = 'autocommit'
    ours |= {'plugin': 'myservice', KEY: purpose}
    parameters = [arguments['connection_parameters'], urlencode(ours)]
    return arguments | {
        'connection': connection,
        # The facade would connect to it when it starts.
        'slave_connection': None,
        'connection_parameters': '&'.join(filter(None, parameters)),
        'sqlite_fk': True,
        # It would sleep at each return of a connection, for eventlet's sake.
        'thread_checkin': False,
    }

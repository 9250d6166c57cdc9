"""Shapes an engine, by public hooks of SQLAlchemy.

``EnginePlugin`` is loaded by the URL parameter ``plugin=myservice``, which
engines.py adds. It avoids the costs of the defaults of oslo.db and SQLAlchemy:
pings, double rollbacks, connections that are not pooled.
"""

import weakref
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import ConnectionPoolEntry

from myservice.db.engine import connection_state
from myservice.db.engine import fork
from myservice.db.engine import mysql
from myservice.db.engine import pools
from myservice.db.engine import postgresql
from myservice.db.engine import purpose
from myservice.db.engine import setup
from myservice.db.engine import sqlite
from myservice.db.engine import sqlite_url
from myservice.db.engine import url_arguments
from myservice.db.sql import dialects

_SETUPS: dict[dialects.Backend, type[setup.Setup]] = {
    'mysql': mysql.Setup,
    'postgresql': postgresql.Setup,
    'sqlite': sqlite.Setup,
}


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
        self._purpose = str(url.query[purpose.KEY])
        kwargs['execution_options'] = {purpose.KEY: self._purpose}
        self._pid = fork.pid
        self._records: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        # One ping before each call would be a third of its round trips.
        kwargs['pool_pre_ping'] = False
        # connection_state.py decides when a ROLLBACK is needed.
        kwargs['pool_reset_on_return'] = None
        kwargs['poolclass'] = pools.Pool
        self._setup = _SETUPS[dialects.backend_of(url)](url, kwargs)

    def update_url(self, url: sa.URL) -> sa.URL:
        """Take our parameters out of the URL; the driver would refuse them."""
        ours = [purpose.KEY, *(f'myservice_{name}' for name in self.OPTIONS)]
        if self._purpose == 'migration':
            ours.append('read_timeout')
        url = url.difference_update_query(ours)
        self._setup.arguments |= url_arguments.of(url)
        if not dialects.is_server(url):
            url = sqlite_url.absolute(url)
        return url_arguments.without_secrets(url)

    def engine_created(self, engine: sa.Engine) -> None:
        """Listen to the events that let us do less than the defaults."""
        self._engine = weakref.ref(engine)
        fork.renew_in_child(self)
        event.listen(engine, 'do_connect', self._note_record)
        if self._purpose != 'autocommit':
            connection_state.watch(engine)
        self._setup.listen(engine)

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
            if (
                records
                and not initialized
                and isinstance(engine.pool, pools.Pool)
            ):
                engine.pool.is_cut_off = True

    def _note_record(
        self, dialect: object, record: ConnectionPoolEntry, *_: object
    ) -> None:
        self._records.add(record)

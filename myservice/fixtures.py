"""Public fixtures, for tests of myservice and of services that use it.

``Database`` gives a test an empty database with all tables, in milliseconds::

    class TestMine(testtools.TestCase):
        def setUp(self):
            super().setUp()
            self.useFixture(fixtures.Database())

It is a SQLite file, unless MYSERVICE_TEST_CONNECTION names a server.
``MariaDB``, ``PostgreSQL`` and ``PgBouncer`` are private servers on loopback,
which have to be installed. All of them need the extra ``test``.
"""

import functools
import os
import pathlib
import tempfile
from typing import Any

import fixtures
import sqlalchemy as sa
from oslo_config import cfg

from myservice import conf as options
from myservice import db
from myservice import servers
from myservice.db import models
from myservice.db.engine import engines
from myservice.db.engine.purpose import Purpose
from myservice.db.quotas import counters
from myservice.db.sql import dialects
from myservice.servers import MariaDB
from myservice.servers import PgBouncer
from myservice.servers import PostgreSQL

__all__ = [
    'Database',
    'MariaDB',
    'OtherDatabase',
    'PgBouncer',
    'PostgreSQL',
    'QuotaCounters',
]


class Database(fixtures.Fixture):
    """An empty database, which ``db.api`` uses while the fixture is set up.

    :param connection: the URL of a database with tables; by default the
        fixture's own
    :param overrides: options of [database], by name
    """

    def __init__(
        self, connection: str | None = None, **overrides: Any
    ) -> None:
        super().__init__()
        self._connection = connection
        self._overrides = overrides

    def _setUp(self) -> None:
        self.connection = self._connection or _fresh(self)
        self.conf = _conf(self._overrides | {'connection': self.connection})
        self.configure()
        self.addCleanup(db.api.configure, options.CONF)

    def configure(self, **overrides: Any) -> None:
        """Override options of [database], and restart the engines."""
        for name, value in overrides.items():
            self.conf.set_override(name, value, group='database')
        db.api.configure(self.conf)

    def engine(self, purpose: Purpose = 'transaction') -> sa.Engine:
        """Return the engine of a purpose."""
        return engines.get_engines().get_engine(purpose)


class OtherDatabase(fixtures.Fixture):
    """Another empty database; its ``engines`` are for ``context.using()``.

    :param overrides: options of [database], by name; without ``connection`` it
        is on the same server as that of ``Database``
    """

    def __init__(self, **overrides: Any) -> None:
        super().__init__()
        self._overrides = overrides

    def _setUp(self) -> None:
        if 'connection' not in self._overrides:
            self._overrides['connection'] = _fresh(self, '_other')
        self.connection: str = self._overrides['connection']
        self.engines = db.api.Engines(_conf(self._overrides))
        self.addCleanup(self.engines.dispose)


def _conf(overrides: dict[str, Any]) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    conf([], project='myservice', default_config_files=[])
    for name, value in overrides.items():
        conf.set_override(name, value, group='database')
    return conf


def _fresh(fixture: fixtures.Fixture, which: str = '') -> str:
    server = os.environ.get(servers.CONNECTION)
    if server:
        return _empty(_of_this_process(server, which))
    directory = fixture.useFixture(fixtures.TempDir()).path
    path = pathlib.Path(directory, 'myservice.sqlite')
    path.write_bytes(_template())
    return f'sqlite:///{path}'


@functools.cache
def _template() -> bytes:
    """Return a SQLite file with all tables; it is made once in a process."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, 'template.sqlite')
        made = sa.create_engine(f'sqlite:///{path}')
        with made.begin() as connection:
            models.Base.metadata.create_all(connection)
        made.dispose()
        return path.read_bytes()


@functools.cache
def _of_this_process(server: str, which: str) -> sa.URL:
    """Make a database with all tables on a server, once in a process."""
    url = sa.make_url(server)
    own = url.set(database=f'{url.database}_{os.getpid()}{which}')
    admin = _direct(url, isolation_level='AUTOCOMMIT')
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE {own.database}'))
    admin.dispose()
    made = _direct(own)
    models.Base.metadata.create_all(made)
    made.dispose()
    return own


def _empty(url: sa.URL) -> str:
    made = _direct(url)
    with made.begin() as connection:
        for table in reversed(models.Base.metadata.sorted_tables):
            connection.execute(sa.delete(table))
    made.dispose()
    return url.render_as_string(hide_password=False)


def _direct(url: sa.URL, **arguments: Any) -> sa.Engine:
    text = url.render_as_string(hide_password=False)
    return sa.create_engine(
        dialects.parse_url(text, servers.CONNECTION), **arguments
    )


class QuotaCounters(fixtures.Fixture):
    """Replaces the counters of resources while the fixture is set up.

    :param counters: resource to its counter; other resources have none
    """

    def __init__(self, **counters: Any) -> None:
        super().__init__()
        self._counters = counters

    def _setUp(self) -> None:
        registered = counters.registered()
        self._register(self._counters)
        self.addCleanup(self._register, registered)

    def _register(self, wanted: dict[str, Any]) -> None:
        for resource in counters.registered():
            counters.unregister(resource)
        for resource, counter in wanted.items():
            counters.register(resource, counter)

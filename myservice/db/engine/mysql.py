"""The setup of an engine on MariaDB or MySQL, whose driver is PyMySQL.

Its isolation levels are in ``purpose.py``, its ping in ``idle_ping.py``, and
the meaning of its errors in ``error_codes.py``.
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice.db.engine import setup
from myservice.db.engine import wire

# Parameters of the URL that configure TLS, or name a file that may.
_ABOUT_TLS = ('ssl', 'read_default')


class Setup(setup.ServerSetup):
    """The setup for PyMySQL."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        arguments = self.arguments
        # oslo.db's "utf8" is MySQL's name for the part of UTF-8 that has no
        # emoji. It looks at the URL; so must we, or we would override it.
        if 'charset' not in url.query:
            arguments['charset'] = 'utf8mb4'
        # PyMySQL would encode it as latin1, but servers have it in UTF-8.
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
                arguments[name] = int(self.option(option))
        if self.purpose == 'migration':
            # The keepalive of TCP notices a server that dies.
            arguments['read_timeout'] = None

    def listen(self, engine: sa.Engine) -> None:
        """Listen to events of the engine."""
        super().listen(engine)
        one_context = not any(
            name.startswith(_ABOUT_TLS) for name in self.query
        )
        event.listen(
            engine, 'do_connect', _connect_pymysql(engine, one_context)
        )

    @staticmethod
    def only_read(dbapi_connection: DBAPIConnection, _: object) -> None:
        """Make a new connection refuse writes."""
        dbapi_connection.query('SET SESSION TRANSACTION READ ONLY')


def _connect_pymysql(
    engine: sa.Engine, one_context: bool
) -> Callable[..., DBAPIConnection]:
    """Return a connect function like PyMySQL's, but with one TLS context.

    PyMySQL's default is TLS if the server has it, and no verification. Yet it
    reads the machine's CA certificates for each connection, which takes 20 ms.
    It also accepts a context, but then requires TLS; so we put ours where it
    puts its own. PyMySQL itself handles a URL that configures TLS: the files
    that are named there may change.
    """
    make = wire.pymysql_connection(engine.dialect)
    tls = make(defer_connect=True).ctx
    without_tls = {'ssl_disabled': True, 'defer_connect': True}

    def connect(
        _: object,
        record: object,
        args: Iterable[object],
        kwargs: dict[str, object],
    ) -> DBAPIConnection:
        if not one_context:
            whole: DBAPIConnection = make(*args, **kwargs)
            return whole
        connection: DBAPIConnection = make(*args, **(kwargs | without_tls))
        connection.ssl = True
        connection.ctx = tls
        connection.connect()
        return connection

    return connect

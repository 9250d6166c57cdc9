"""The setup of an engine on PostgreSQL, whose driver is psycopg.

Its isolation levels are in ``purpose.py``, its ping in ``idle_ping.py``, and
the meaning of its errors in ``error_codes.py``.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice.db.engine import pooler
from myservice.db.engine import setup


class Setup(setup.ServerSetup):
    """The setup for psycopg."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        arguments = self.arguments
        if 'connect_timeout' not in url.query:
            arguments['connect_timeout'] = int(self.option('connect_timeout'))
        # In milliseconds. libpq has no read timeout; this one notices a host
        # that is down, but not a server that is paused.
        if 'tcp_user_timeout' not in url.query:
            arguments['tcp_user_timeout'] = int(
                self.option('read_timeout') * 1000
            )

    def listen(self, engine: sa.Engine) -> None:
        """Listen to events of the engine."""
        super().listen(engine)
        if 'prepare_threshold' not in self.query:
            pooler.prepare_where_possible(engine)

    @staticmethod
    def only_read(dbapi_connection: DBAPIConnection, _: object) -> None:
        """Make a new connection refuse writes."""
        # psycopg sends this with its BEGIN.
        dbapi_connection.read_only = True

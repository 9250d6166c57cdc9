"""The arguments and listeners of engines, as far as databases share them.

``mysql.py``, ``postgresql.py`` and ``sqlite.py`` have the rest; isolation
levels and SQLite's BEGIN are in ``purpose.py``.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from myservice.db.engine import idle_ping
from myservice.db.engine import interrupts
from myservice.db.engine import purpose


class Setup:
    """The arguments and the listeners of an engine, on one database.

    :param url: the URL of the engine, with the parameters of EnginePlugin
    :param kwargs: the arguments of create_engine(), which are changed
    """

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self.url = url
        self.query = url.query
        self.purpose = str(url.query[purpose.KEY])
        self.arguments = kwargs.setdefault('connect_args', {})

    def option(self, name: str) -> float:
        """Return the value of an option of [database]."""
        return float(str(self.query[f'myservice_{name}']))

    def listen(self, engine: sa.Engine) -> None:
        """Listen to events of the engine."""
        raise NotImplementedError


class ServerSetup(Setup):
    """The setup for a server, over a network."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        # The connection used last is the likeliest to be alive; the others
        # get old, and are pinged, only when they are needed.
        kwargs['pool_use_lifo'] = True
        level = purpose.TRAITS[self.purpose].isolation_level
        kwargs['isolation_level'] = level
        if level == 'AUTOCOMMIT':
            kwargs['skip_autocommit_rollback'] = True

    def listen(self, engine: sa.Engine) -> None:
        """Listen to events of the engine."""
        idle_ping.listen(engine, self.option('ping_after_idle'))
        event.listen(engine, 'invalidate', interrupts.cancel)
        if self.purpose != 'autocommit':
            interrupts.let_the_first_error_win(engine)
        if self.purpose == 'snapshot':
            event.listen(engine, 'connect', self.only_read)

    @staticmethod
    def only_read(dbapi_connection: DBAPIConnection, _: object) -> None:
        """Let a new connection refuse to write."""
        raise NotImplementedError

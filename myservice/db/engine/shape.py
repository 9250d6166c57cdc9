"""The common parts of the shapes of engines, for all databases."""

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from myservice.db.engine import errors
from myservice.db.engine import interrupts
from myservice.db.engine import marks
from myservice.db.engine import purpose
from myservice.db.engine import wire

# A mark in the ``info`` of a connection, beside those of marks.py.
_RETURNED_AT = 'myservice.returned_at'


class Shape:
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
        """Listen to what the engine does."""
        raise NotImplementedError


class ServerShape(Shape):
    """The shape for a server, over a network."""

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
        """Listen to what the engine does."""
        event.listen(engine, 'checkin', _note_time)
        event.listen(engine, 'checkout', self._ping_if_idle(engine))
        event.listen(engine, 'invalidate', interrupts.cancel)
        if self.purpose != 'autocommit':
            interrupts.let_the_first_error_win(engine)
        if self.purpose == 'snapshot':
            event.listen(engine, 'connect', self.only_read)

    @staticmethod
    def only_read(dbapi_connection: DBAPIConnection, _: object) -> None:
        """Let a new connection refuse to write."""
        raise NotImplementedError

    def _ping_if_idle(self, engine: sa.Engine) -> Callable[..., None]:
        longest = self.option('ping_after_idle')

        def ping_if_idle(
            dbapi_connection: DBAPIConnection,
            record: ConnectionPoolEntry,
            _: object,
        ) -> None:
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
                # The ping failed while cleaning up after an interrupt.
                taken = failure.__context__
            if taken is not None:
                raise taken
            # The event that ended this connection (a restart, a failover) has
            # most likely ended the other idle ones too.
            raise exc.InvalidatePoolError() from failure

        return ping_if_idle


def _note_time(
    dbapi_connection: DBAPIConnection | None, record: ConnectionPoolEntry
) -> None:
    record.info[_RETURNED_AT] = time.monotonic()

"""A connection that was idle for long is pinged before it is used again."""

import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from myservice.db.engine import errors
from myservice.db.engine import marks
from myservice.db.engine import wire

# A mark in the ``info`` of a connection, beside those of marks.py.
_RETURNED_AT = 'myservice.returned_at'


def listen(engine: sa.Engine, longest: float) -> None:
    """Ping the connections of an engine when they were idle for long.

    :param engine: the engine of a server
    :param longest: seconds for which a connection may be idle without a ping
    """
    event.listen(engine, 'checkin', _note_time)
    event.listen(engine, 'checkout', _ping_if_idle(engine, longest))


def _ping_if_idle(engine: sa.Engine, longest: float) -> Callable[..., None]:
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

"""The reason why PostgreSQL has refused a connection.

libpq has no SQLSTATE for a connection that failed, only a text, in the
language of the server. But it can trace the protocol, which has the SQLSTATE.
So after a refusal we connect once more with a trace, and use its SQLSTATE if
the text is the same; for the same text we do this only once.
"""

import functools
import re
import select
import tempfile
import time
from typing import TYPE_CHECKING
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIModule

if TYPE_CHECKING:
    from psycopg.pq import PollingStatus
    from psycopg.pq.abc import PGconn

_SQLSTATE = re.compile(rb'ErrorResponse\t.*? C "(\w{5})"')
# In any language a server's message begins with how severe it is, a colon
# and two blanks; those of libpq itself do not.
_SEVERITY = ':  '
_TIMEOUT = 10


def sqlstate(error: DBAPIModule.Error, psycopg: Any) -> str | None:
    """Return the SQLSTATE with which a server has refused a connection.

    :param error: the psycopg.OperationalError
    :param psycopg: the driver
    :returns: None if none was sent, or if it cannot be found
    """
    refused = error.pgconn
    if refused is None or _SEVERITY not in str(error):
        return None
    arguments = {
        option.keyword.decode(): option.val.decode()
        for option in refused.info
        if option.val
    }
    try:
        return _ask(
            str(error), psycopg.conninfo.make_conninfo(**arguments), psycopg
        )
    except LookupError:
        return None


def needs_password(error: DBAPIModule.Error) -> bool:
    """Return whether a server asked for a password that is missing.

    :param error: the psycopg.OperationalError
    """
    return error.pgconn is not None and bool(error.pgconn.needs_password)


# The answer depends only on the text. LookupErrors are not kept.
@functools.lru_cache(maxsize=128)
def _ask(text: str, arguments: str, psycopg: DBAPIModule) -> str:
    connection = psycopg.pq.PGconn.connect_start(arguments.encode())
    try:
        traced = _trace(connection, psycopg)
        said = connection.get_error_message()
    finally:
        connection.finish()
    found = _SQLSTATE.findall(traced)
    if not found or said not in text:
        raise LookupError
    state: bytes = found[-1]
    return state.decode()


def _trace(connection: 'PGconn', psycopg: DBAPIModule) -> bytes:
    with tempfile.TemporaryFile() as file:
        try:
            connection.trace(file.fileno())
        except psycopg.NotSupportedError:
            # This exists on Linux only.
            return b''
        try:
            _poll(connection, psycopg.pq.PollingStatus)
        finally:
            connection.untrace()
        file.seek(0)
        return file.read()


def _poll(connection: 'PGconn', status: 'type[PollingStatus]') -> None:
    give_up = time.monotonic() + _TIMEOUT
    events: dict[int, int] = {
        status.READING: select.POLLIN,
        status.WRITING: select.POLLOUT,
    }
    while (wanted := connection.connect_poll()) in events:
        poll = select.poll()
        poll.register(connection.socket, events[wanted])
        left = give_up - time.monotonic()
        if left < 0 or not poll.poll(left * 1000):
            return

"""Whether psycopg may prepare statements: not behind a pooler.

A pooler such as PgBouncer gives each transaction a connection of the server
that others have used. A statement that psycopg has prepared on one does not
exist on the next one, or, worse, has the name of another client's statement:
the server would execute that, and nobody would notice. So nothing is prepared
behind a pooler, unless the URL sets prepare_threshold.
"""

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection

LOG = logging.getLogger(__name__)

# A prepared statement does not exist; one exists already.
_OF_OTHERS = ('26000', '42P05')


class _Preparing:
    """Whether the server of one engine can prepare statements."""

    def __init__(self) -> None:
        self._allowed = True

    def look(self, connection: DBAPIConnection, _: object) -> None:
        """Check whether the first connection is to a server or a pooler."""
        if not self._allowed or _is_of_server(connection):
            return
        LOG.info('There is a pooler: no statements are prepared.')
        self._allowed = False

    def tell(self, connection: DBAPIConnection, _: object) -> None:
        """Configure a new connection, including the first one."""
        # Connections that were made meanwhile have waited for the first one
        # here.
        if not self._allowed:
            connection.prepare_threshold = None

    def note_error(self, context: ExceptionContext) -> None:
        """Stop preparing when a server does not have a prepared statement."""
        code = getattr(context.original_exception, 'sqlstate', None)
        if code in _OF_OTHERS and self._allowed:
            LOG.warning(
                'Prepared statements do not last: no more are prepared.'
            )
            self._allowed = False


def prepare_where_possible(engine: sa.Engine) -> None:
    """Let an engine prepare statements unless there is a pooler.

    :param engine: an engine of psycopg; its pool renews itself after an error
    """
    preparing = _Preparing()
    event.listen(engine, 'first_connect', preparing.look)
    event.listen(engine, 'connect', preparing.tell)
    event.listen(engine, 'handle_error', preparing.note_error)


def _is_of_server(connection: Any) -> bool:
    # A pooler gives its clients numbers of its own, to find the statements
    # that they want to cancel.
    autocommit, connection.autocommit = connection.autocommit, True
    try:
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_backend_pid()')
            (number,) = cursor.fetchone()
    finally:
        connection.autocommit = autocommit
    return bool(number == connection.info.backend_pid)

"""oslo.db's enginefacade, by its decorators and with its defaults."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from oslo_db.sqlalchemy import enginefacade

from ways.orm import SessionWay


@enginefacade.transaction_context_provider
class Context:
    """What a service passes around."""


class OsloStock(SessionWay):
    """The usage of its documentation: a decorated function for each call.

    :param url: as for all ways
    :param options: what configure() takes beside the connection
    """

    name = 'oslo.db'

    def __init__(self, url: str, **options: Any) -> None:
        self._facade = enginefacade.transaction_context()
        self._facade.configure(connection=url, **options)
        self._context = Context()
        self._read = self._facade.reader(_run)
        self._write = self._facade.writer(_run)

    def engine(self) -> sa.Engine:
        """Return its engine."""
        engine: sa.Engine = self._facade.writer.get_engine()
        return engine

    def close(self) -> None:
        self._facade.dispose_pool()

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._read(self._context, function, *arguments)

    def write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._write(self._context, function, *arguments)


def _run(context: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(context.session, *arguments)

"""The statements of the layer's reserve and commit, by the bare driver."""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice.db.engine import engines as engines
from myservice.db.operation import new_id
from myservice.db.sql import dialects
from ways import layer


@dataclasses.dataclass(frozen=True)
class Sent:
    """A statement that the layer sent.

    :param sql: its text, for the driver; '' is a COMMIT
    :param parameters: its parameters, as the driver takes them
    :param rows: the number of rows that it changed
    """

    sql: str
    parameters: Any = None
    rows: int = 0

    def with_values(self, new: dict[Any, Any]) -> Any:
        """Return the parameters with some values replaced."""
        if isinstance(self.parameters, dict):
            return {
                name: new.get(value, value)
                for name, value in self.parameters.items()
            }
        return tuple(new.get(value, value) for value in self.parameters)


class WrongRowcountError(Exception):
    """A statement has changed another number of rows than the layer's."""


class Captured:
    """The bare driver, which sends the layer's statements of a pair.

    :param engine: the layer's engine for transactions
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._dbapi: Any = engine.dialect.loaded_dbapi
        self.failures: tuple[type[Exception], ...] = (
            self._dbapi.Error,
            WrongRowcountError,
        )
        self._sent, self._ids = _capture('driver')

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[], None]]:
        """Give a thread its own connection."""
        with contextlib.closing(self._connect()) as connection:
            yield lambda: self._pair(connection)

    def _connect(self) -> Any:
        """Connect as the layer does."""
        dialect = self._engine.dialect
        arguments, options = dialect.create_connect_args(self._engine.url)
        connection: Any = self._dbapi.connect(*arguments, **options)
        if dialects.backend_of(dialect) == 'sqlite':
            # BEGIN and COMMIT are among the captured statements.
            connection.isolation_level = None
        else:
            dialect.set_isolation_level(connection, 'READ COMMITTED')
        return connection

    def _pair(self, connection: Any) -> None:
        new = {old: new_id() for old in self._ids}
        try:
            with contextlib.closing(connection.cursor()) as cursor:
                for sent in self._sent:
                    self._send(connection, cursor, sent, new)
        except self.failures:
            connection.rollback()
            raise

    def _send(
        self, connection: Any, cursor: Any, sent: Sent, new: dict[Any, Any]
    ) -> None:
        if not sent.sql:
            if dialects.backend_of(self._engine.dialect) == 'sqlite':
                cursor.execute('COMMIT')
            else:
                connection.commit()
            return
        cursor.execute(sent.sql, sent.with_values(new))
        if cursor.rowcount != sent.rows:
            raise WrongRowcountError(f'{cursor.rowcount}, not {sent.rows}')


def _capture(project_id: str) -> tuple[list[Sent], set[Any]]:
    """Return the layer's statements of a pair, and the uuids in them."""
    engine = engines.get_engines().get_engine('core')
    sent: list[Sent] = []

    def statement(
        _: Any, cursor: Any, sql: str, values: Any, *__: Any
    ) -> None:
        sent.append(Sent(sql, values, cursor.rowcount))

    def commit(_: Any) -> None:
        sent.append(Sent(''))

    ctx = context.get_admin_context()
    # The first pair also makes the usages.
    layer.pair(ctx, project_id)
    event.listen(engine, 'after_cursor_execute', statement)
    event.listen(engine, 'commit', commit)
    layer.pair(ctx, project_id)
    # An engine that has had a listener always looks for others.
    db.api.dispose()
    return sent, _uuids(sent)


def _uuids(sent: list[Sent]) -> set[Any]:
    values: set[Any] = set()
    for each in filter(lambda each: each.sql, sent):
        given = each.parameters
        values |= set(given.values() if isinstance(given, dict) else given)
    return {
        value
        for value in values
        if isinstance(value, str) and len(value) == 36 and value[14] == '7'
    }

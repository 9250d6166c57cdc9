"""SQLAlchemy's sessionmaker, on an engine as create_engine makes it."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from ways.orm import SessionWay


class Sessionmaker(SessionWay):
    """A session for each call."""

    name = 'sessionmaker'

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._sessions = orm.sessionmaker(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._sessions() as session:
            return function(session, *arguments)

    def write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._sessions.begin() as session:
            return function(session, *arguments)

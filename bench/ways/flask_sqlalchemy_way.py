"""Flask-SQLAlchemy: an application context for each call, as for a request."""

from collections.abc import Callable
from typing import Any

import flask
import flask_sqlalchemy

from ways.orm import SessionWay


class FlaskSQLAlchemy(SessionWay):
    """Its scoped session; the models are those of the other ways."""

    name = 'Flask-SQLAlchemy'

    def __init__(self, url: str) -> None:
        self._app = flask.Flask(__name__)
        self._app.config['SQLALCHEMY_DATABASE_URI'] = url
        self._db = flask_sqlalchemy.SQLAlchemy(self._app)

    def close(self) -> None:
        with self._app.app_context():
            self._db.engine.dispose()

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._app.app_context():
            return function(self._db.session, *arguments)

    def write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._app.app_context():
            made = function(self._db.session, *arguments)
            self._db.session.commit()
            return made

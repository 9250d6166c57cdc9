"""Flask: ``g.context`` in each request, which is one transaction.

::

    app = flask.Flask(__name__)
    web.init_app(app)

The transaction ends in the last of the functions that run after a request,
before the first byte is sent, so that a COMMIT that fails is answered by a
500. A streamed body runs without a transaction. Use it only behind
keystonemiddleware: the context is made from headers such as X-Project-Id (see
``request_transaction.make_context``), which are trusted.

A request inside of a request, as a view makes with ``test_client()``, has its
own context and transaction. Flask has one ``g`` for both requests, but
``g.context`` is that of ``flask.request``.

A view may return a row, or a list of rows: the answer is a JSON object, or a
list of them. ``jsonify`` takes rows, too.
"""

from collections.abc import Callable
from collections.abc import Collection
from typing import Any
from typing import TypeVar

import flask
from flask import globals as flask_globals

from myservice import db
from myservice import exception
from myservice.web import request_transaction

F = TypeVar('F', bound=Callable[..., Any])

# An option of the application, and an attribute of a view.
TRANSACTION = 'MYSERVICE_TRANSACTION'
_WITHOUT = 'myservice_without_transaction'

# An extension of the application, and attributes of a request.
_EXTENSION = 'myservice'
_CONTEXT = 'myservice_context'
_SERVING = 'myservice_serving'


def init_app(
    app: flask.Flask, admin_roles: Collection[str] = ('admin',)
) -> None:
    """Give each request a context, and a transaction.

    An unhandled exception rolls it back, and so does a response with status
    400 or above, as from ``abort(404)``. To have no transactions, set
    ``app.config['MYSERVICE_TRANSACTION'] = False``. A second call for the same
    application changes nothing.

    :param app: the application; its functions before and after requests are in
        the transaction if they are registered later than this
    :param admin_roles: the roles that make a user an administrator
    :raises InvalidInput: when an earlier call has named other roles
    """
    roles = {role.lower() for role in admin_roles}
    if app.extensions.setdefault(_EXTENSION, roles) is not roles:
        _refuse_other_roles(app.extensions[_EXTENSION], roles)
        return
    app.config.setdefault(TRANSACTION, True)
    kinds = (_Globals, app.app_ctx_globals_class)
    globals_class: Any = type('Globals', kinds, {})
    app.app_ctx_globals_class = globals_class

    def begin() -> None:
        serving = _Serving(flask.request.environ, roles)
        setattr(flask.request, _SERVING, serving)
        flask.g.context = serving.context
        view = app.view_functions.get(flask.request.endpoint or '')
        if app.config[TRANSACTION] and not hasattr(view, _WITHOUT):
            serving.begin()

    _convert_first(app.json, 'dumps', _named)
    _convert_first(app, 'make_response', _named_answer)
    flask.request_started.connect(_expect_context, app)
    app.before_request(begin)
    app.after_request(_end)
    app.teardown_request(_leave)
    app.teardown_appcontext(_leave_all)


def no_transaction(view: F) -> F:
    """Make each call in a view a transaction of its own.

    :param view: the view function
    :returns: the same
    """
    setattr(view, _WITHOUT, True)
    return view


def _convert_first(
    owner: object, name: str, convert: Callable[[Any], Any]
) -> None:
    """Make a method of one object convert its argument first."""
    method: Callable[..., Any] = getattr(owner, name)

    def call(value: Any, **kwargs: Any) -> Any:
        return method(convert(value), **kwargs)

    setattr(owner, name, call)


def _named(value: Any) -> Any:
    """Return a value whose rows are dicts: json takes a tuple for a list."""
    if isinstance(value, db.api.Row):
        return dict(value.items())
    if isinstance(value, dict):
        return {key: _named(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    return value


def _named_answer(answer: Any) -> Any:
    """Return what a view has returned, with a dict in place of its row.

    Flask takes a tuple for a body with its status and headers.
    """
    if isinstance(answer, db.api.Row):
        return dict(answer.items())
    if isinstance(answer, tuple) and answer:
        body, *rest = answer
        if isinstance(body, db.api.Row):
            return (dict(body.items()), *rest)
    return answer


class _Globals:
    """``flask.g``, whose ``context`` belongs to the request."""

    @property
    def context(self) -> Any:
        """The context of ``flask.request``.

        A request that is only pushed, as by a test or a mail template, has
        none at first; then it is the context of the request around it.
        """
        if flask.has_request_context():
            around = next(request_transaction.served(), None)
            context = getattr(
                flask.request, _CONTEXT, around and around.context
            )
            if context is not None:
                return context
        raise AttributeError('context')

    def __setattr__(self, name: str, value: Any) -> None:
        if name != 'context' or not flask.has_request_context():
            self.__dict__[name] = value
            return
        setattr(flask.request, _CONTEXT, value)
        serving = _get_serving()
        if serving is not None:
            serving.context = value

    def __contains__(self, item: str) -> bool:
        return item in self.__dict__ or (
            item == 'context' and hasattr(self, item)
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default."""
        if name == 'context':
            return getattr(self, name, default)
        return self.__dict__.get(name, default)


class _Serving(request_transaction.Serving):
    """A request of Flask, and where it is served."""

    def __init__(
        self, environ: dict[str, Any], admin_roles: Collection[str]
    ) -> None:
        super().__init__(environ, admin_roles)
        # A copy of its context, for a thread, has the same request.
        self.request_context: Any = _now(flask_globals.request_ctx)
        self.app_context: Any = _now(flask_globals.app_ctx)

    def leave(self) -> None:
        """End the request; a transaction that is still open is rolled back."""
        self.request_context = self.app_context = None
        super().leave()


def _refuse_other_roles(known: set[str], roles: set[str]) -> None:
    if roles != known:
        raise exception.InvalidInput(
            field='admin_roles',
            reason=f'init_app() was called with {sorted(known)} before, and '
            f'now with {sorted(roles)}',
        )


def _expect_context(_: flask.Flask, **__: Any) -> None:
    # From here on, the context of an outer request must not be used.
    setattr(flask.request, _CONTEXT, None)


def _get_serving() -> _Serving | None:
    """Return what serves the request, unless this is a copy for a thread."""
    serving: _Serving | None = getattr(flask.request, _SERVING, None)
    if serving is not None:
        if serving.request_context is _now(flask_globals.request_ctx):
            return serving
    return None


def _now(proxy: Any) -> Any:
    return proxy._get_current_object()


def _end(response: flask.Response) -> flask.Response:
    serving = _get_serving()
    if serving is not None:
        serving.end(
            commit=response.status_code < request_transaction.FIRST_ERROR
        )
    return response


def _leave(_: BaseException | None) -> None:
    serving = _get_serving()
    if serving is not None:
        serving.leave()


def _leave_all(_: BaseException | None) -> None:
    # Another function may have raised before _leave was called.
    app_context = _now(flask_globals.app_ctx)
    for serving in request_transaction.served():
        if isinstance(serving, _Serving):
            if serving.app_context is app_context:
                serving.leave()

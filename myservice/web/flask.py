"""Flask: ``g.context`` in each request, which is one transaction.

::

    app = flask.Flask(__name__)
    web.init_app(app)

Its end is the last of the functions that run after a request, before the
first byte is sent, so that a COMMIT that fails is answered by a 500. What is
streamed runs without a transaction. Only an application behind
keystonemiddleware may believe the headers that the context is made of.
"""

from collections.abc import Callable
from collections.abc import Collection
from typing import Any
from typing import TypeVar

import flask

from myservice.web import common

F = TypeVar('F', bound=Callable[..., Any])

# An option of the application; and a mark on a view.
TRANSACTION = 'MYSERVICE_TRANSACTION'
_WITHOUT = 'myservice_without_transaction'


def init_app(
    app: flask.Flask, admin_roles: Collection[str] = ('admin',)
) -> None:
    """Give each request a context, and a transaction.

    An exception that nobody handled rolls it back, and so does a response from
    400 on, which is what becomes of ``abort(404)``. No transactions:
    ``app.config['MYSERVICE_TRANSACTION'] = False``.

    :param app: the application; what it does before and after requests is in
        the transaction if it is registered later than this
    :param admin_roles: who has one of these roles is an administrator
    """
    app.config.setdefault(TRANSACTION, True)

    def begin() -> None:
        context = common.make_context(flask.request.environ, admin_roles)
        flask.g.context = context
        view = app.view_functions.get(flask.request.endpoint or '')
        if app.config[TRANSACTION] and not hasattr(view, _WITHOUT):
            flask.g._transaction = common.RequestTransaction(context)

    app.before_request(begin)
    app.after_request(_end)
    app.teardown_request(lambda error: _end_if_open(commit=False))


def no_transaction(view: F) -> F:
    """Let each call in a view be a transaction of its own.

    :param view: the view function
    :returns: the same
    """
    setattr(view, _WITHOUT, True)
    return view


def _end(response: flask.Response) -> flask.Response:
    _end_if_open(commit=response.status_code < common.FIRST_ERROR)
    return response


def _end_if_open(commit: bool) -> None:
    transaction = flask.g.pop('_transaction', None)
    if transaction is not None:
        transaction.end(commit)

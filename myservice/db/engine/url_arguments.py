"""The query of a URL, as arguments of the driver.

Everything in a URL is text. SQLAlchemy converts some parameters; the types of
the others come from the driver, from the defaults of its connect function.
Then the driver itself checks the values, before anything connects.
"""

import functools
import inspect
import re
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import util
from sqlalchemy.engine.interfaces import DBAPIModule

from myservice.db.engine import sqlite_url
from myservice.db.engine.error_codes import first_line
from myservice.db.sql import dialects

# Parameters that this layer or SQLAlchemy sets, or that cannot be text.
_NOT_IN_A_URL = {
    'auth_plugin_map',
    'autocommit',
    'compress',
    'context',
    'conv',
    'cursor_factory',
    'cursorclass',
    'defer_connect',
    'named_pipe',
    'row_factory',
    'server_public_key',
    'ssl',
    'use_unicode',
}
# Types that the defaults in PyMySQL, None, do not tell.
_BOOLEANS = {'ssl_disabled', 'ssl_verify_cert', 'ssl_verify_identity'}

_SECRETS = re.compile('passw|secret|scram')

# One server may have several addresses.
_REPEATABLE = ('host', 'port')

# Nothing can connect to it over TCP: it is refused before anything is sent.
_NOBODY = '255.255.255.255'
_ADDRESSES = ('host', 'hostaddr', 'port')


class _Wrong(ValueError):
    """A parameter is wrong, and the message says which."""


def of(url: sa.URL) -> dict[str, object]:
    """Return the driver's arguments for the query of a URL.

    :param url: the URL without the parameters of SQLAlchemy and of its plugins
    :returns: name to value, in the type that the driver takes; for SQLite
        none, as SQLAlchemy converts them all
    :raises ValueError: when the driver does not have a parameter, or does not
        take its value
    """
    if not url.query:
        if not dialects.is_server(url):
            sqlite_url.check(url)
        return {}
    for name, value in url.query.items():
        if name in _NOT_IN_A_URL:
            raise ValueError(f'{name} cannot be set in a URL')
        if not isinstance(value, str) and name not in _REPEATABLE:
            raise ValueError(f'{name} is there more than once')
    kind: Any = url.get_dialect()
    dialect = kind(dbapi=kind.import_dbapi())
    made = {
        'sqlite': _of_sqlite,
        'mysql': _of_pymysql,
        'postgresql': _of_psycopg,
    }[dialects.backend_of(url)]
    return _naming_the_wrong_one(url, functools.partial(made, dialect))


def without_secrets(url: sa.URL) -> sa.URL:
    """Return a URL that may be shown, apart from its password.

    SQLAlchemy hides that one, but not a password in the query.
    """
    return url.difference_update_query(
        [name for name in url.query if _SECRETS.search(name)]
    )


def _naming_the_wrong_one(
    url: sa.URL, make: Callable[[sa.URL], dict[str, object]]
) -> dict[str, object]:
    # Libraries raise whatever they like for a value that is wrong.
    try:
        return make(url)
    except _Wrong:
        raise
    except Exception as error:
        whole = error
    for name, value in url.query.items():
        try:
            make(url.set(query=_alone(url, name, value)))
        except Exception as error:
            said = '' if _SECRETS.search(name) else first_line(error)
            raise _Wrong(f'{name} is wrong: {said}') from None
    raise _Wrong(first_line(whole)) from None


def _alone(
    url: sa.URL, name: str, value: str | tuple[str, ...]
) -> dict[str, str | tuple[str, ...]]:
    # Parameters that make sense only together with this one.
    uri = {'uri': url.query['uri']} if 'uri' in url.query else {}
    return uri | {name: value}


def _of_sqlite(dialect: sa.Dialect, url: sa.URL) -> dict[str, object]:
    try:
        sqlite_url.check(url)
    except ValueError as error:
        raise _Wrong(str(error)) from None
    _, arguments = dialect.create_connect_args(url)
    if arguments.get('timeout', 0) < 0:
        raise _Wrong('timeout takes seconds, from 0')
    return {}


def _of_pymysql(dialect: sa.Dialect, url: sa.URL) -> dict[str, object]:
    make = dialect.loaded_dbapi.connections.Connection
    _, arguments = dialect.create_connect_args(url)
    typed = _typed(url, arguments, make.__init__, [])
    arguments.update(typed)
    # This one has to be bytes, or text that latin1 has.
    arguments.pop('password', None)
    make(**arguments, defer_connect=True)
    return typed


def _of_psycopg(dialect: sa.Dialect, url: sa.URL) -> dict[str, object]:
    psycopg = dialect.loaded_dbapi
    _, arguments = dialect.create_connect_args(url)
    words = [
        option.keyword.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
    ]
    typed = _typed(url, arguments, psycopg.Connection.connect, words)
    threshold: Any = typed.get('prepare_threshold')
    if (threshold or 0) < 0:
        raise _Wrong('prepare_threshold takes a number from 0, or none')
    _check_words({n: typed[n] for n in typed if n in words}, psycopg)
    return typed


def _typed(
    url: sa.URL,
    arguments: Mapping[str, object],
    function: Callable[..., object],
    words: list[str],
) -> dict[str, object]:
    """Return the arguments for the query, with their types.

    :param arguments: SQLAlchemy's arguments for the URL
    :param function: the driver's function; its defaults have the types
    :param words: other parameters that it takes, as texts
    """
    parameters = inspect.signature(function).parameters
    known = {*words, *parameters} - _NOT_IN_A_URL - {'self', 'kwargs'}
    typed = {}
    for name in set(url.query) & set(arguments):
        if name not in known:
            raise _Wrong(sqlite_url.unknown(name, list(known)))
        typed[name] = arguments[name]
        if name not in words:
            _coerce(typed, name, parameters[name])
    return typed


def _coerce(
    typed: dict[str, object], name: str, parameter: inspect.Parameter
) -> None:
    kind = bool if name in _BOOLEANS else type(parameter.default)
    may_be_none = 'None' in str(parameter.annotation)
    if may_be_none and str(typed[name]).lower() == 'none':
        typed[name] = None
    elif kind in (bool, int, float):
        util.coerce_kw_type(typed, name, kind)


def _check_words(typed: dict[str, object], psycopg: DBAPIModule) -> None:
    """Let libpq check the values; it does so when it begins to connect."""
    for port in re.findall('[^,]+', str(typed.get('port', ''))):
        if not 0 < int(port) < 2**16:
            raise _Wrong('port takes a number from 1 to 65535')
    psycopg.conninfo.timeout_from_conninfo(typed)
    said = _say(psycopg, **typed)
    expected = _say(psycopg, **{n: typed[n] for n in typed if n == 'service'})
    if said != expected:
        # The beginning names the address that libpq tried.
        prefix = expected[: expected.find(': ') + 2]
        raise _Wrong(said.removeprefix(prefix))


def _say(psycopg: DBAPIModule, **words: object) -> str:
    """Return what libpq says when it cannot connect."""
    instead = {
        'hostaddr': _NOBODY,
        'port': '1',
        # With a password, libpq reads no file of passwords; nobody sees this
        # one.
        'password': 'none',
        'passfile': '',
    }
    words = {n: words[n] for n in words if n not in _ADDRESSES} | instead
    text = psycopg.conninfo.make_conninfo(**words)
    connection = psycopg.pq.PGconn.connect_start(text.encode())
    try:
        return str(connection.get_error_message())
    finally:
        connection.finish()

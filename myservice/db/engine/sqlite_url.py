"""URLs of SQLite, which name a file or a database in memory.

SQLite has URIs of its own, with parameters: https://www.sqlite.org/uri.html.
SQLAlchemy writes ``file:/path?mode=ro`` as ``sqlite:////path``, or, with all
parameters of a URI, as ``sqlite:///file:/path?mode=ro&uri=true``.
"""

import os
from urllib import parse

import sqlalchemy as sa

# The parameters of sqlite3.connect(). The rest are parameters of the URI.
_OF_DRIVER = (
    'uri',
    'timeout',
    'detect_types',
    'check_same_thread',
    'cached_statements',
)
_OF_URI = ('mode', 'cache', 'immutable', 'psow', 'vfs')
# SQLite silently takes another value of these for false.
_VALUES = {
    'mode': ('ro', 'rw', 'rwc', 'memory'),
    'cache': ('private', 'shared'),
    'immutable': ('0', '1'),
    'psow': ('0', '1'),
    'check_same_thread': ('false', '0'),
    'uri': ('true', '1'),
}
_NO_LOCKS = (
    'nolock is not possible: connections would write over one another; '
    'a file that nobody writes may be read with immutable=1'
)
_SHARED = (
    'cache=shared is for databases in memory; the connections of a file would '
    'lock whole tables against one another'
)


def file_of(url: sa.URL) -> str | None:
    """Return the path of the file that a URL names; None in memory."""
    name = url.database or ':memory:'
    if _is_uri(url):
        name = parse.unquote(parse.urlsplit(name).path) or ':memory:'
    in_memory = (
        name == ':memory:'
        or url.query.get('mode') == 'memory'
        or url.query.get('vfs') == 'memdb'
    )
    return None if in_memory else os.path.abspath(name)


def absolute(url: sa.URL) -> sa.URL:
    """Return a URL that names the same file in any working directory."""
    file = file_of(url)
    if file is None or not _is_uri(url):
        return url
    return url.set(database='file:' + parse.quote(file))


def check(url: sa.URL) -> None:
    """Check the parameters of a URL.

    :raises ValueError: when SQLite, its driver or this layer cannot do it
    """
    _check_name(url)
    names = [*_OF_DRIVER, *(_OF_URI if _is_uri(url) else ())]
    for name, value in url.query.items():
        if name == 'nolock':
            raise ValueError(_NO_LOCKS)
        if name not in names and name in _OF_URI:
            raise ValueError(f'{name} needs uri=true, and a name file:…')
        if name not in names:
            raise ValueError(unknown(name, names))
        allowed = _VALUES.get(name)
        if allowed and str(value).lower() not in allowed:
            raise ValueError(f'{name} takes {" or ".join(allowed)}')
    if url.query.get('cache') == 'shared' and file_of(url) is not None:
        raise ValueError(_SHARED)


def unknown(name: str, known: list[str]) -> str:
    """Say that a driver does not have a parameter, and which it has.

    :param name: the name of the parameter; it is shown only if it is a word,
        as it may be a part of a password
    """
    shown = name if name.isidentifier() else 'there'
    return f'{shown} is not a parameter; there are: {", ".join(sorted(known))}'


def _is_uri(url: sa.URL) -> bool:
    return 'uri' in url.query


def _check_name(url: sa.URL) -> None:
    name = url.database or ''
    is_named = name.startswith('file:')
    if is_named != _is_uri(url):
        raise ValueError('a name file:… and uri=true belong together')
    parts = parse.urlsplit(name)
    if is_named and (parts.query or parts.fragment):
        raise ValueError('a ? or # in the name of a file is %253F or %2523')
    if is_named and parts.netloc not in ('', 'localhost'):
        raise ValueError('the file cannot be on another host')

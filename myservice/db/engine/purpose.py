"""What engines are for: the one table of it."""

from collections.abc import Mapping
from typing import Literal
from typing import NamedTuple

Purpose = Literal[
    # of a Session
    'transaction',
    # of statements only
    'core',
    # a write that is one statement
    'autocommit',
    'read',
    # a read-only transaction
    'snapshot',
    # the last two, on the replica
    'stale_read',
    'stale_snapshot',
    # whose statements may take hours
    'migration',
]

#: a parameter of the URL, and an execution option
KEY = 'myservice_purpose'


class Traits(NamedTuple):
    """How the connections of an engine differ from those of others.

    On SQLite a purpose is no mode of a connection, so one engine serves them
    all. A deferred transaction that reads first and then writes would fail at
    once if another one wrote in between.

    :param isolation_level: on a server
    :param sqlite_begin: what SQLite is told at the beginning; '' is nothing
    :param writes: whether it takes turns with the other writers of SQLite
    """

    isolation_level: str
    sqlite_begin: str
    writes: bool


TRAITS: dict[str, Traits] = {
    'transaction': Traits('READ COMMITTED', 'BEGIN IMMEDIATE', True),
    'autocommit': Traits('AUTOCOMMIT', '', True),
    'read': Traits('AUTOCOMMIT', '', False),
    'snapshot': Traits('REPEATABLE READ', 'BEGIN', False),
    'migration': Traits('READ COMMITTED', '', False),
}

#: what serves those whom stale rows would do, where there is no replica
ON_PRIMARY: dict[Purpose, Purpose] = {
    'stale_read': 'read',
    'stale_snapshot': 'snapshot',
}


def is_autocommit(options: Mapping[str, object]) -> bool:
    """Return whether execution options ask for AUTOCOMMIT.

    :param options: those of a connection of ``get_engine()``
    """
    # SQLAlchemy does not heed the case.
    return str(options.get('isolation_level')).upper() == 'AUTOCOMMIT'

"""The purposes of engines, in one table."""

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
    # statements that may take hours
    'migration',
]

#: a parameter of the URL, and an execution option
KEY = 'myservice_purpose'


class Traits(NamedTuple):
    """How the connections of an engine differ from those of others.

    On SQLite a purpose is not a mode of a connection, so one engine serves
    all. A deferred transaction that reads first and then writes would fail at
    once if another one wrote in between.

    :param isolation_level: the isolation level on a server
    :param sqlite_begin: the statement that begins a transaction in SQLite; ''
        is none
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

#: the engines that replace those of the replica where there is none
ON_PRIMARY: dict[Purpose, Purpose] = {
    'stale_read': 'read',
    'stale_snapshot': 'snapshot',
}


def is_autocommit(options: Mapping[str, object]) -> bool:
    """Return whether execution options ask for AUTOCOMMIT.

    :param options: the options of a connection of ``get_engine()``
    """
    # SQLAlchemy ignores the case.
    return str(options.get('isolation_level')).upper() == 'AUTOCOMMIT'

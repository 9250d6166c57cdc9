"""The shared parts of the ways. Each has the methods that jobs.py names.

The methods have the names of db.api's functions. Each way has its own
connection (or pool), and its own rows: tuples, or objects with attributes.
"""

from typing import NamedTuple

#: [service] down_time, for ways without a configuration
DOWN_TIME = 60

#: quota_pair reserves 1 of each, for a project with the name of the way,
#: which has usages
PAIR = ('resource_0', 'resource_1')

#: the limit of each of them; never reached
LIMIT = 10**15


class Claim(NamedTuple):
    """The token of a claim, as in the layer."""

    resource_id: str
    service_id: str
    generation: int


class NotThereError(Exception):
    """A write has found no row, which is a bug of the benchmark."""


def expect_one(rows: int) -> None:
    """Refuse any number of rows but one."""
    if rows != 1:
        raise NotThereError(f'{rows} rows instead of one')

"""What the ways share. Each has the methods that jobs.py names.

They have the names of db.api's functions, and a connection (or pool) of their
own. Rows are what a way has: tuples, or objects with attributes.
"""

from typing import NamedTuple

#: [service] down_time, for those who have no configuration
DOWN_TIME = 60

#: the resources of which quota_pair reserves 1, for a project with the name
#: of the way, which has usages
PAIR = ('resource_0', 'resource_1')

#: of each of them; never met
LIMIT = 10**15


class Claim(NamedTuple):
    """What tells a claim from later ones, as the layer's does."""

    resource_id: str
    service_id: str
    generation: int


class NotThereError(Exception):
    """A write has found no row; it would be a bug of the benchmark."""


def expect_one(rows: int) -> None:
    """Refuse another number of rows than one."""
    if rows != 1:
        raise NotThereError(f'{rows} rows instead of one')

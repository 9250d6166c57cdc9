"""What each way offers: the jobs, under the names of db.api's functions."""

import abc
from typing import Any
from typing import ClassVar
from typing import NamedTuple

#: [service] down_time, for those who have no configuration
DOWN_TIME = 60


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


class Way(abc.ABC):
    """One way to do the jobs, on a connection (or pool) of its own.

    Rows are what the way has: tuples, or objects with attributes.

    :param url: the URL of a database with tables
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def __init__(self, url: str) -> None: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abc.abstractmethod
    def service_get(self, service_id: str) -> Any:
        """Return a living service, with is_up by the database's clock."""

    @abc.abstractmethod
    def service_heartbeat(self, service_id: str) -> None:
        """Note that a service lives, by the database's clock."""

    @abc.abstractmethod
    def service_create(self, host: str) -> str:
        """Create a service, read it, and return its id."""

    @abc.abstractmethod
    def service_destroy(self, service_id: str) -> None:
        """Mark a service deleted, unless it holds resources."""

    @abc.abstractmethod
    def service_get_all(self, limit: int | None) -> list[Any]:
        """Return services, by id."""

    @abc.abstractmethod
    def resource_get(self, resource_id: str) -> Any:
        """Return a living resource."""

    @abc.abstractmethod
    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        """Return a living resource, its metadata and its tags."""

    @abc.abstractmethod
    def resource_get_all(self, limit: int | None) -> list[Any]:
        """Return resources, by id."""

    @abc.abstractmethod
    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        """Change the status, if it is the one that is expected."""

    @abc.abstractmethod
    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        """Make a living service the holder of a resource that has none."""

    @abc.abstractmethod
    def resource_release(self, claim: Any) -> None:
        """Give a claim up, if it still holds."""

    @abc.abstractmethod
    def quota_pair(self) -> None:
        """Reserve 1 of each of two resources of a project, and commit it.

        The project has the name of the way, and usages that exist.
        """

"""The tables, each followed by the class of its rows (see rows.py)."""

import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from myservice import exception
from myservice.db.bases import Base as Base
from myservice.db.bases import Identified
from myservice.db.bases import SoftDelete
from myservice.db.bases import SoftDeleteRow
from myservice.db.bases import Timestamped
from myservice.db.sql import clock
from myservice.db.sql import types


class Service(SoftDelete):
    """A process of the control plane that says now and then that it lives.

    Each process that registers as this service raises ``registration``, by
    which it is told from those before it; 0 is that of a service that was
    created and has not been registered. ``unregistered_at`` is when the last
    one said that it ends, NULL while it runs. ``operation`` is the uuid of
    the call that registered, by which a retry recognises its own work.
    """

    __tablename__ = 'services'
    __table_args__ = (
        sa.UniqueConstraint('host', 'binary', 'deleted'),
        # One for each column that service_get_all sorts by: a page of it is a
        # range of its index, the last one as the first. last_seen_at has
        # none on purpose: each heartbeat would have to move its entry.
        sa.Index('ix_services_host', 'deleted', 'host', 'id'),
        sa.Index('ix_services_binary', 'deleted', 'binary', 'id'),
        sa.Index('ix_services_topic', 'deleted', 'topic', 'id'),
        sa.Index('ix_services_zone', 'deleted', 'availability_zone', 'id'),
        sa.Index('ix_services_version', 'deleted', 'version', 'id'),
        sa.Index('ix_services_created_at', 'deleted', 'created_at', 'id'),
        sa.Index('ix_services_updated_at', 'deleted', 'updated_at', 'id'),
        sa.Index('ix_services_id', 'deleted', 'id'),
        # Makes the registration part of a key for PostgreSQL: whoever claims
        # locks the key, and would otherwise pass by one that raises it.
        sa.Index(
            'uq_services_id_registration', 'id', 'registration', unique=True
        ),
    )

    host: Mapped[str] = mapped_column(types.ExactString(255))
    binary: Mapped[str] = mapped_column(types.ExactString(255))
    topic: Mapped[str | None] = mapped_column(types.ExactString(255))
    availability_zone: Mapped[str | None] = mapped_column(
        types.ExactString(255)
    )
    version: Mapped[int] = mapped_column(default=0)
    disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None] = mapped_column(types.ExactString(255))
    forced_down: Mapped[bool] = mapped_column(default=False)
    last_seen_at: Mapped[datetime.datetime | None] = mapped_column(
        types.Time()
    )
    # The last release inserts rows without these during a rolling upgrade.
    registration: Mapped[int] = mapped_column(server_default='0')
    unregistered_at: Mapped[datetime.datetime | None] = mapped_column(
        types.Time()
    )
    operation: Mapped[str] = mapped_column(
        types.ExactString(36), server_default=''
    )
    if TYPE_CHECKING:
        # liveness.py adds it: it needs the configuration.
        is_up: Mapped[bool]

    def not_found(
        self: 'Service | SoftDeleteRow',
    ) -> exception.ServiceNotFound:
        """Return the error that says that this service does not live."""
        return exception.ServiceNotFound(service_id=self.id)


class Quota(SoftDelete):
    """How much of a resource a project may have: its own limit."""

    __tablename__ = 'quotas'
    __table_args__ = (
        sa.UniqueConstraint('project_id', 'resource', 'deleted'),
        sa.Index('ix_quotas_id', 'deleted', 'id'),
    )

    project_id: Mapped[str] = mapped_column(types.ExactString(255))
    resource: Mapped[str] = mapped_column(types.ExactString(255))
    limit: Mapped[int] = mapped_column(sa.BigInteger())

    def not_found(self: 'Quota | QuotaRow') -> exception.QuotaNotFound:
        """Return the error that says that this limit is not set."""
        return exception.QuotaNotFound(
            project_id=self.project_id, resource=self.resource
        )


class QuotaRow(SoftDeleteRow, table=Quota.__table__, init=False):
    """The limit of a project for a resource."""

    __slots__ = ()

    project_id: str
    resource: str
    limit: int

    not_found = Quota.not_found


class QuotaClass(SoftDelete):
    """How much of a resource projects without a limit of their own may have.

    Of the classes, the one that ``[quota] default_class`` names counts.
    """

    __tablename__ = 'quota_classes'
    __table_args__ = (
        sa.UniqueConstraint('class_name', 'resource', 'deleted'),
        sa.Index('ix_quota_classes_id', 'deleted', 'id'),
    )

    class_name: Mapped[str] = mapped_column(types.ExactString(255))
    resource: Mapped[str] = mapped_column(types.ExactString(255))
    limit: Mapped[int] = mapped_column(sa.BigInteger())

    def not_found(
        self: 'QuotaClass | QuotaClassRow',
    ) -> exception.QuotaClassNotFound:
        """Return the error that says that this limit is not set."""
        return exception.QuotaClassNotFound(
            class_name=self.class_name, resource=self.resource
        )


class QuotaClassRow(SoftDeleteRow, table=QuotaClass.__table__, init=False):
    """The limit of a quota class for a resource."""

    __slots__ = ()

    class_name: str
    resource: str
    limit: int

    not_found = QuotaClass.not_found


class QuotaUsage(Timestamped):
    """How much of a resource a project has, and has reserved.

    Its row is the lock of all reservations of this project and resource:
    who changes one of them holds it. By the primary key the rows of a project
    lie side by side, and are locked in one order, whatever plan a server has.
    """

    __tablename__ = 'quota_usages'

    project_id: Mapped[str] = mapped_column(
        types.ExactString(255), primary_key=True
    )
    resource: Mapped[str] = mapped_column(
        types.ExactString(255), primary_key=True
    )
    in_use: Mapped[int] = mapped_column(sa.BigInteger())
    reserved: Mapped[int] = mapped_column(sa.BigInteger(), default=0)


class Reservation(Identified, Timestamped):
    """Something that a project has asked for and not yet got.

    A positive delta is part of ``reserved`` of the usage while the state is
    RESERVED. ``operation`` is the uuid of the call that ended it, by which a
    retry recognises its own work; ended rows are purged.
    """

    __tablename__ = 'reservations'
    # Finds what is overdue, and what can be purged.
    __table_args__ = (
        sa.Index('ix_reservations_state_expire_at', 'state', 'expire_at'),
    )

    RESERVED = 'reserved'
    COMMITTED = 'committed'
    ROLLED_BACK = 'rolled_back'
    EXPIRED = 'expired'

    project_id: Mapped[str] = mapped_column(types.ExactString(255))
    resource: Mapped[str] = mapped_column(types.ExactString(255))
    delta: Mapped[int] = mapped_column(sa.BigInteger())
    expire_at: Mapped[datetime.datetime] = mapped_column(types.Time())
    state: Mapped[str] = mapped_column(types.ExactString(16), default=RESERVED)
    operation: Mapped[str] = mapped_column(types.ExactString(36), default='')


class Resource(SoftDelete):
    """Something that a project has, and that a service may work on.

    ``service_id`` is the service that holds it. Each change raises
    ``generation``; ``claim_generation`` is what that was when the holder
    claimed it, by which an old claim is told from a new one.
    """

    __tablename__ = 'resources'
    __table_args__ = (
        # For the lists of a project, in the order of each of these columns.
        sa.Index('ix_resources_project', 'project_id', 'deleted', 'id'),
        sa.Index(
            'ix_resources_project_name', 'project_id', 'deleted', 'name', 'id'
        ),
        sa.Index(
            'ix_resources_project_created_at',
            'project_id',
            'deleted',
            'created_at',
            'id',
        ),
        sa.Index(
            'ix_resources_project_updated_at',
            'project_id',
            'deleted',
            'updated_at',
            'id',
        ),
        # For the lists of administrators, who see all projects.
        sa.Index('ix_resources_id', 'deleted', 'id'),
        sa.Index('ix_resources_name', 'deleted', 'name', 'id'),
        sa.Index('ix_resources_created_at', 'deleted', 'created_at', 'id'),
        # For those who look for work. With less than all of it, a server
        # locks every row that comes into question, and nobody else gets any.
        sa.Index(
            'ix_resources_free', 'service_id', 'deleted', 'created_at', 'id'
        ),
        sa.Index(
            'ix_resources_free_by_status',
            'status',
            'service_id',
            'deleted',
            'created_at',
            'id',
        ),
    )

    project_id: Mapped[str] = mapped_column(types.ExactString(255))
    name: Mapped[str | None] = mapped_column(types.ExactString(255))
    kind: Mapped[str | None] = mapped_column(types.ExactString(255))
    size: Mapped[int] = mapped_column(sa.BigInteger(), default=0)
    status: Mapped[str] = mapped_column(
        types.ExactString(64), default='requested'
    )
    service_id: Mapped[str | None] = mapped_column(types.ExactString(36))
    generation: Mapped[int] = mapped_column(sa.BigInteger(), default=0)
    claim_generation: Mapped[int | None] = mapped_column(sa.BigInteger())
    operation: Mapped[str] = mapped_column(types.ExactString(36), default='')

    def not_found(
        self: 'Resource | ResourceRow',
    ) -> exception.ResourceNotFound:
        """Return the error that says that this resource does not live."""
        return exception.ResourceNotFound(resource_id=self.id)


class ResourceRow(SoftDeleteRow, table=Resource.__table__, init=False):
    """A resource."""

    __slots__ = ()

    project_id: str
    name: str | None
    kind: str | None
    size: int
    status: str
    service_id: str | None
    generation: int
    claim_generation: int | None
    operation: str

    not_found = Resource.not_found


class ResourceMetadata(Base):
    """What a project notes of a resource: a value for a key."""

    __tablename__ = 'resource_metadata'
    # Finds the resources that have a value.
    __table_args__ = (
        sa.Index('ix_resource_metadata_key', 'key', 'value', 'resource_id'),
    )

    resource_id: Mapped[str] = mapped_column(
        types.ExactString(36),
        sa.ForeignKey('resources.id'),
        primary_key=True,
    )
    key: Mapped[str] = mapped_column(types.ExactString(255), primary_key=True)
    value: Mapped[str] = mapped_column(types.ExactString(255))


class ResourceTag(Base):
    """A word by which a project finds resources again."""

    __tablename__ = 'resource_tags'
    # Finds the resources that have a tag.
    __table_args__ = (sa.Index('ix_resource_tags_tag', 'tag', 'resource_id'),)

    resource_id: Mapped[str] = mapped_column(
        types.ExactString(36),
        sa.ForeignKey('resources.id'),
        primary_key=True,
    )
    tag: Mapped[str] = mapped_column(types.ExactString(255), primary_key=True)


class Operation(Identified):
    """A committed ``run_in_transaction``, by which its retry recognises it."""

    __tablename__ = 'operations'
    # Purged oldest first.
    __table_args__ = (sa.Index('ix_operations_created_at', 'created_at'),)

    attempt: Mapped[int] = mapped_column()
    created_at: Mapped[datetime.datetime] = mapped_column(
        types.Time(), default=clock.utcnow()
    )

"""The tables, and the immutable rows that public functions return.

A function of the API returns a *row*: a tuple with the attributes of its
model, which reads as ``row.host`` and as ``row['host']`` and needs no session.
It is annotated as the model, whose attributes it has, so that editors and
mypy know them. Instances of the models themselves are for those who work with
a Session of their own.
"""

import datetime
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import column_property
from sqlalchemy.orm import mapped_column

from myservice import exception
from myservice.db import clock
from myservice.db import engine
from myservice.db import types
from myservice.db.operation import new_id


class Base(DeclarativeBase):
    """What every table has."""

    # Alembic finds a constraint again by its name.
    metadata = sa.MetaData(
        naming_convention={
            'pk': 'pk_%(table_name)s',
            'ix': 'ix_%(table_name)s_%(column_0_N_name)s',
            'uq': 'uq_%(table_name)s_%(column_0_N_name)s',
            'fk': 'fk_%(table_name)s_%(column_0_N_name)s',
            'ck': 'ck_%(table_name)s_%(constraint_name)s',
        }
    )

    id: Mapped[str] = mapped_column(
        types.ExactString(36), primary_key=True, default=new_id, sort_order=-1
    )


class Timestamped(Base):
    """A table whose rows say when they were written."""

    __abstract__ = True

    created_at: Mapped[datetime.datetime] = mapped_column(
        types.Time(), default=clock.utcnow(), sort_order=10
    )
    updated_at: Mapped[datetime.datetime | None] = mapped_column(
        types.Time(), sort_order=11
    )


class SoftDelete(Timestamped):
    """A table whose rows are marked deleted, and purged later.

    ``deleted`` is '' in a living row and unique in a deleted one: a unique
    key that ends in it holds among the living, and lets any number of deleted
    rows have the same name.
    """

    __abstract__ = True

    deleted_at: Mapped[datetime.datetime | None] = mapped_column(
        types.Time(), sort_order=12
    )
    deleted: Mapped[str] = mapped_column(
        types.ExactString(36), default='', sort_order=13
    )

    @classmethod
    def not_found(cls, row_id: str) -> exception.NotFound:
        """Return the error for an id that no living row has."""
        raise NotImplementedError

    def delete(self, *, session: Any) -> None:
        """Mark this row deleted, if it still lives.

        The condition stands in the UPDATE itself: of two callers that delete
        the same row, one is told that there is none. ``deleted`` becomes the
        operation's uuid, by which a retry recognises its own work.

        :param session: an open session that may write
        :raises NotFound: the one of the resource, when the row has gone
        """
        table: Any = self.__table__
        result = session.execute(
            sa.update(table)
            .where(table.c.id == self.id, table.c.deleted == '')
            .values(deleted=session.operation.id, deleted_at=clock.utcnow())
        )
        if result.rowcount != 1:
            raise self.not_found(self.id)


class Row(tuple[Any, ...]):
    """An immutable row; see the docstring of this module."""

    __slots__ = ()
    columns: ClassVar[tuple[Any, ...]] = ()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            try:
                return getattr(self, key)
            except AttributeError:
                raise KeyError(key) from None
        return super().__getitem__(key)

    def __repr__(self) -> str:
        fields = ', '.join(f'{key}={self[key]!r}' for key in self.keys())
        return f'{type(self).__name__}({fields})'

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names of the columns, in order; dict(row) works."""
        return [column.key for column in cls.columns if column.key]


def row_class(
    name: str, model: type[Base], computed: Iterable[sa.Label[Any]] = ()
) -> type[Row]:
    """Return the Row class of a model.

    :param name: the name of the class, and of the variable that holds it
    :param model: the model whose columns the rows have
    :param computed: labelled SQL expressions, read after the columns
    :returns: a subclass of Row; ``sa.select(*its.columns)`` fills it
    """
    columns = (*model.__table__.columns, *computed)
    namespace: dict[str, Any] = {
        str(column.key): property(operator.itemgetter(position))
        for position, column in enumerate(columns)
    }
    if issubclass(model, SoftDelete):
        namespace |= {'delete': model.delete, 'not_found': model.not_found}
    namespace |= {
        '__slots__': (),
        '__module__': __name__,
        '__table__': model.__table__,
        'columns': columns,
    }
    return type(name, (Row,), namespace)


class Service(SoftDelete):
    """A process of the control plane that says now and then that it lives."""

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
    if TYPE_CHECKING:
        # Added below: it needs columns of the base classes.
        is_up: Mapped[bool]

    @classmethod
    def not_found(cls, row_id: str) -> exception.ServiceNotFound:
        """Return the error for an id that no living service has."""
        return exception.ServiceNotFound(service_id=row_id)


def _is_up(service: Any) -> sa.ColumnElement[bool]:
    # A new service, which has not beaten yet, counts from its creation.
    last_sign = sa.func.coalesce(service.last_seen_at, service.created_at)
    oldest = clock.seconds_ago(
        sa.bindparam(
            'down_time',
            type_=sa.Float(),
            callable_=lambda: engine.get_conf().service.down_time,
        )
    )
    return sa.and_(service.forced_down == sa.false(), last_sign >= oldest)


Service.is_up = column_property(_is_up(Service.__table__.c))

ServiceRow = row_class(
    'ServiceRow', Service, [_is_up(Service.__table__.c).label('is_up')]
)


class Operation(Base):
    """A committed ``run_in_transaction``, by which its retry recognises it."""

    __tablename__ = 'operations'
    # Purged oldest first.
    __table_args__ = (sa.Index('ix_operations_created_at', 'created_at'),)

    attempt: Mapped[int] = mapped_column()
    created_at: Mapped[datetime.datetime] = mapped_column(
        types.Time(), default=clock.utcnow()
    )

"""What tables, and the rows of tables, begin with (see rows.py)."""

import datetime
from typing import Any
from typing import ClassVar
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from myservice import exception
from myservice.db import operation as operations
from myservice.db.operation import new_id
from myservice.db.rows import Row
from myservice.db.sql import clock
from myservice.db.sql import storage
from myservice.db.sql import types


class Base(DeclarativeBase):
    """The base of all tables."""

    __table__: ClassVar[sa.Table]
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
    event.listen(metadata, 'before_create', storage.say_all)


class Identified(Base):
    """A table whose rows have a uuid, by which callers name them."""

    __abstract__ = True

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


class WritingSession(Protocol):
    """What marks a row deleted: any session that may write."""

    @property
    def operation(self) -> operations.Operation:
        """The operation of the call that the session works for."""
        ...

    def execute(self, statement: sa.Update, /) -> sa.CursorResult[Any]:
        """Execute a statement and return its result."""
        ...


class SoftDelete(Identified, Timestamped):
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

    def not_found(self: 'SoftDelete | SoftDeleteRow') -> exception.NotFound:
        """Return the error that says that this row does not live."""
        raise NotImplementedError

    def delete(
        self: 'SoftDelete | SoftDeleteRow', *, session: WritingSession
    ) -> None:
        """Mark this row deleted, if it still lives.

        The condition stands in the UPDATE itself: of two callers that delete
        the same row, one is told that there is none. ``deleted`` becomes the
        operation's uuid, by which a retry recognises its own work.

        :param session: an open session that may write
        :raises NotFound: the one of the resource, when the row has gone
        """
        table = self.__table__
        result = session.execute(
            sa.update(table)
            .where(table.c.id == self.id, table.c.deleted == '')
            .values(deleted=session.operation.id, deleted_at=clock.utcnow())
        )
        if result.rowcount != 1:
            raise self.not_found()


class SoftDeleteRow(Row, init=False):
    """A row of such a table."""

    __slots__ = ()

    id: str
    created_at: datetime.datetime
    updated_at: datetime.datetime | None
    deleted_at: datetime.datetime | None
    deleted: str

    not_found = SoftDelete.not_found
    delete = SoftDelete.delete

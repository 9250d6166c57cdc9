"""What a user of db.api writes, for a type checker to read.

``mypy --strict`` has to find nothing in it: what is right is right, each type
is the one that is asserted, and what is wrong is reported. There an ignore
stands for the error, and one that ignores nothing would be an error itself.
"""

import datetime
from typing import Any
from typing import assert_type

import sqlalchemy as sa
from sqlalchemy import orm

from myservice import context
from myservice import db


class Base(orm.DeclarativeBase):
    """The base of the user's own tables."""


class Note(Base):
    """A table of the user's own."""

    __tablename__ = 'notes'

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]


NOTES = Note.__table__


def rows(ctx: context.RequestContext, values: dict[str, object]) -> None:
    """Read attributes and items of rows."""
    service = db.api.service_create(ctx, values)
    assert_type(service, db.api.ServiceRow)
    assert_type(service.host, str)
    assert_type(service.topic, str | None)
    assert_type(service.last_seen_at, datetime.datetime | None)
    assert_type(service.is_up, bool)
    assert_type(service['host'], Any)
    assert_type(dict(service), dict[str, Any])
    assert_type(db.api.service_get_all(ctx), list[db.api.ServiceRow])
    assert_type(db.api.service_count(ctx), int)
    assert_type(db.api.resource_count(ctx, {'kind': 'k'}), int)
    by_status = db.api.resource_count(ctx, None, 'status')
    assert_type(by_status, dict[Any, int])
    by_kind = db.api.resource_count(ctx, group_by='kind')
    assert_type(by_kind, dict[Any, int])
    assert_type(db.api.quota_get(ctx, 'p', 'resources').limit, int)
    resource = db.api.resource_create(ctx, {'name': 'r'})
    claim = db.api.resource_claim(ctx, resource.id, service.id)
    assert_type(claim.generation, int)


def sessions(ctx: context.RequestContext, read_only: bool) -> None:
    """Use each form of a session."""
    session = db.api.get_session(ctx)
    assert_type(session, db.api.Session)
    with session.begin():
        session.add(Note(id=1, text='own'))
        assert_type(session.scalars(sa.select(Note)).one().text, str)
        assert_type(session.execute(sa.update(Note)).rowcount, int)
    reading = db.api.get_session(ctx, read_only=True)
    assert_type(reading, db.api.AnySession)
    with db.api.get_session(ctx, read_only=read_only) as either:
        with either.begin():
            helper('t', session=either)
    core = db.api.get_session(core=True)
    with core.begin() as begun:
        helper('t', session=begun)
    with db.api.transaction(ctx) as joined:
        helper('t', session=joined)


def helper(text: str, *, session: db.api.AnySession) -> int:
    """Write in whatever session there is."""
    session.scalar(sa.select(sa.func.count()).select_from(NOTES))
    return session.execute(sa.update(Note), {'text': text}).rowcount


@db.api.atomic
def both(ctx: context.RequestContext, host: str, *, size: int = 1) -> str:
    """Make a transaction of two calls."""
    db.api.resource_create(ctx, {'size': size})
    return db.api.service_create(ctx, {'host': host, 'binary': 'b'}).id


def repeated(ctx: context.RequestContext) -> None:
    """Run functions in transactions."""
    assert_type(both(ctx, 'h', size=2), str)
    assert_type(db.api.run_in_transaction(ctx, both, 'h'), str)
    assert_type(db.api.run_in_transaction(ctx, lambda _: 5), int)


def wrong(ctx: context.RequestContext) -> None:
    """Do what is refused when it runs."""
    service = db.api.service_get(ctx, 'id')
    service.hots  # type: ignore[attr-defined]  # noqa: B018
    service.host = 'h'  # type: ignore[misc]
    db.api.ServiceRow(host='h')  # type: ignore[call-arg]
    with db.api.transaction(ctx) as session:
        session.add(service)  # type: ignore[arg-type]
        session.delete(service)  # type: ignore[arg-type]
    core = db.api.get_session(core=True)
    core.add(Note())  # type: ignore[attr-defined]
    core.execute('SELECT 1')  # type: ignore[arg-type]
    db.api.get_session('admin')  # type: ignore[call-overload]
    db.api.service_get('admin', 'id')  # type: ignore[arg-type]
    db.api.service_get(ctx)  # type: ignore[call-arg]
    both(ctx, 'h', sise=2)  # type: ignore[call-arg]
    db.api.run_in_transaction(ctx, both)  # type: ignore[call-arg]

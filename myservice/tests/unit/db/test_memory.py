"""What callers say is forgotten: memory does not grow with it."""

import functools
import gc
import sys
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from myservice import context
from myservice import db
from myservice.db import models
from myservice.tests import base
from myservice.tests import calls
from myservice.tests.functional import soak

_SERVICE: Any = models.Service.__table__


def cached() -> Iterator[tuple[str, int]]:
    """Return each cache of functions in db/, and how much it keeps."""
    for name, module in list(sys.modules.items()):
        if name.startswith('myservice.db.'):
            for function in vars(module).values():
                if isinstance(function, functools._lru_cache_wrapper):
                    kept = function.cache_info().currsize
                    yield f'{name}.{function.__name__}', kept


class TestSoak(base.DatabaseTestCase):
    def test_it_makes_every_public_call(self) -> None:
        with soak.Soak(self.database.conf) as work:
            work.round()
        public = {
            name for name in db.api.__all__ if callable(getattr(db.api, name))
        }
        self.assertEqual(set(), public - calls.TYPES - work.used)


class TestStatements(base.DatabaseTestCase):
    def test_they_are_kept_by_their_shapes_not_by_values(self) -> None:
        kept = []
        with soak.Soak(self.database.conf) as work:
            for _ in range(3):
                work.round()
                kept.append(sorted(cached()))
        self.assertEqual(kept[1], kept[2])

    def test_those_of_callers_are_forgotten(self) -> None:
        for form in ({}, {'core': True}, {'read_only': True}):
            self.assert_forgotten(
                form, lambda value: sa.select(_SERVICE.c.id, sa.literal(value))
            )
        for form in ({}, {'core': True}, {'autocommit': True}):
            self.assert_forgotten(
                form,
                lambda value: sa.delete(_SERVICE).where(
                    _SERVICE.c.host == value
                ),
            )

    def assert_forgotten(self, form: dict[str, bool], make: Any) -> None:
        references: list[Any] = []
        for _ in range(3):
            statement = make(str(uuid.uuid4()))
            references.append(weakref.ref(statement))
            session = db.api.get_session(self.context, **form)
            with session.begin():
                session.execute(statement)
            del statement, session
        gc.collect()
        # SQLAlchemy keeps the first one of a shape, by which it compiles it.
        self.assertEqual([None, None], [ref() for ref in references[1:]])

    def test_those_of_many_are_not_those_of_one(self) -> None:
        world = calls.World()
        before = dict(cached())
        for _ in range(20):
            for filters in ({'name': world.new}, {'id': [str(uuid.uuid4())]}):
                db.api.resource_get_all(self.context, filters=filters)
        more = {
            name: kept - before.get(name, 0)
            for name, kept in cached()
            if kept > before.get(name, 0) + 2
        }
        self.assertEqual({}, more)


class TestContexts(base.DatabaseTestCase):
    def test_engines_that_are_gone_leave_nothing_in_a_context(self) -> None:
        copies = context.get_admin_context().elevated()
        references: list[Any] = []
        for _ in range(3):
            engines = db.api.Engines(self.database.conf)
            ctx = copies.using(engines)
            with db.api.transaction(ctx):
                db.api.service_get_all(ctx)
            references += [
                weakref.ref(engines),
                weakref.ref(ctx.transaction_slot),
            ]
            engines.dispose()
            del engines, ctx
        gc.collect()
        self.assertEqual([None] * 6, [ref() for ref in references])

    def test_copies_for_the_same_engines_join_the_same_one(self) -> None:
        # Neither has been for other engines before.
        ctx = context.get_admin_context()
        copy = ctx.elevated()
        engines = db.api.Engines(self.database.conf)
        self.addCleanup(engines.dispose)
        with db.api.transaction(ctx.using(engines)) as session:
            joined = db.api.get_session(copy.using(engines))
            self.assertIs(session, joined)
            again = copy.using(engines).using(None).using(engines)
            self.assertIs(session, db.api.get_session(again))

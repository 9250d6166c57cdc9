"""SQLAlchemy's own registry of sessions, over get_session."""

import asyncio
import contextvars
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from myservice import db
from myservice.db import models
from myservice.tests import base
from myservice.tests import factories

_request: contextvars.ContextVar[str] = contextvars.ContextVar('request')

VERSION = sa.select(models.Service.version)


class TestScopes(base.DatabaseTestCase):
    def at_rest(self) -> None:
        """Check that no connection is left in anybody's hands."""
        for pool in db.api.statistics().pools.values():
            self.assertEqual(0, pool['checked_out'])

    def test_a_thread_has_one_session_and_shares_it_with_none(self) -> None:
        scoped: Any = orm.scoped_session(db.api.get_session)

        mine = scoped()
        self.assertIs(mine, scoped())
        others = self.in_threads(4, lambda _: scoped() is mine)
        self.assertEqual([False] * 4, others)
        scoped.remove()
        self.at_rest()

    def test_a_task_has_one_session_and_shares_it_with_none(self) -> None:
        scoped: Any = orm.scoped_session(
            db.api.get_session, scopefunc=asyncio.current_task
        )

        async def work() -> Any:
            first = scoped()
            await asyncio.sleep(0)
            self.assertIs(first, scoped())
            scoped.remove()
            return first

        async def both() -> tuple[Any, Any]:
            return await asyncio.gather(work(), work())

        first, second = asyncio.run(both())
        self.assertIsNot(first, second)

    def test_a_scope_is_what_the_caller_says(self) -> None:
        scoped: Any = orm.scoped_session(
            db.api.get_session, scopefunc=_request.get
        )
        _request.set('one')
        first = scoped()
        _request.set('two')
        self.assertIsNot(first, scoped())
        scoped.remove()
        _request.set('one')
        self.assertIs(first, scoped())
        scoped.remove()
        self.assertIsNot(first, scoped())
        scoped.remove()

    def test_remove_rolls_back_and_gives_the_connection_back(self) -> None:
        factories.create_service(version=1)
        scoped: Any = orm.scoped_session(db.api.get_session)
        scoped.execute(sa.update(models.Service).values(version=2))
        self.assertEqual(2, scoped.scalar(VERSION))
        scoped.remove()
        self.at_rest()
        self.assertEqual(1, scoped.scalar(VERSION))
        scoped.remove()

    def test_who_forgets_remove_keeps_the_connection(self) -> None:
        factories.create_service()
        scoped: Any = orm.scoped_session(db.api.get_session)
        scoped.scalar(VERSION)
        pools = db.api.statistics().pools
        self.assertEqual(1, pools['transaction']['checked_out'])
        scoped.remove()
        self.at_rest()

"""A Session that refuses to write where it only reads."""

import functools
from collections.abc import Callable
from typing import TypeVar
from typing import cast

from sqlalchemy import orm

from myservice import exception
from myservice.db.transaction.annotations import AnnotatedSession

F = TypeVar('F', bound=Callable[..., object])


def _writing(method: F) -> F:
    """Return a method of a session that writes, which refuses to only read.

    :param method: the method
    """

    @functools.wraps(method)
    def call(
        self: 'GuardedSession', *args: object, **kwargs: object
    ) -> object:
        self.refuse_write(f'{method.__name__}()')
        return method(self, *args, **kwargs)

    return cast(F, call)


class GuardedSession(AnnotatedSession):
    """Refuses what would write, where it only reads."""

    read_only = False

    bulk_save_objects = _writing(orm.Session.bulk_save_objects)
    bulk_insert_mappings = _writing(orm.Session.bulk_insert_mappings)
    bulk_update_mappings = _writing(orm.Session.bulk_update_mappings)

    def refuse_write(self, what: str) -> None:
        """Refuse what would fail, and doom the transaction, where it is sent.

        :param what: what was asked for
        :raises WriteInReadOnly: when it only reads
        """
        if self.read_only:
            raise exception.WriteInReadOnly(statement=what)

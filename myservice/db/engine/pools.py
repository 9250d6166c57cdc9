"""The pool of an engine."""

from sqlalchemy import exc
from sqlalchemy import pool

from myservice import exception


class Pool(pool.QueuePool):
    """SQLAlchemy's pool; its timeout tells how many connections are in use."""

    #: whether a fork has cut off the first connection of the engine, which
    #: makes the engine unusable in the child
    is_cut_off = False

    def connect(self) -> pool.PoolProxiedConnection:
        """Check out a connection.

        :raises PoolTimeout: when no connection became free
        """
        try:
            return super().connect()
        except exc.TimeoutError as error:
            raise exception.PoolTimeout(
                timeout=self.timeout(), held=self.checkedout()
            ) from error

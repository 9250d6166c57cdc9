"""Maintenance: rows that have to be deleted now and then."""

import sqlalchemy as sa

from myservice.context import RequestContext
from myservice.context import require_admin
from myservice.db import models
from myservice.db import validation
from myservice.db.engine import engines
from myservice.db.sql import clock
from myservice.db.sql import in_list
from myservice.db.transaction.retry import in_batches
from myservice.db.transaction.retry import retry_on_failure
from myservice.db.transaction.session import get_session

_DELETE = sa.delete(models.Operation).where(
    in_list.is_member(models.Operation.__table__.c.id, 'expired')
)


@in_batches
@retry_on_failure
def purge_operations(context: RequestContext, batch_size: int = 1000) -> int:
    """Delete operations that no retry needs any more, oldest first.

    :param context: an administrator's context
    :param batch_size: how many in one transaction
    :returns: how many were deleted
    :raises AdminRequired: when the caller is not an administrator
    :raises InvalidInput: when batch_size is not a positive integer
    """
    require_admin(context, 'purge_operations')
    validation.check_batch_size(batch_size)
    session = get_session(context, core=True)
    with session.begin():
        lifetime = engines.get_conf().database.operation_lifetime
        created_at = models.Operation.created_at
        expired = session.scalars(
            sa.select(models.Operation.id)
            .where(created_at < clock.seconds_ago(lifetime))
            .order_by(created_at)
            .limit(batch_size)
        ).all()
        if expired:
            session.execute(_DELETE, {'expired': expired})
        return len(expired)

"""Run by alembic: migrates the connection that migration.py gives it."""

from alembic import context

from myservice.db import models
from myservice.db.migrations import comparison
from myservice.db.migrations import resumption

connection = context.config.attributes['connection']
resumption.resume(connection)
context.configure(
    connection=connection,
    target_metadata=models.Base.metadata,
    user_module_prefix='types.',
    render_as_batch=True,
    **comparison.OPTIONS,
)
with context.begin_transaction():
    context.run_migrations()

"""Run by alembic: migrates the connection that migration.py gives it."""

from alembic import context

from myservice.db import models

context.configure(
    connection=context.config.attributes['connection'],
    target_metadata=models.Base.metadata,
    user_module_prefix='types.',
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()

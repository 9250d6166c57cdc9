"""Create the table operations

Revision ID: 0002
Revises: 0001
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    op.create_table(
        'operations',
        sa.Column('id', types.ExactString(36), nullable=False),
        sa.Column('attempt', sa.Integer(), nullable=False),
        sa.Column('created_at', types.Time(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_operations')),
    )
    op.create_index('ix_operations_created_at', 'operations', ['created_at'])


def downgrade() -> None:
    op.drop_table('operations')

"""Create the tables of quotas

Revision ID: 0003
Revises: 0002
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    for table, owner in (
        ('quotas', 'project_id'),
        ('quota_classes', 'class_name'),
    ):
        op.create_table(
            table,
            sa.Column('id', types.ExactString(36), nullable=False),
            sa.Column(owner, types.ExactString(255), nullable=False),
            sa.Column('resource', types.ExactString(255), nullable=False),
            sa.Column('limit', sa.BigInteger(), nullable=False),
            sa.Column('created_at', types.Time(), nullable=False),
            sa.Column('updated_at', types.Time(), nullable=True),
            sa.Column('deleted_at', types.Time(), nullable=True),
            sa.Column('deleted', types.ExactString(36), nullable=False),
            sa.PrimaryKeyConstraint('id', name=op.f(f'pk_{table}')),
            sa.UniqueConstraint(
                owner,
                'resource',
                'deleted',
                name=op.f(f'uq_{table}_{owner}_resource_deleted'),
            ),
        )
        op.create_index(f'ix_{table}_id', table, ['deleted', 'id'])
    op.create_table(
        'quota_usages',
        sa.Column('project_id', types.ExactString(255), nullable=False),
        sa.Column('resource', types.ExactString(255), nullable=False),
        sa.Column('in_use', sa.BigInteger(), nullable=False),
        sa.Column('reserved', sa.BigInteger(), nullable=False),
        sa.Column('created_at', types.Time(), nullable=False),
        sa.Column('updated_at', types.Time(), nullable=True),
        sa.PrimaryKeyConstraint(
            'project_id', 'resource', name=op.f('pk_quota_usages')
        ),
    )
    op.create_table(
        'reservations',
        sa.Column('id', types.ExactString(36), nullable=False),
        sa.Column('project_id', types.ExactString(255), nullable=False),
        sa.Column('resource', types.ExactString(255), nullable=False),
        sa.Column('delta', sa.BigInteger(), nullable=False),
        sa.Column('expire_at', types.Time(), nullable=False),
        sa.Column('state', types.ExactString(16), nullable=False),
        sa.Column('operation', types.ExactString(36), nullable=False),
        sa.Column('created_at', types.Time(), nullable=False),
        sa.Column('updated_at', types.Time(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_reservations')),
    )
    op.create_index(
        'ix_reservations_state_expire_at',
        'reservations',
        ['state', 'expire_at'],
    )


def downgrade() -> None:
    for table in ('reservations', 'quota_usages', 'quota_classes', 'quotas'):
        op.drop_table(table)

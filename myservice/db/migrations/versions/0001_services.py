"""Create the table services

Revision ID: 0001
Revises:
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types

revision = '0001'
down_revision = None


def upgrade() -> None:
    op.create_table(
        'services',
        sa.Column('id', types.ExactString(36), nullable=False),
        sa.Column('host', types.ExactString(255), nullable=False),
        sa.Column('binary', types.ExactString(255), nullable=False),
        sa.Column('topic', types.ExactString(255), nullable=True),
        sa.Column('availability_zone', types.ExactString(255), nullable=True),
        sa.Column('version', sa.Integer(), nullable=False),
        sa.Column('disabled', sa.Boolean(), nullable=False),
        sa.Column('disabled_reason', types.ExactString(255), nullable=True),
        sa.Column('forced_down', sa.Boolean(), nullable=False),
        sa.Column('last_seen_at', types.Time(), nullable=True),
        sa.Column('created_at', types.Time(), nullable=False),
        sa.Column('updated_at', types.Time(), nullable=True),
        sa.Column('deleted_at', types.Time(), nullable=True),
        sa.Column('deleted', types.ExactString(36), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_services')),
        sa.UniqueConstraint(
            'host',
            'binary',
            'deleted',
            name=op.f('uq_services_host_binary_deleted'),
        ),
    )
    op.create_index(
        'ix_services_binary', 'services', ['deleted', 'binary', 'id']
    )
    op.create_index(
        'ix_services_created_at', 'services', ['deleted', 'created_at', 'id']
    )
    op.create_index('ix_services_host', 'services', ['deleted', 'host', 'id'])
    op.create_index('ix_services_id', 'services', ['deleted', 'id'])
    op.create_index(
        'ix_services_topic', 'services', ['deleted', 'topic', 'id']
    )
    op.create_index(
        'ix_services_updated_at', 'services', ['deleted', 'updated_at', 'id']
    )
    op.create_index(
        'ix_services_version', 'services', ['deleted', 'version', 'id']
    )
    op.create_index(
        'ix_services_zone', 'services', ['deleted', 'availability_zone', 'id']
    )


def downgrade() -> None:
    op.drop_table('services')

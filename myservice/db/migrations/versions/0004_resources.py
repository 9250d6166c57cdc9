"""Create the tables of resources

Revision ID: 0004
Revises: 0003
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types

revision = '0004'
down_revision = '0003'

_INDEXES = {
    'ix_resources_project': ['project_id', 'deleted', 'id'],
    'ix_resources_project_name': ['project_id', 'deleted', 'name', 'id'],
    'ix_resources_project_created_at': [
        'project_id',
        'deleted',
        'created_at',
        'id',
    ],
    'ix_resources_project_updated_at': [
        'project_id',
        'deleted',
        'updated_at',
        'id',
    ],
    'ix_resources_id': ['deleted', 'id'],
    'ix_resources_name': ['deleted', 'name', 'id'],
    'ix_resources_created_at': ['deleted', 'created_at', 'id'],
    'ix_resources_free': ['service_id', 'deleted', 'created_at', 'id'],
    'ix_resources_free_by_status': [
        'status',
        'service_id',
        'deleted',
        'created_at',
        'id',
    ],
}


def upgrade() -> None:
    op.create_table(
        'resources',
        sa.Column('id', types.ExactString(36), nullable=False),
        sa.Column('project_id', types.ExactString(255), nullable=False),
        sa.Column('name', types.ExactString(255), nullable=True),
        sa.Column('kind', types.ExactString(255), nullable=True),
        sa.Column('size', sa.BigInteger(), nullable=False),
        sa.Column('status', types.ExactString(64), nullable=False),
        sa.Column('service_id', types.ExactString(36), nullable=True),
        sa.Column('generation', sa.BigInteger(), nullable=False),
        sa.Column('claim_generation', sa.BigInteger(), nullable=True),
        sa.Column('operation', types.ExactString(36), nullable=False),
        sa.Column('created_at', types.Time(), nullable=False),
        sa.Column('updated_at', types.Time(), nullable=True),
        sa.Column('deleted_at', types.Time(), nullable=True),
        sa.Column('deleted', types.ExactString(36), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_resources')),
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, 'resources', columns)
    op.create_table(
        'resource_metadata',
        sa.Column('resource_id', types.ExactString(36), nullable=False),
        sa.Column('key', types.ExactString(255), nullable=False),
        sa.Column('value', types.ExactString(255), nullable=False),
        sa.ForeignKeyConstraint(
            ['resource_id'],
            ['resources.id'],
            name=op.f('fk_resource_metadata_resource_id'),
        ),
        sa.PrimaryKeyConstraint(
            'resource_id', 'key', name=op.f('pk_resource_metadata')
        ),
    )
    op.create_index(
        'ix_resource_metadata_key',
        'resource_metadata',
        ['key', 'value', 'resource_id'],
    )
    op.create_table(
        'resource_tags',
        sa.Column('resource_id', types.ExactString(36), nullable=False),
        sa.Column('tag', types.ExactString(255), nullable=False),
        sa.ForeignKeyConstraint(
            ['resource_id'],
            ['resources.id'],
            name=op.f('fk_resource_tags_resource_id'),
        ),
        sa.PrimaryKeyConstraint(
            'resource_id', 'tag', name=op.f('pk_resource_tags')
        ),
    )
    op.create_index(
        'ix_resource_tags_tag', 'resource_tags', ['tag', 'resource_id']
    )


def downgrade() -> None:
    for table in ('resource_tags', 'resource_metadata', 'resources'):
        op.drop_table(table)

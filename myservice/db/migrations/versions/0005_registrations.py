"""Give services the registration of the process that runs

Revision ID: 0005
Revises: 0004
Created: 2026-11-26
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types

revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    # With defaults of the server: until all nodes are upgraded, some insert
    # rows without these columns.
    op.add_column(
        'services',
        sa.Column(
            'registration', sa.Integer(), server_default='0', nullable=False
        ),
    )
    op.add_column(
        'services', sa.Column('unregistered_at', types.Time(), nullable=True)
    )
    op.add_column(
        'services',
        sa.Column(
            'operation',
            types.ExactString(36),
            server_default='',
            nullable=False,
        ),
    )
    op.create_index(
        'uq_services_id_registration',
        'services',
        ['id', 'registration'],
        unique=True,
    )


def downgrade() -> None:
    op.drop_index('uq_services_id_registration', 'services')
    for column in ('operation', 'unregistered_at', 'registration'):
        op.drop_column('services', column)

"""${message}

Revision ID: ${up_revision}
Revises:${' ' + down_revision if down_revision else ''}
Created: ${create_date.date()}
"""

import sqlalchemy as sa
from alembic import op

from myservice.db.sql import types
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}

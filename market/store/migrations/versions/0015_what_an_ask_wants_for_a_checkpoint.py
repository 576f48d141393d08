"""What a lease's Ask itself wants for a checkpoint: the most that silence costs its provider."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("lease", sa.Column("ask_price", sa.String(78), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("lease", "ask_price")

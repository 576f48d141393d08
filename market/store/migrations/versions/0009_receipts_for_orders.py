"""Orders' receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for table in ("ask", "bid"):
        op.add_column(table, sa.Column("receipt", sa.JSON()))


def downgrade() -> None:
    for table in ("bid", "ask"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("receipt")

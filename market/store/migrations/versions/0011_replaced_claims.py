"""Claims that were replaced before the approver's word on them came."""

import sqlalchemy as sa
from alembic import op

from market.store.columns import UtcTime

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "replaced_claim",
        sa.Column("lease", sa.String(66), primary_key=True),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("tip", sa.String(42), primary_key=True),
        sa.Column("before", sa.String(42), nullable=False),
        sa.Column("bid", sa.String(66), nullable=False),
        sa.Column("provider", sa.String(42), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("blob", sa.String(66), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("received", UtcTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("replaced_claim")

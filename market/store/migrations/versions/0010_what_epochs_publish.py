"""What epochs publish: their headers, order sets, seeds and prices."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "epoch_order",
        sa.Column("id", sa.String(66), primary_key=True),
        sa.Column("first", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last", sa.Integer()),
        sa.Column("kind", sa.String(3), nullable=False),
    )
    op.create_index("ix_epoch_order_last", "epoch_order", ["last"])
    op.create_index("ix_epoch_order_span", "epoch_order", ["kind", "first", "last"])
    op.create_table(
        "price",
        sa.Column("epoch", sa.Integer(), sa.ForeignKey("epoch.number"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("rules", sa.String(66), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("trade_class", sa.JSON(), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_price_size", "price", ["rules", "size", "epoch"])
    # Not in a batch, which makes the table anew: SQLite lets no table go that others refer to.
    op.add_column("epoch", sa.Column("status", sa.String(9), nullable=False, server_default="cleared"))
    op.add_column("epoch", sa.Column("header", sa.JSON()))
    op.add_column("epoch", sa.Column("seed_block", sa.BigInteger()))
    op.add_column("epoch", sa.Column("seed", sa.String(66)))
    for name in ("place", "refused"):
        op.add_column("match", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("place", "refused"):
        op.drop_column("match", name)
    op.drop_table("price")
    op.drop_table("epoch_order")
    for name in ("seed", "seed_block", "header", "status"):
        op.drop_column("epoch", name)

"""What epochs publish: their headers, order sets, seeds and prices."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

NEW: dict[str, tuple[tuple[str, sa.types.TypeEngine[Any], str], ...]] = {
    "epoch": (("status", sa.String(9), "'cleared'"),),
    "match": (("place", sa.Integer(), "0"), ("refused", sa.Integer(), "0")),
}


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
    op.add_column("epoch", sa.Column("header", sa.JSON()))
    op.add_column("epoch", sa.Column("seed_block", sa.BigInteger()))
    op.add_column("epoch", sa.Column("seed", sa.String(66)))
    with op.batch_alter_table("epoch") as batch:
        batch.alter_column("order_root", existing_type=sa.String(66), nullable=True)
    for table, columns in NEW.items():
        for name, kind, before in columns:
            op.add_column(table, sa.Column(name, kind))
            op.execute(f"UPDATE {table} SET {name} = {before}")
            with op.batch_alter_table(table) as batch:
                batch.alter_column(name, existing_type=kind, nullable=False)


def downgrade() -> None:
    for table, columns in NEW.items():
        with op.batch_alter_table(table) as batch:
            for name, _, _ in columns:
                batch.drop_column(name)
    op.execute("DELETE FROM match WHERE epoch IN (SELECT number FROM epoch WHERE order_root IS NULL)")
    op.execute("DELETE FROM unmatched WHERE epoch IN (SELECT number FROM epoch WHERE order_root IS NULL)")
    op.drop_table("price")
    op.drop_table("epoch_order")
    op.execute("DELETE FROM epoch WHERE order_root IS NULL")
    with op.batch_alter_table("epoch") as batch:
        batch.alter_column("order_root", existing_type=sa.String(66), nullable=False)
        for name in ("seed", "seed_block", "header"):
            batch.drop_column(name)

"""What queries ask of a Bid and its spec, as columns: PostgreSQL can't look into every JSON."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

ROWS_AT_ONCE = 500  # a spec may be large


def upgrade() -> None:
    op.add_column("bid", sa.Column("job", sa.String(66), nullable=False, server_default=""))
    op.add_column("bid", sa.Column("sealed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("bid", sa.Column("stop", sa.JSON()))
    op.create_index("ix_bid_job", "bid", ["job"])
    _fill()


def _fill() -> None:
    """Here, and not by the database: it is what can't."""
    bids = sa.table(
        "bid",
        sa.column("id", sa.String()),
        sa.column("bid", sa.JSON()),
        sa.column("spec", sa.JSON()),
        sa.column("job", sa.String()),
        sa.column("sealed", sa.Boolean()),
        sa.column("stop", sa.JSON(none_as_null=True)),
    )
    connection, last = op.get_bind(), ""
    some = sa.select(bids.c.id, bids.c.bid, bids.c.spec).order_by(bids.c.id).limit(ROWS_AT_ONCE)
    while rows := connection.execute(some.where(bids.c.id > last)).all():
        for id, bid, spec in rows:
            found: dict[str, Any] = {
                "job": bid.get("job", ""),
                "sealed": bool(spec.get("sealed")),
                "stop": spec.get("stop"),
            }
            connection.execute(bids.update().where(bids.c.id == id).values(found))
        last = rows[-1].id


def downgrade() -> None:
    op.drop_index("ix_bid_job", "bid")
    for name in ("stop", "sealed", "job"):
        op.drop_column("bid", name)

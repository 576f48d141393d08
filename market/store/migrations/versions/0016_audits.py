"""What approvers say in public of audits; and of a Bid by what files its job has, and where it goes on, by which a
replay is found to be one.
"""

import sqlalchemy as sa
from alembic import op

from contracts.commitment import canonical_hash
from contracts.types import ZERO_TIP, to_hex
from market.store.columns import UtcTime

revision = "0016"
down_revision = "0015"

ROWS_AT_ONCE = 500  # a spec may be large


def upgrade() -> None:
    _make_notes()
    _tell_bids()


def _make_notes() -> None:
    op.create_table(
        "audit_note",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("lease", sa.String(66), nullable=False),
        sa.Column("bid", sa.String(66), nullable=False),
        sa.Column("approver", sa.String(42), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("ruling", sa.String(20), nullable=True),
        sa.Column("content_hash", sa.String(66), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("received", UtcTime(), nullable=False),
        sa.UniqueConstraint("lease", "content_hash", name="uq_audit_note_content"),
    )
    for column in ("lease", "bid", "approver"):
        op.create_index(op.f(f"ix_audit_note_{column}"), "audit_note", [column])


def _tell_bids() -> None:
    op.add_column("bid", sa.Column("files", sa.String(66), nullable=False, server_default=""))
    op.add_column("bid", sa.Column("start_tip", sa.String(42), nullable=False, server_default=ZERO_TIP))
    op.create_index("ix_bid_files", "bid", ["files"])
    bids = sa.table(
        "bid",
        sa.column("id", sa.String()),
        sa.column("bid", sa.JSON()),
        sa.column("spec", sa.JSON()),
        sa.column("files", sa.String()),
        sa.column("start_tip", sa.String()),
    )
    connection, last = op.get_bind(), ""
    some = sa.select(bids.c.id, bids.c.bid, bids.c.spec).order_by(bids.c.id).limit(ROWS_AT_ONCE)
    while rows := connection.execute(some.where(bids.c.id > last)).all():
        for id, bid, spec in rows:
            found = {
                "files": to_hex(canonical_hash(spec.get("files", {}))),
                "start_tip": bid.get("startTip", ZERO_TIP),
            }
            connection.execute(bids.update().where(bids.c.id == id).values(found))
        last = rows[-1].id


def downgrade() -> None:
    op.drop_index("ix_bid_files", "bid")
    for name in ("start_tip", "files"):
        op.drop_column("bid", name)
    op.drop_table("audit_note")

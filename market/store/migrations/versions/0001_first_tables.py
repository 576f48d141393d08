"""First tables: orders, the chain, progress, epochs, blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "approval",
        sa.Column("lease", sa.String(length=66), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Boolean(), nullable=False),
        sa.Column("tip", sa.String(length=42), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("lease", "n", "last"),
    )
    op.create_table(
        "ask",
        sa.Column("id", sa.String(length=66), nullable=False),
        sa.Column("provider", sa.String(length=42), nullable=False),
        sa.Column("rules", sa.String(length=66), nullable=False),
        sa.Column("ask", sa.JSON(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("resources", sa.JSON(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_ask_provider"), "ask", ["provider"], unique=False)
    op.create_index("ix_ask_received", "ask", ["received", "id"], unique=False)
    op.create_index(op.f("ix_ask_rules"), "ask", ["rules"], unique=False)
    op.create_index(op.f("ix_ask_valid_until"), "ask", ["valid_until"], unique=False)
    op.create_table(
        "bid",
        sa.Column("id", sa.String(length=66), nullable=False),
        sa.Column("client", sa.String(length=42), nullable=False),
        sa.Column("approver", sa.String(length=42), nullable=False),
        sa.Column("rules", sa.String(length=66), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("bid", sa.JSON(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("bit", sa.Integer(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("wait_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("client", "page", "bit", name="uq_bid_nonce"),
    )
    op.create_index(op.f("ix_bid_approver"), "bid", ["approver"], unique=False)
    op.create_index(op.f("ix_bid_client"), "bid", ["client"], unique=False)
    op.create_index(op.f("ix_bid_failed"), "bid", ["failed"], unique=False)
    op.create_index("ix_bid_received", "bid", ["received", "id"], unique=False)
    op.create_index(op.f("ix_bid_rules"), "bid", ["rules"], unique=False)
    op.create_index(op.f("ix_bid_valid_until"), "bid", ["valid_until"], unique=False)
    op.create_table(
        "blob",
        sa.Column("sha256", sa.String(length=66), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "chain_block",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("parent", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "chain_event",
        sa.Column("block_hash", sa.String(length=66), nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("lease", sa.String(length=66), nullable=True),
        sa.Column("account", sa.String(length=42), nullable=True),
        sa.Column("continues", sa.String(length=66), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("block_hash", "log_index"),
    )
    op.create_index(op.f("ix_chain_event_account"), "chain_event", ["account"], unique=False)
    op.create_index(op.f("ix_chain_event_continues"), "chain_event", ["continues"], unique=False)
    op.create_index(op.f("ix_chain_event_lease"), "chain_event", ["lease"], unique=False)
    op.create_index(op.f("ix_chain_event_name"), "chain_event", ["name"], unique=False)
    op.create_index("ix_chain_event_order", "chain_event", ["block_number", "log_index"], unique=False)
    op.create_index(op.f("ix_chain_event_tx_hash"), "chain_event", ["tx_hash"], unique=False)
    op.create_table(
        "checkpoint",
        sa.Column("lease", sa.String(length=66), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("provider", sa.String(length=42), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("tip", sa.String(length=42), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("lease", "n"),
    )
    op.create_index(op.f("ix_checkpoint_bid"), "checkpoint", ["bid"], unique=False)
    op.create_index(op.f("ix_checkpoint_provider"), "checkpoint", ["provider"], unique=False)
    op.create_index("ix_checkpoint_waiting", "checkpoint", ["status", "received"], unique=False)
    op.create_table(
        "epoch",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("order_root", sa.String(length=66), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("transaction", sa.String(length=66), nullable=True),
        sa.Column("published_tx", sa.String(length=66), nullable=True),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(op.f("ix_epoch_transaction"), "epoch", ["transaction"], unique=False)
    op.create_table(
        "lease",
        sa.Column("id", sa.String(length=66), nullable=False),
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("ask", sa.String(length=66), nullable=False),
        sa.Column("provider", sa.String(length=42), nullable=False),
        sa.Column("client", sa.String(length=42), nullable=False),
        sa.Column("approver", sa.String(length=42), nullable=False),
        sa.Column("job", sa.String(length=66), nullable=False),
        sa.Column("rules", sa.String(length=66), nullable=False),
        sa.Column("prev", sa.String(length=66), nullable=False),
        sa.Column("fee_to", sa.String(length=42), nullable=False),
        sa.Column("stake", sa.String(length=78), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("window", sa.BigInteger(), nullable=False),
        sa.Column("timeout", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.String(length=78), nullable=False),
        sa.Column("fee", sa.String(length=78), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("claimed", sa.Integer(), nullable=False),
        sa.Column("t", sa.BigInteger(), nullable=False),
        sa.Column("tip", sa.String(length=42), nullable=False),
        sa.Column("start_tip", sa.String(length=42), nullable=False),
        sa.Column("finished", sa.String(length=9), nullable=True),
        sa.Column("continuable", sa.Boolean(), nullable=False),
        sa.Column("paid", sa.String(length=78), nullable=False),
        sa.Column("fees", sa.String(length=78), nullable=False),
        sa.Column("refunded", sa.String(length=78), nullable=False),
        sa.Column("penalty", sa.String(length=78), nullable=False),
        sa.Column("opened_block", sa.BigInteger(), nullable=False),
        sa.Column("opened_tx", sa.String(length=66), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_lease_approver"), "lease", ["approver"], unique=False)
    op.create_index(op.f("ix_lease_ask"), "lease", ["ask"], unique=False)
    op.create_index(op.f("ix_lease_bid"), "lease", ["bid"], unique=False)
    op.create_index(op.f("ix_lease_client"), "lease", ["client"], unique=False)
    op.create_index(op.f("ix_lease_finished"), "lease", ["finished"], unique=False)
    op.create_index("ix_lease_opened", "lease", ["opened_block", "id"], unique=False)
    op.create_index(op.f("ix_lease_provider"), "lease", ["provider"], unique=False)
    op.create_table(
        "rejection",
        sa.Column("lease", sa.String(length=66), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tip", sa.String(length=42), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("lease", "n"),
    )
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("lease", sa.String(length=66), nullable=False),
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("provider", sa.String(length=42), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("content", sa.String(length=66), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("lease", "n", "kind", "content", "time", name="uq_report_message"),
    )
    op.create_index(op.f("ix_report_bid"), "report", ["bid"], unique=False)
    op.create_index(op.f("ix_report_lease"), "report", ["lease"], unique=False)
    op.create_index(op.f("ix_report_provider"), "report", ["provider"], unique=False)
    op.create_index("ix_report_waiting", "report", ["answered", "kind"], unique=False)
    op.create_table(
        "rule_set",
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "match",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("ask", sa.String(length=66), nullable=False),
        sa.Column("price", sa.String(length=78), nullable=False),
        sa.Column("lease", sa.String(length=66), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["epoch"],
            ["epoch.number"],
        ),
        sa.PrimaryKeyConstraint("epoch", "bid"),
    )
    op.create_index(op.f("ix_match_bid"), "match", ["bid"], unique=False)
    op.create_index(op.f("ix_match_lease"), "match", ["lease"], unique=False)
    op.create_table(
        "unmatched",
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["epoch"],
            ["epoch.number"],
        ),
        sa.PrimaryKeyConstraint("epoch", "bid"),
    )
    op.create_index(op.f("ix_unmatched_bid"), "unmatched", ["bid"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_unmatched_bid"), table_name="unmatched")
    op.drop_table("unmatched")
    op.drop_index(op.f("ix_match_lease"), table_name="match")
    op.drop_index(op.f("ix_match_bid"), table_name="match")
    op.drop_table("match")
    op.drop_table("rule_set")
    op.drop_index("ix_report_waiting", table_name="report")
    op.drop_index(op.f("ix_report_provider"), table_name="report")
    op.drop_index(op.f("ix_report_lease"), table_name="report")
    op.drop_index(op.f("ix_report_bid"), table_name="report")
    op.drop_table("report")
    op.drop_table("rejection")
    op.drop_index(op.f("ix_lease_provider"), table_name="lease")
    op.drop_index("ix_lease_opened", table_name="lease")
    op.drop_index(op.f("ix_lease_finished"), table_name="lease")
    op.drop_index(op.f("ix_lease_client"), table_name="lease")
    op.drop_index(op.f("ix_lease_bid"), table_name="lease")
    op.drop_index(op.f("ix_lease_ask"), table_name="lease")
    op.drop_index(op.f("ix_lease_approver"), table_name="lease")
    op.drop_table("lease")
    op.drop_index(op.f("ix_epoch_transaction"), table_name="epoch")
    op.drop_table("epoch")
    op.drop_index("ix_checkpoint_waiting", table_name="checkpoint")
    op.drop_index(op.f("ix_checkpoint_provider"), table_name="checkpoint")
    op.drop_index(op.f("ix_checkpoint_bid"), table_name="checkpoint")
    op.drop_table("checkpoint")
    op.drop_index(op.f("ix_chain_event_tx_hash"), table_name="chain_event")
    op.drop_index("ix_chain_event_order", table_name="chain_event")
    op.drop_index(op.f("ix_chain_event_name"), table_name="chain_event")
    op.drop_index(op.f("ix_chain_event_lease"), table_name="chain_event")
    op.drop_index(op.f("ix_chain_event_continues"), table_name="chain_event")
    op.drop_index(op.f("ix_chain_event_account"), table_name="chain_event")
    op.drop_table("chain_event")
    op.drop_table("chain_block")
    op.drop_table("blob")
    op.drop_index(op.f("ix_bid_valid_until"), table_name="bid")
    op.drop_index(op.f("ix_bid_rules"), table_name="bid")
    op.drop_index("ix_bid_received", table_name="bid")
    op.drop_index(op.f("ix_bid_failed"), table_name="bid")
    op.drop_index(op.f("ix_bid_client"), table_name="bid")
    op.drop_index(op.f("ix_bid_approver"), table_name="bid")
    op.drop_table("bid")
    op.drop_index(op.f("ix_ask_valid_until"), table_name="ask")
    op.drop_index(op.f("ix_ask_rules"), table_name="ask")
    op.drop_index("ix_ask_received", table_name="ask")
    op.drop_index(op.f("ix_ask_provider"), table_name="ask")
    op.drop_table("ask")
    op.drop_table("approval")

"""Sealed jobs: where their files' ciphertexts are, encryption keys, and grants of jobs' keys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "encryption_key",
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("key", sa.String(length=66), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )
    op.create_table(
        "key_grant",
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("reader", sa.String(length=42), nullable=False),
        sa.Column("reader_key", sa.String(length=66), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("sealed_key", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("bid", "reader", "reader_key", "signer"),
    )
    op.add_column("bid", sa.Column("sealed_files", sa.JSON()))
    op.execute("UPDATE bid SET sealed_files = '{}'")
    with op.batch_alter_table("bid") as bid:
        bid.alter_column("sealed_files", existing_type=sa.JSON(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("bid") as bid:
        bid.drop_column("sealed_files")
    op.drop_table("key_grant")
    op.drop_table("encryption_key")

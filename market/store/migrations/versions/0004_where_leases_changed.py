"""The block in which a lease changed last."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("lease", sa.Column("changed_block", sa.BigInteger()))
    op.execute(
        "UPDATE lease SET changed_block = (SELECT max(block_number) FROM chain_event"
        " WHERE chain_event.lease = lease.id OR chain_event.continues = lease.id)"
    )
    with op.batch_alter_table("lease") as lease:
        lease.alter_column("changed_block", existing_type=sa.BigInteger(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("lease") as lease:
        lease.drop_column("changed_block")

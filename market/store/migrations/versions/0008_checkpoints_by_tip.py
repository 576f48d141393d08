"""Checkpoints by their tip: which job another one goes on from."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("ix_checkpoint_tip", "checkpoint", ["tip"])


def downgrade() -> None:
    op.drop_index("ix_checkpoint_tip", "checkpoint")

"""Sizes of the answers to repeated requests, so that all of them together have a bound."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("answer", sa.Column("size", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE answer SET size = length(answer)")
    op.drop_index("ix_answer_received", "answer")
    op.create_index("ix_answer_age", "answer", ["received", "size"])


def downgrade() -> None:
    op.drop_index("ix_answer_age", "answer")
    op.create_index("ix_answer_received", "answer", ["received"])
    op.drop_column("answer", "size")

"""The JSON of what a rule-set commits to as its level of proof."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("rule_set", sa.Column("verification", sa.JSON()))


def downgrade() -> None:
    with op.batch_alter_table("rule_set") as batch:
        batch.drop_column("verification")

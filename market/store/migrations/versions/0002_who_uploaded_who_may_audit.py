"""Who uploaded a blob, which blob a checkpoint's state is in, who may audit a job."""

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "auditor",
        sa.Column("bid", sa.String(length=66), nullable=False),
        sa.Column("auditor", sa.String(length=42), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("bid", "auditor"),
    )
    upload = op.create_table(
        "upload",
        sa.Column("sha256", sa.String(length=66), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "account"),
    )
    op.create_index("ix_upload_account", "upload", ["account"])
    op.add_column("checkpoint", sa.Column("blob", sa.String(length=66)))
    op.bulk_insert(upload, _uploads())
    with op.batch_alter_table("checkpoint") as checkpoint:
        checkpoint.alter_column("blob", existing_type=sa.String(length=66), nullable=False)
        checkpoint.create_index("ix_checkpoint_blob", ["blob"])


def _uploads() -> list[dict[str, Any]]:
    """As it must have been: clients have uploaded their jobs' files, providers their checkpoints."""
    connection = op.get_bind()
    found = {
        (file["sha256"], client)
        for client, spec in connection.execute(sa.text("SELECT client, spec FROM bid"))
        for file in _json(spec)["files"].values()
    }
    # Read to the end first: the table is written to.
    for lease, n, provider, record in connection.execute(
        sa.text("SELECT lease, n, provider, record FROM checkpoint")
    ).all():
        blob = _json(record)["state"]["sha256"]
        found.add((blob, provider))
        connection.execute(
            sa.text("UPDATE checkpoint SET blob = :blob WHERE lease = :lease AND n = :n"),
            {"blob": blob, "lease": lease, "n": n},
        )
    now = datetime.now(UTC)
    return [{"sha256": sha256, "account": account, "received": now} for sha256, account in sorted(found)]


def _json(value: Any) -> Any:
    """SQLite gives JSON as text."""
    return json.loads(value) if isinstance(value, str) else value


def downgrade() -> None:
    with op.batch_alter_table("checkpoint") as checkpoint:
        checkpoint.drop_index("ix_checkpoint_blob")
        checkpoint.drop_column("blob")
    op.drop_table("upload")
    op.drop_table("auditor")

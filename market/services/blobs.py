"""The database's list of blobs."""

from market.context import Context
from market.models import BlobRow


def remember(context: Context, sha256: str, size: int) -> None:
    with context.db.session() as session:
        if session.get(BlobRow, sha256) is None:
            session.add(BlobRow(sha256=sha256, size=size))

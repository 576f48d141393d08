"""The database's list of blobs, and who has uploaded them."""

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.problems import Code, Problem
from contracts.job.spec import FileRef
from market.runtime.context import Context
from market.store.blobs import BlobStore, Incoming
from market.store.models import BlobRow, CheckpointRow, UploadRow


class Upload:
    """A blob that an account is sending. What it announces, or sends beyond that, counts against its quota at once."""

    def __init__(self, context: Context, account: str, sha256: str, announced: int | None) -> None:
        """`announced` in bytes, if the sender says. Raises Problem(quota_exceeded, blob_too_large)."""
        self._context, self._account, self._sha256 = context, account, sha256
        self._counted = 0
        with ExitStack() as undo:
            undo.callback(self._forget)
            self._count(announced or 0)
            self._blob = undo.enter_context(context.blobs.incoming(sha256, announced))
            self._undo = undo.pop_all()

    def write(self, chunk: bytes) -> None:
        self._count(max(0, self._blob.size + len(chunk) - self._counted))
        self._blob.write(chunk)

    def finish(self) -> FileRef:
        """Keep it, if its bytes are what its name says. Raises Problem(blob_mismatch, quota_exceeded)."""
        self._blob.check()
        return keep_upload(self._context, self._blob, self._account)

    def _count(self, more: int) -> None:
        self._counted += more
        # Before the look at what is stored: what ends meanwhile is counted once at least.
        sending = self._context.under_way.add(self._account, more)
        if more:
            with self._context.db.reading() as session:
                check_room(self._context, session, self._account, self._sha256, sending)

    def _forget(self) -> None:
        self._context.under_way.add(self._account, -self._counted)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def keep_upload(context: Context, blob: Incoming, account: str) -> FileRef:
    """Give an upload that was checked its name. Raises Problem(quota_exceeded)."""
    # All in one session: what collects blobs holds the same lock, so it sees either all of this or nothing.
    with context.db.session() as session:
        check_room(context, session, account, blob.sha256, blob.size)
        blob.keep()
        session.merge(blob_row(context.blobs, blob.sha256, blob.size))
        context.accept(session, "upload", {"sha256": blob.sha256, "account": account})
    return FileRef(sha256=blob.sha256, size=blob.size)


def blob_row(blobs: BlobStore, sha256: str, size: int) -> BlobRow:
    """Of a blob that is there: all that the row says can be read off its file again."""
    written = blobs.path(sha256).stat().st_mtime
    return BlobRow(sha256=sha256, size=size, created=datetime.fromtimestamp(written, UTC))


def not_uploaded(context: Context, session: Session, account: str, refs: Iterable[FileRef]) -> list[FileRef]:
    """Those that are not here, or that this account has not shown to have: else naming a blob would open it."""
    wanted = list(refs)
    names = [ref.sha256 for ref in wanted]
    mine = set(
        session.exec(
            select(UploadRow.sha256).where(UploadRow.account == account, col(UploadRow.sha256).in_(names))
        ).all()
    )
    return [ref for ref in wanted if ref.sha256 not in mine or not context.blobs.has(ref)]


def check_room(context: Context, session: Session, account: str, sha256: str, size: int) -> None:
    """Raises Problem(quota_exceeded) if an upload would make more than an account may store.

    A provider's reported checkpoints don't count: there are no more of them than checkpoints in its leases.
    """
    reported = select(CheckpointRow.blob).where(CheckpointRow.provider == account)
    stored = session.exec(
        select(func.coalesce(func.sum(BlobRow.size), 0))
        .join(UploadRow, col(UploadRow.sha256) == BlobRow.sha256)
        .where(UploadRow.account == account, UploadRow.sha256 != sha256, col(UploadRow.sha256).not_in(reported))
    ).one()
    quota = context.settings.quota_bytes
    if stored + size > quota:
        raise Problem(
            413,
            Code.QUOTA_EXCEEDED,
            f"{account} stores {stored} of {quota} bytes here, and the {size} that it is sending are too many",
            f"Files of jobs that are over go after {context.settings.keep_days} days, uploads that no order names "
            f"after {context.settings.keep_unused_hours} hours.",
            quota_bytes=quota,
            stored_bytes=int(stored),
        )

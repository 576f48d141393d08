"""Sealed jobs as their client and other readers handle them: sealing files, finding the job's key. docs/sealing.md."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.access import Signer
from contracts.api.bodies import JobOut, ReportOut
from contracts.api.client import MarketClient
from contracts.api.grants import Check, by_key, find_grant, fresh_key, publish_key
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.sealing import NotOpened, is_sealed_text, open_text, seal_file
from contracts.job.spec import FileRef
from contracts.orders import Domain


@dataclass(frozen=True)
class Reading:
    """What it takes to read a job's checkpoints and logs."""

    signer: Signer
    job_key: bytes | None  # of a sealed job

    def opened(self, report: ReportOut) -> ReportOut:
        """With its text in plain; one that does not open says why."""
        if report.text is None or self.job_key is None or not is_sealed_text(report.text):
            return report
        try:
            text = open_text(report.text, self.job_key)
        except NotOpened as error:
            text = f"({error.message})"
        return report.model_copy(update={"text": text})


def key_of_approver(market: MarketClient, domain: Domain, approver: str) -> str:
    """The encryption key that a sealed job's approver needs; no contract wallet can be one. Raises UserError."""
    key = fresh_key(market, approver, by_key(domain))
    if key is None:
        raise UserError(
            f"the job is sealed, but its approver {approver} has registered no encryption key at {market.url} within a "
            "day, so could not look at checkpoints",
            "It does by `gpumarket approver start`. Or name another approver, such as yourself: --approver ADDRESS",
        )
    return key


def job_key(
    market: MarketClient, domain: Domain, job: JobOut, reader: LocalAccount, own: PrivateKey, is_signed: Check
) -> bytes:
    """The key of a sealed job. Raises UserError if it was not granted to this reader, whose key then is registered."""
    if job.bid.digest(domain) != job.id:
        raise UserError(f"the market's Bid is not that of job {job.id}")
    parties = [job.bid.client, job.bid.effective_approver]
    found = find_grant(market, job.id, reader.address, own, parties, is_signed)
    if found is None:
        publish_key(market, domain, reader, own)
        raise UserError(
            f"job {job.id} is sealed, and nobody has given its key to {reader.address} and this encryption key",
            f"The encryption key is registered now. Its client can: gpumarket job grant {job.id[:12]} {reader.address}",
        )
    return found[1]


def put_sealed(market: MarketClient, path: Path, job_key: bytes) -> tuple[FileRef, FileRef]:
    """Uploads the ciphertext of a file. Returns plaintext and ciphertext."""
    with tempfile.TemporaryDirectory(prefix="gpumarket-seal-") as folder:
        sealed = Path(folder) / "sealed"
        seal_file(path, sealed, job_key)
        return hash_file(path), market.put_blob(sealed)

"""Sealed jobs as their client and other readers handle them: sealing files for them. docs/sealing.md."""

import tempfile
from pathlib import Path

from contracts.api.client import MarketClient
from contracts.api.grants import by_key, fresh_key
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.sealing import seal_file
from contracts.job.spec import FileRef
from contracts.orders import Domain


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


def put_sealed(market: MarketClient, path: Path, job_key: bytes) -> tuple[FileRef, FileRef]:
    """Uploads the ciphertext of a file. Returns plaintext and ciphertext."""
    with tempfile.TemporaryDirectory(prefix="gpumarket-seal-") as folder:
        sealed = Path(folder) / "sealed"
        seal_file(path, sealed, job_key)
        return hash_file(path), market.put_blob(sealed)

"""Keys of sealed jobs, through a market that is not trusted: what it gives counts only with the right signature."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.access import Signer
from contracts.api.bodies import CheckpointRecord, EncryptionKeyIn, JobOut, KeyGrantIn, ReportOut
from contracts.api.client import MarketClient
from contracts.errors import UserError
from contracts.job.sealing import NotOpened, is_sealed_text, open_file, open_key, open_text, seal_key
from contracts.job.spec import FileRef
from contracts.orders import Domain, EncryptionKey, KeyGrant, SignedType
from contracts.types import from_hex, to_hex

# A registration is good for new grants for so long, and signed anew in half of that. A market may show an old one, of
# a key that was changed because somebody has got hold of it; but not for longer than this.
KEY_SECONDS = 86_400
CLOCK_SECONDS = 300  # how far its time may be ahead

log = structlog.get_logger()

# (message, signer, signature) -> whether it is that. For contract wallets it takes a chain.
Check = Callable[[SignedType, str, str], bool]


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


def by_key(domain: Domain) -> Check:
    """Signatures of keys; none of contract wallets."""
    return lambda message, signer, signature: message.signer(domain, signature) == signer


def public_key(own: PrivateKey) -> str:
    return to_hex(bytes(own.public_key))


def publish_key(market: MarketClient, domain: Domain, account: LocalAccount, own: PrivateKey) -> None:
    """Registers the account's encryption key, unless the market shows that of half a KEY_SECONDS ago or later.

    Raises UserError if the market keeps another.
    """
    address, key, now = account.address, public_key(own), int(time.time())
    body = market.encryption_key(address)
    shown = body.key if body else None
    if shown is not None and (shown.account, shown.key) == (address, key) and now - shown.time < KEY_SECONDS // 2:
        return
    if shown is not None and shown.time > now + CLOCK_SECONDS:  # signed once more, it could be shown for that long
        raise UserError(
            f"{market.url} shows an encryption key of {address} with the time {shown.time}, and it is {now} now",
            "nothing was signed; if this machine's clock is right, the market lies",
        )
    if shown is not None and shown.key != key:
        log.warning("sealing.other_key_shown", account=address, shown=shown.key, time=shown.time, own=key)
    mine = EncryptionKey(account=address, key=key, time=max(now, shown.time + 1 if shown else 0))
    kept = market.put_key(EncryptionKeyIn(key=mine, signature=mine.sign(domain, account)))
    if kept.key.key != key:
        raise UserError(
            f"{market.url} keeps the encryption key {kept.key.key} of {address}, not this machine's {key}",
            f"does another machine register keys for {address}? If not, the market shows an old one",
        )


def registered_key(market: MarketClient, account: str, is_signed: Check) -> EncryptionKey | None:
    """What the account has signed last, by the market's word; None if nothing. Raises UserError if it made that up."""
    body = market.encryption_key(account)
    if body is None:
        return None
    if body.key.account != account or not is_signed(body.key, account, body.signature):
        raise UserError(f"the encryption key that {market.url} gives for {account} is not signed by {account}")
    return body.key


def is_fresh(key: EncryptionKey) -> bool:
    """Whether a job's key may be sealed to it."""
    return time.time() - KEY_SECONDS <= key.time <= time.time() + CLOCK_SECONDS


def fresh_key(market: MarketClient, account: str, is_signed: Check) -> str | None:
    """The key of `account` that a job's key may be sealed to, if it has registered one lately. Raises UserError."""
    key = registered_key(market, account, is_signed)
    return key.key if key is not None and is_fresh(key) else None


def make_grant(
    domain: Domain, account: LocalAccount, job: str, reader: str, reader_key: str, job_key: bytes
) -> KeyGrantIn:
    """The key of `job` (the Bid's id) for the holder of `reader_key`."""
    sealed = seal_key(job_key, from_hex(reader_key))
    grant = KeyGrant(job=job, reader=reader, reader_key=reader_key, content=_sha256(sealed))
    return KeyGrantIn(grant=grant, sealed_key=sealed, signature=grant.sign(domain, account))


def open_grant(
    body: KeyGrantIn, job: str, reader: str, own: PrivateKey, signers: Sequence[str], is_signed: Check
) -> bytes | None:
    """The job's key; None if this is no grant of one of `signers` (client and approver) to this reader and its key."""
    grant, sealed = body.grant, from_hex(body.sealed_key)
    named = (grant.job, grant.reader, grant.reader_key, grant.content)
    if named != (job, reader, public_key(own), _sha256(sealed)):
        return None
    if not any(is_signed(grant, signer, body.signature) for signer in signers):
        return None
    return open_key(sealed, own)


def find_grant(
    market: MarketClient, job: str, reader: str, own: PrivateKey, signers: Sequence[str], is_signed: Check
) -> tuple[KeyGrantIn, bytes] | None:
    """The grant to this reader with the job's key in it; None if there is none yet. The first signer's comes first."""
    grants = list(market.grants(job, reader))
    for signer in signers:
        for body in grants:
            job_key = open_grant(body, job, reader, own, [signer], is_signed)
            if job_key is not None:
                return body, job_key
    return None


def granted_job_key(
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


def get_state(market: MarketClient, record: CheckpointRecord, target: Path, *, job: str, job_key: bytes | None) -> Path:
    """A checkpoint's state; that of a sealed job is opened. Raises NotOpened, and what get_blob raises."""
    if record.sealed is None:
        return market.get_blob(record.state, target, job=job)
    return get_sealed(market, record.sealed, target, job=job, job_key=job_key)


def get_sealed(market: MarketClient, ref: FileRef, target: Path, *, job: str, job_key: bytes | None) -> Path:
    """What is sealed in a blob of a job. `target` appears only if all of it opened. Raises NotOpened."""
    if job_key is None:
        raise NotOpened(f"blob {ref.sha256} is sealed, and there is no key to it")
    fetched = target.with_name(f".{target.name}.{os.getpid()}.sealed")
    try:
        open_file(market.get_blob(ref, fetched, job=job), target, job_key)
    finally:
        fetched.unlink(missing_ok=True)
    return target


def _sha256(data: bytes) -> str:
    return to_hex(hashlib.sha256(data).digest())

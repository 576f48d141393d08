"""Keys of sealed jobs, through a market that is not trusted: what it gives counts only with the right signature."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.bodies import CheckpointRecord, EncryptionKeyIn, KeyGrantIn
from contracts.api.client import MarketClient
from contracts.errors import UserError
from contracts.jobspec import FileRef
from contracts.orders import Domain, EncryptionKey, KeyGrant, SignedType
from contracts.sealing import NotOpened, open_file, open_key, seal_key
from contracts.types import from_hex, to_hex

# (message, signer, signature) -> whether it is that. For contract wallets it takes a chain.
Check = Callable[[SignedType, str, str], bool]


def by_key(domain: Domain) -> Check:
    """Signatures of keys; none of contract wallets."""
    return lambda message, signer, signature: message.signer(domain, signature) == signer


def public_key(own: PrivateKey) -> str:
    return to_hex(bytes(own.public_key))


def publish_key(market: MarketClient, domain: Domain, account: LocalAccount, own: PrivateKey) -> None:
    """Registers the account's encryption key, unless the market has it."""
    known = market.encryption_key(account.address)
    if known is not None and known.key.key == public_key(own) and known.key.account == account.address:
        return
    newest = known.key.time + 1 if known else 0
    key = EncryptionKey(account=account.address, key=public_key(own), time=max(int(time.time()), newest))
    market.put_key(EncryptionKeyIn(key=key, signature=key.sign(domain, account)))


def registered_key(market: MarketClient, account: str, is_signed: Check) -> str | None:
    """The account's encryption key; None if it has registered none. Raises UserError if the market made one up."""
    known = market.encryption_key(account)
    if known is None:
        return None
    if known.key.account != account or not is_signed(known.key, account, known.signature):
        raise UserError(f"the encryption key that {market.url} gives for {account} is not signed by {account}")
    return known.key.key


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

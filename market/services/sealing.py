"""Sealed jobs: encryption keys, and grants of jobs' keys. The market can open none of it. docs/sealing.md."""

import hashlib
import time

from sqlmodel import Session, col, func, select

from contracts.api.bodies import BidIn, EncryptionKeyIn, KeyGrantIn, Page
from contracts.api.grants import is_fresh
from contracts.api.problems import Code, Problem
from contracts.job.sealing import sealed_size
from contracts.orders import EncryptionKey, KeyGrant
from contracts.types import from_hex, to_hex
from market.runtime.context import Context
from market.services.access import may_write
from market.services.jobs import find_job
from market.services.signatures import check_signed, not_signed
from market.store.models import AuditorRow, BidRow, EncryptionKeyRow, KeyGrantRow
from market.store.paging import Keyset, read_page

MAX_GRANTS = 1000  # per job

_BY_READER = Keyset(col(KeyGrantRow.reader), col(KeyGrantRow.reader_key), col(KeyGrantRow.signer))


# ------------------------------------------------------------------ keys


def get_key(context: Context, account: str) -> EncryptionKeyIn:
    with context.db.reading() as session:
        row = session.get(EncryptionKeyRow, account)
    if row is None:
        raise Problem(
            404,
            Code.NOT_FOUND,
            f"{account} has registered no encryption key at this market",
            "Its `gpumarket` does by itself: an approver's when it starts, a provider's when it gets a sealed job.",
        )
    return _key_out(row)


def put_key(context: Context, account: str, body: EncryptionKeyIn) -> EncryptionKeyIn:
    """Store a key, unless a newer one is known. Returns the newest."""
    key = body.key
    if key.account != account:
        raise Problem(422, Code.VALIDATION_FAILED, f"key.account is {key.account}, but was sent to {account}")
    now = int(time.time())
    if not is_fresh(key):
        raise Problem(
            422,
            Code.VALIDATION_FAILED,
            f"key.time is {key.time}, and it is {now} now (UTC seconds)",
            "Check this machine's clock, and sign the key anew.",
            now=now,
        )
    body = check_signed(context, body, key, account, f"the EncryptionKey is not signed by {account}")
    if not _may_register(context, account):
        raise Problem(
            403,
            Code.NOT_A_WRITER,
            f"{account} may not register a key: it has no deposit, no live lease, no coin for gas, and audits no job",
            f"Send {account} some of the chain's coin, or deposit tokens.",
        )
    with context.db.session() as session:
        row = session.get(EncryptionKeyRow, account)
        if row is None or row.time < key.time:
            row = context.accept(session, "key", body)
        return _key_out(row)


def _may_register(context: Context, account: str) -> bool:
    """Accounts that are more than a random number; approvers have coin for gas only, auditors need not even that."""
    with context.db.reading() as session:
        grants = select(AuditorRow).where(AuditorRow.auditor == account, AuditorRow.valid_until >= context.now())
        if session.exec(grants).first() is not None:
            return True
    w3 = context.chain.w3
    return may_write(context, account) or w3.eth.get_balance(w3.to_checksum_address(account)) > 0


def _key_out(row: EncryptionKeyRow) -> EncryptionKeyIn:
    return EncryptionKeyIn(key=EncryptionKey(account=row.account, key=row.key, time=row.time), signature=row.signature)


# ------------------------------------------------------------------ jobs


def check_sealed(context: Context, body: BidIn) -> BidIn:
    """A sealed job comes with a ciphertext for each of its files, and its key for the approver; no other with any.

    The body with the grants' signatures as keys' usual ones are.
    """
    if not body.spec.sealed:
        if body.sealed_files or body.grants:
            raise _mismatch("the job has sealed files or grants, but its spec does not say `sealed`")
        return body
    plain = {ref.sha256: ref for ref in body.spec.stored_files.values()}
    if plain.keys() != body.sealed_files.keys():
        wrong = sorted(plain.keys() ^ body.sealed_files.keys())
        raise _mismatch(f"sealed_files must name a ciphertext for each file without a url, and no more: {wrong[0]}")
    for sha256, sealed in body.sealed_files.items():
        size = sealed_size(plain[sha256].size)
        if sealed.url is not None or sealed.size != size:
            raise _mismatch(f"the ciphertext of {sha256} must be a blob of {size} bytes, given was {sealed.size}")
    job = body.bid.digest(context.chain.domain)
    grants: list[KeyGrantIn] = []
    for one in body.grants:
        _check_content(one, job)
        otherwise = f"the KeyGrant is not signed by {body.bid.client}"
        grants.append(check_signed(context, one, one.grant, body.bid.client, otherwise))
    approver = body.bid.effective_approver
    if approver not in {one.grant.reader for one in body.grants}:
        raise _mismatch(f"the job is sealed, but its approver {approver} gets no key to it, so could approve nothing")
    return body.model_copy(update={"grants": grants})


def add_grant(context: Context, job: str, body: KeyGrantIn) -> KeyGrantIn:
    """Store a grant by the job's client or approver."""
    with context.db.reading() as session:
        row = find_job(session, job)
    if not row.spec.get("sealed"):
        raise _mismatch(f"job {job} is not sealed: whoever may read it needs no key")
    _check_content(body, job)
    signer, body = _signer(context, row, body)
    grant = body.grant
    with context.db.session() as session:
        stored = session.get(KeyGrantRow, (job, grant.reader, grant.reader_key, signer))
        if stored is None:
            _check_room(session, job)
            stored = context.accept(session, "grant", body, signer=signer)
        return _grant_out(stored)


def list_grants(context: Context, job: str, reader: str | None, after: str | None, limit: int) -> Page[KeyGrantIn]:
    query = select(KeyGrantRow).where(KeyGrantRow.bid == job)
    if reader is not None:
        query = query.where(KeyGrantRow.reader == reader)
    with context.db.reading() as session:
        find_job(session, job)
        return read_page(session, query, _BY_READER, after, limit, context.unreadable.reader(_grant_out))


def _signer(context: Context, job: BidRow, body: KeyGrantIn) -> tuple[str, KeyGrantIn]:
    for signer in (job.client, job.approver):
        if taken := context.signatures.taken_signature(body.grant, signer, body.signature):
            return signer, body.model_copy(update={"signature": taken})
    neither = f"signed neither by the client {job.client} nor by the approver {job.approver} of job {job.id}"
    raise not_signed(context, body.grant, body.signature, f"the KeyGrant is {neither}")


def _check_content(body: KeyGrantIn, job: str) -> None:
    if body.grant.job != job:
        raise _mismatch(f"the KeyGrant is for job {body.grant.job}, not for {job}")
    found = to_hex(hashlib.sha256(from_hex(body.sealed_key)).digest())
    if found != body.grant.content:
        raise Problem(
            422,
            Code.COMMITMENT_MISMATCH,
            f"the KeyGrant signs a sealed key with the hash {body.grant.content}, but the one given has {found}",
        )


def _check_room(session: Session, job: str) -> None:
    count = session.exec(select(func.count()).select_from(KeyGrantRow).where(KeyGrantRow.bid == job)).one()
    if count >= MAX_GRANTS:
        raise Problem(413, Code.QUOTA_EXCEEDED, f"job {job} has {count} grants of its key; that is the most")


def _grant_out(row: KeyGrantRow) -> KeyGrantIn:
    content = to_hex(hashlib.sha256(from_hex(row.sealed_key)).digest())
    grant = KeyGrant(job=row.bid, reader=row.reader, reader_key=row.reader_key, content=content)
    return KeyGrantIn(grant=grant, sealed_key=row.sealed_key, signature=row.signature)


def _mismatch(detail: str) -> Problem:
    return Problem(422, Code.JOB_MISMATCH, detail, "docs/sealing.md says how a sealed job is made.")

"""Compares chain, database and blobs, and tells every difference. Reads only.

The chain is read twice in ways that share nothing: as the fold of all events, and as the escrow's own views.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session, col, select

from contracts import commitment
from contracts.api.bodies import CheckpointRecord
from contracts.chain.client import Chain
from contracts.chain.events import Event
from contracts.chain.follower import read_events
from contracts.chain.ledger import LeaseView, Ledger
from contracts.errors import first_sentence
from contracts.job.file import hash_file
from contracts.job.spec import FileRef, JobSpec
from contracts.orders import Approval, Claim
from contracts.program.progress_bar import Watch, nobody
from contracts.statefile import file_state_root
from contracts.types import from_hex, to_hex
from market.maintenance import reindex, retention
from market.maintenance.retention import Keep
from market.store.blobs import BlobStore
from market.store.db import Database
from market.store.models import ApprovalRow, BidRow, ChainEvent, CheckpointRow, LeaseRow, MatchRow, ReplacedClaimRow
from market.store.unreadable import record_of

LOOKS = 4
SECONDS_BETWEEN = 1.0


@dataclass
class Comparison:
    """One comparison: how many things were compared, and what differs."""

    name: str
    compared: int = 0
    differences: list[str] = field(default_factory=list)

    def equal(self, what: str, expected: object, found: object) -> None:
        self.compared += 1
        if expected != found:
            self.differences.append(f"{what}: expected {expected}, found {found}")


@dataclass(frozen=True)
class Books:
    """The chain as the fold of its events."""

    ledger: Ledger
    events: list[Event]


def read_books(chain: Chain, watch: Watch = nobody) -> Books:
    """All events of the escrow since its deployment, folded."""
    events = read_events(chain, watch)
    ledger = Ledger()
    ledger.apply_all(events)
    return Books(ledger, events)


def reconcile(chain: Chain, db: Database, blobs: BlobStore, keep: Keep, watch: Watch = nobody) -> list[Comparison]:
    """All checks. What is told differed in the same words at several looks: while a market runs, chain and database
    are not read at quite the same moment."""
    checks = _look(chain, db, blobs, keep, watch)
    for _ in range(LOOKS - 1):
        before = {difference for check in checks for difference in check.differences}
        if not before:
            break
        time.sleep(SECONDS_BETWEEN)
        checks = _look(chain, db, blobs, keep, watch)
        for check in checks:
            check.differences = [difference for difference in check.differences if difference in before]
    return checks


def _look(chain: Chain, db: Database, blobs: BlobStore, keep: Keep, watch: Watch) -> list[Comparison]:
    books = read_books(chain, watch)
    checks = [check_accounts(chain, books, watch), check_tokens(chain, books), check_leases(chain, books, watch)]
    checks.append(check_payments(books))
    with db.reading() as session:
        checks += [
            check_events(session, books),
            check_lease_rows(session, books),
            check_matches(session, books),
            check_approvals(session, chain),
            check_replaced_claims(session, chain),
        ]
        bids = session.exec(select(BidRow)).all()
        records = [record for row in _approved(session) if (record := record_of(row)) is not None]
        needed = retention.needed_blobs(session, keep)
    checks += check_tables(chain, db, blobs, watch)
    return [*checks, check_job_files(bids, blobs, needed, watch), check_checkpoints(records, blobs, needed, watch)]


# ------------------------------------------------------------------ the chain against itself


def check_accounts(chain: Chain, books: Books, watch: Watch = nobody) -> Comparison:
    check = Comparison("balances: events against the escrow's accounts")
    for done, (owner, expected) in enumerate(sorted(books.ledger.accounts.items())):
        watch("accounts", done, len(books.ledger.accounts))
        found = chain.account(owner)
        check.equal(
            f"account {owner} (free, active, page)",
            (expected.free, expected.active, expected.page),
            (found.free, found.active, found.page),
        )
    return check


def check_tokens(chain: Chain, books: Books) -> Comparison:
    """More than it owes is no fault: anyone can send tokens to the escrow unasked."""
    check = Comparison("tokens: what the escrow owes against what it holds", compared=1)
    owed, held = books.ledger.held, chain.token_balance(chain.escrow.address)
    if held < owed:
        check.differences.append(f"the escrow holds {owed - held} less than it owes")
    return check


def check_leases(chain: Chain, books: Books, watch: Watch = nobody) -> Comparison:
    check = Comparison("leases: events against the escrow's states")
    for lease in books.ledger.leases.values():
        watch("leases", check.compared, len(books.ledger.leases))
        check.compared += 1
        found = chain.state(lease.id)
        if not lease.agrees(found):
            check.differences.append(f"lease {lease.id}: expected {lease.state}, found {found}")
    return check


def check_payments(books: Books) -> Comparison:
    """Each index of a Bid is paid at most once, and the indices are paid in order."""
    check = Comparison("payments: each checkpoint of each job paid exactly once")
    by_bid: dict[str, list[LeaseView]] = {}
    for lease in books.ledger.leases.values():
        by_bid.setdefault(lease.terms.parties.bid, []).append(lease)
    for bid, leases in by_bid.items():
        reached = 0
        for lease in sorted(leases, key=lambda lease: lease.opened):
            start, price = lease.terms.nums.start, lease.terms.nums.price
            check.equal(f"start of lease {lease.id} of bid {bid}", reached, start)
            reached = start + lease.paid // price
            check.equal(f"payment of lease {lease.id}", (reached - start) * price, lease.paid)
    return check


# ------------------------------------------------------------------ the database against the chain


def check_events(session: Session, books: Books) -> Comparison:
    check = Comparison("events: database against chain")
    on_chain = {(event.at.block_hash, event.at.log_index) for event in books.events}
    stored = {(row.block_hash, row.log_index) for row in session.exec(select(ChainEvent))}
    for name, keys in (("missing in the database", on_chain - stored), ("not on chain", stored - on_chain)):
        check.differences += [f"event {log} of block {block} is {name}" for block, log in sorted(keys)]
    check.compared = len(on_chain | stored)
    return check


def check_lease_rows(session: Session, books: Books) -> Comparison:
    check = Comparison("leases: database against chain")
    rows = {row.id: row for row in session.exec(select(LeaseRow))}
    views = books.ledger.leases
    for id in sorted(rows.keys() | views.keys()):
        if id not in rows or id not in views:
            check.compared += 1
            check.differences.append(f"lease {id} is {'not on chain' if id in rows else 'missing in the database'}")
            continue
        row, view = rows[id], views[id]
        expected = (view.terms.parties.bid, view.terms.provider, view.exit is not None, view.continuable)
        check.equal(
            f"lease {id} (bid, provider, over, continuable)",
            expected,
            (row.bid, row.provider, row.finished is not None, row.continuable),
        )
        money = (view.paid, view.fees, view.refunded, view.penalty)
        check.equal(
            f"lease {id} (paid, fees, refunded, penalty)", money, (row.paid, row.fees, row.refunded, row.penalty)
        )
    return check


def check_matches(session: Session, books: Books) -> Comparison:
    check = Comparison("matches: database against chain")
    for row in session.exec(select(MatchRow).where(col(MatchRow.lease).is_not(None))):
        lease = books.ledger.leases.get(row.lease or "")
        found = (lease.terms.parties.bid, lease.ask, lease.terms.nums.price) if lease else None
        check.equal(f"match of bid {row.bid} in epoch {row.epoch}", (row.bid, row.ask, row.price), found)
    return check


def _approved(session: Session) -> Iterable[CheckpointRow]:
    return session.exec(
        select(CheckpointRow)
        .where(CheckpointRow.status == "approved")
        .order_by(col(CheckpointRow.lease), col(CheckpointRow.n))
    )


def check_approvals(session: Session, chain: Chain) -> Comparison:
    """Signatures of claims and approvals, and each lease's chain of tips."""
    check = Comparison("approvals: signatures and the chain of tips")
    leases = {row.id: row for row in session.exec(select(LeaseRow))}
    tips = {id: row.start_tip for id, row in leases.items()}
    by_index: dict[tuple[str, int], str] = {}
    for row in _approved(session):
        lease, record = leases.get(row.lease), record_of(row)
        if lease is None:
            check.differences.append(f"checkpoint {row.n} is approved for the unknown lease {row.lease}")
            continue
        if record is None:
            check.differences.append(
                f"the record of the approved checkpoint {row.n} of lease {row.lease} is unreadable"
            )
            tips[row.lease] = by_index[row.lease, row.n] = row.tip
            continue
        claim = Claim(lease=row.lease, n=row.n, tip=row.tip)
        check.equal(f"claim {row.n} of lease {row.lease}", lease.provider, claim.signer(chain.domain, row.signature))
        tip = to_hex(commitment.next_tip(from_hex(tips[row.lease]), from_hex(record.root)))
        check.equal(f"tip {row.n} of lease {row.lease}", tip, row.tip)
        tips[row.lease] = by_index[row.lease, row.n] = row.tip
    for approved in session.exec(select(ApprovalRow)):
        approval = Approval(lease=approved.lease, n=approved.n, tip=approved.tip, last=approved.last)
        lease = leases.get(approved.lease)
        what = f"approval {approved.n} of lease {approved.lease}"
        check.equal(what, lease.approver if lease else None, approval.signer(chain.domain, approved.signature))
        if lease and approved.n > lease.start:
            check.equal(f"tip of {what}", by_index.get((approved.lease, approved.n)), approved.tip)
    return check


def check_replaced_claims(session: Session, chain: Chain) -> Comparison:
    """Claims that an Approval may bring back: signatures, and that each follows what it was built on."""
    check = Comparison("replaced claims: signatures and tips")
    pairs = select(ReplacedClaimRow, LeaseRow).join(LeaseRow, col(LeaseRow.id) == ReplacedClaimRow.lease)
    for row, lease in session.exec(pairs):
        what = f"replaced claim {row.n} of lease {row.lease}"
        claim = Claim(lease=row.lease, n=row.n, tip=row.tip)
        check.equal(what, lease.provider, claim.signer(chain.domain, row.signature))
        record = record_of(row)
        if row.before and record is not None:
            tip = to_hex(commitment.next_tip(from_hex(row.before), from_hex(record.root)))
            check.equal(f"tip of {what}", tip, row.tip)
    return check


def check_tables(chain: Chain, db: Database, blobs: BlobStore, watch: Watch = nobody) -> list[Comparison]:
    """All tables against what a new database would hold, and the messages that it is made of."""
    check = Comparison("tables: database against journal, blobs and chain", compared=sum(reindex.count(db).values()))
    differences, bad = reindex.look(db, chain, blobs, watch)
    check.differences += map(str, differences)
    messages = Comparison("journal: messages that can be read", compared=reindex.newest_number(db) or len(bad))
    messages.differences += map(str, bad)
    return [check, messages]


# ------------------------------------------------------------------ the blobs against the database


def check_job_files(bids: Sequence[BidRow], blobs: BlobStore, needed: set[str], watch: Watch = nobody) -> Comparison:
    check = Comparison("blobs: the files of jobs")
    for done, bid in enumerate(bids):
        watch("jobs whose files are hashed", done, len(bids))
        try:
            files = JobSpec.model_validate(bid.spec).stored_files
        except ValueError as error:
            check.differences.append(f"the spec of job {bid.id} is unreadable: {first_sentence(error)}")
            continue
        for path, plain in files.items():
            sealed = bid.sealed_files.get(plain.sha256)
            ref = FileRef.model_validate(sealed) if sealed else plain
            if ref.sha256 not in needed:
                continue
            check.compared += 1
            check.differences += _wrong(blobs.path(ref.sha256), ref, f"{path} of job {bid.id}")
    return check


def check_checkpoints(
    records: Iterable[CheckpointRecord], blobs: BlobStore, needed: set[str], watch: Watch = nobody
) -> Comparison:
    check = Comparison("blobs: approved checkpoints, bytes and state roots")
    there = [record for record in records if record.stored.sha256 in needed]
    for record in there:
        watch("checkpoints that are hashed", check.compared, len(there))
        check.compared += 1
        path, what = blobs.path(record.stored.sha256), f"checkpoint {record.index} with tip {record.tip}"
        wrong = _wrong(path, record.stored, what)
        if not wrong and record.sealed is None:  # what is sealed can't be looked into here
            wrong = _wrong_root(path, record, what)
        check.differences += wrong
    return check


def _wrong_root(path: Path, record: CheckpointRecord, what: str) -> list[str]:
    try:
        root = to_hex(file_state_root(path))
    except ValueError as error:
        return [f"{what}: {error}"]
    return [] if root == record.state_root else [f"{what}: state root is {root}, approved was {record.state_root}"]


def _wrong(path: Path, ref: FileRef, what: str) -> list[str]:
    if not path.is_file():
        return [f"{what}: blob {ref.sha256} is missing"]
    found = hash_file(path)
    return [] if found == ref else [f"{what}: blob {ref.sha256} holds {found.size} bytes that hash to {found.sha256}"]

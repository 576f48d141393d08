"""The parts of a market and what it is sent, for all its tests: a context, orders, leases, checkpoints, reports.

The chain behind them may be real, or a FakeChain.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eth_account.signers.local import LocalAccount

from contracts import commitment
from contracts.amounts import format_amount
from contracts.api.bodies import (
    ApprovalIn,
    AskIn,
    AskResources,
    BidIn,
    CheckpointRecord,
    ProgressIn,
    RejectionIn,
    ReportIn,
)
from contracts.api.info import RuleSet
from contracts.audits.levels import BY_HASH
from contracts.audits.verification import Verification
from contracts.finality import Finality
from contracts.job.spec import FileRef, JobSpec
from contracts.orders import Approval, Ask, Bid, Claim, Domain, Rejection, Report, Rules, SignedType
from contracts.terms import AccountWord, Flag, Nums, Parties, Phase, Terms
from contracts.types import ZERO_HASH, from_hex, to_hex
from market.runtime.context import Context
from market.runtime.settings import MarketSettings
from market.services.blobs import keep_upload
from market.store.blobs import BlobStore
from market.store.db import Database
from market.store.models import LeaseRow

RECIPE = b"class Digits: ...\n"
STATE = b"not looked into by the market"
EVERY = 10  # training steps a checkpoint
FOREVER = (1 << 40) - 1


def sha256(data: bytes) -> str:
    return to_hex(hashlib.sha256(data).digest())


def file_ref(data: bytes) -> FileRef:
    return FileRef(sha256=sha256(data), size=len(data))


@dataclass
class FakeChain:
    """Accounts as a test sets them; no wallet contracts."""

    domain: Domain
    words: dict[str, AccountWord] = field(default_factory=dict)
    coins: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # for gas
    decimals: int = 6
    symbol: str = "tUSD"

    def __post_init__(self) -> None:
        self.settings = SimpleNamespace(
            require=lambda name: self.domain.verifying_contract, approver=None, finality=Finality()
        )
        self.w3 = SimpleNamespace(
            to_checksum_address=lambda address: address,
            eth=SimpleNamespace(
                get_code=lambda address: b"",
                get_balance=self.coins.__getitem__,
                get_block=lambda which: {"number": 9, "timestamp": 1},
            ),
        )

    def account(self, address: str) -> AccountWord:
        return self.words.get(address, AccountWord(0, 0, 0, 0))

    def accounts(self, addresses: list[str], block: int) -> list[AccountWord]:
        return [self.account(address) for address in addresses]

    def block_hash(self, number: int) -> str:
        return ZERO_HASH

    def format_amount(self, amount: int) -> str:
        return f"{format_amount(amount, self.decimals)} {self.symbol}"


@dataclass
class FakeSender:
    """Has the matcher's key, and sends nothing."""

    account: LocalAccount

    def in_flight(self) -> int:
        return 0


def rule_set(name: str, rules: Rules, verification: Verification | None = None) -> RuleSet:
    known = verification or BY_HASH.get(rules.verification)
    return RuleSet(name=name, hash=rules.struct_hash(), rules=rules, verification=known)


def make_context(
    folder: Path,
    chain: Any,
    matcher: str,
    rules: dict[str, Rules],
    verification: Verification | None = None,
    **settings: Any,
) -> Context:
    """A context on a database (a new one in `folder`, if none is given), as if the chain had been followed.

    `verification`: of the rules, if it is none that ships.
    """
    defaults = {"database_url": f"sqlite:///{folder}/market.sqlite3", "blob_dir": folder / "blobs", "port": 0}
    given = MarketSettings(**(defaults | settings))
    db = Database(given.database_url)
    db.upgrade()
    offered = {name: rule_set(name, one, verification) for name, one in rules.items()}
    context = Context(
        settings=given,
        chain=chain,
        db=db,
        blobs=BlobStore(given.blob_dir, given.max_blob_bytes),
        matcher=matcher,
        rules=offered,
        rules_by_hash={one.hash: one for one in offered.values()},
    )
    context.caught_up.set()
    return context


def upload(context: Context, account: str, data: bytes) -> FileRef:
    """As if the account had sent it."""
    with context.blobs.incoming(sha256(data), len(data)) as blob:
        blob.write(data)
        blob.check()
        return keep_upload(context, blob, account)


# ------------------------------------------------------------------ orders

CPU = AskResources(
    device="Test CPU", gpus=0, vram_mb=0, memory_mb=8000, environments=("torch-2.13",), sandbox="bubblewrap"
)
TELLS_CLASS = CPU.model_copy(update={"numerics": to_hex(commitment.machine_class({"torch": "2.13.0"}))})


def make_spec(**changes: Any) -> JobSpec:
    fields: dict[str, Any] = {
        "environment": "torch-2.13",
        "recipe": "recipe.py:Digits",
        "files": {"recipe.py": file_ref(RECIPE)},
        "seed": 1,
        "steps": 4 * EVERY,
        "checkpoint_every": EVERY,
    }
    return JobSpec.model_validate(fields | changes)


def make_ask(
    provider: LocalAccount, matcher: str, rules: Rules, /, resources: AskResources = CPU, **changes: Any
) -> Ask:
    fields: dict[str, Any] = {
        "provider": provider.address,
        "matcher": matcher,
        "resources": resources.hash(),
        "rules": rules.struct_hash(),
        "price_per_hour": 3_600_000_000,  # 1 token, and 1 second, for a million units
        "units_per_hour": 3_600_000_000,
        "max_stake": 50_000_000,
        "max_active": 1,
        "max_checkpoints": 4,
        "valid_from": 0,
        "valid_until": FOREVER,
        "page": 0,
    }
    return Ask.model_validate(fields | changes)


def make_bid(client: LocalAccount, matcher: str, rules: Rules, spec: JobSpec, /, **changes: Any) -> Bid:
    fields: dict[str, Any] = {
        "client": client.address,
        "matcher": matcher,
        "approver": client.address,
        "job": to_hex(spec.job_hash()),
        "rules": rules.struct_hash(),
        "checkpoints": spec.checkpoints,
        "units": 1_000_000,
        "max_price": 2_000_000,
        "fee": 0,
        "stake": 20_000_000,
        "valid_until": FOREVER,
        "nonce": 0,
    }
    return Bid.model_validate(fields | changes)


def signed_ask(ask: Ask, domain: Domain, key: LocalAccount, resources: AskResources = CPU) -> AskIn:
    return AskIn(ask=ask, signature=ask.sign(domain, key), resources=resources)


def signed_bid(bid: Bid, domain: Domain, key: LocalAccount, spec: JobSpec, name: str = "digits") -> BidIn:
    return BidIn(bid=bid, signature=bid.sign(domain, key), spec=spec, name=name)


# ------------------------------------------------------------------ leases and what is said of them


def make_lease(bid: Bid, domain: Domain, provider: str, **changes: Any) -> LeaseRow:
    """A lease over the whole job, opened as its first."""
    price = changes.pop("price", 1_000_000)
    nums = Nums(changes.pop("start", 0), changes.pop("end", bid.checkpoints), 4, 20, price, bid.fee, price)
    parties = Parties(
        bid.digest(domain), bid.job, changes.pop("prev", ZERO_HASH), bid.rules, bid.client, bid.effective_approver,
        bid.matcher, bid.stake,
    )  # fmt: skip
    tip = changes.pop("start_tip", to_hex(commitment.start_tip(from_hex(bid.job))))
    status = Phase.ACTIVE.value | (Flag.MORE.value if nums.end < bid.checkpoints else 0)
    fields: dict[str, Any] = {
        "id": Terms(provider, nums, parties).lease,
        **parties._asdict(),
        **nums._asdict(),
        "ask": ZERO_HASH,
        "provider": provider,
        "status": status,
        "settled": nums.start,
        "accepted": nums.start,
        "claimed": nums.start,
        "t": 0,
        "tip": tip,
        "start_tip": tip,
        "opened_block": 1,
        "opened_tx": ZERO_HASH,
    }
    return LeaseRow(**(fields | changes))


def make_record(job: str, index: int, before: str, state: bytes = STATE, **changes: Any) -> CheckpointRecord:
    """A record whose commitments fit, after the tip `before`."""
    fields: dict[str, Any] = {
        "index": index,
        "step": index * EVERY,
        "state_root": sha256(b"state %d" % index),
        "trace_root": sha256(b"trace %d" % index),
        "numerics": {"torch": "2.13.0", "threads": 1},
        "state": file_ref(state),
        "metrics": {"loss": 1 / index},
        "seconds": 1.5,
    } | changes
    root = commitment.checkpoint_root(
        from_hex(job),
        fields["index"],
        fields["step"],
        from_hex(fields["state_root"]),
        from_hex(fields["trace_root"]),
        commitment.numerics_class(fields["numerics"]),
    )
    computed = {"root": to_hex(root), "tip": to_hex(commitment.next_tip(from_hex(before), root))}
    return CheckpointRecord.model_validate(computed | fields)


def signed_progress(lease: str, record: CheckpointRecord, domain: Domain, key: LocalAccount) -> ProgressIn:
    claim = Claim(lease=lease, n=record.index, tip=record.tip)
    return ProgressIn(claim=claim, signature=claim.sign(domain, key), checkpoint=record)


def signed_approval(lease: str, n: int, tip: str, domain: Domain, key: LocalAccount, last: bool = False) -> ApprovalIn:
    approval = Approval(lease=lease, n=n, tip=tip, last=last)
    return ApprovalIn(approval=approval, signature=approval.sign(domain, key))


def signed_rejection(lease: str, n: int, tip: str, domain: Domain, key: LocalAccount) -> RejectionIn:
    rejection = Rejection(lease=lease, n=n, tip=tip, reason="the loss is too good to be true")
    return RejectionIn(rejection=rejection, signature=rejection.sign(domain, key))


def signed_report(lease: str, n: int, kind: str, text: str, time: int, domain: Domain, key: LocalAccount) -> ReportIn:
    report = Report(lease=lease, n=n, kind=kind, content=sha256(text.encode()), time=time)
    return ReportIn(report=report, signature=report.sign(domain, key), text=text)


def forged(body: Any, domain: Domain, key: LocalAccount) -> Any:
    """The same body signed by another key."""
    message: SignedType = next(value for value in dict(body).values() if isinstance(value, SignedType))
    return body.model_copy(update={"signature": message.sign(domain, key)})

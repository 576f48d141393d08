"""Leases, jobs, checkpoints and an offer, for unit tests of the worker; no chain and no market behind them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from safetensors.numpy import save_file

from contracts import commitment
from contracts.api.bodies import AskResources, CheckpointOut, CheckpointRecord, LeaseOut, LeaseState
from contracts.audits.levels import UNCHECKED
from contracts.job.file import hash_file
from contracts.job.spec import FileRef, JobSpec
from contracts.orders import Bid, Claim, Domain, Rules, new_account
from contracts.statefile import file_state_root
from contracts.terms import Nums, Parties, Terms
from contracts.types import ZERO_ADDRESS, ZERO_HASH, from_hex, to_hex
from worker.lease.folder import Job, LeaseFile, LeaseFolder, Store
from worker.lease.job_key import JobKey
from worker.lease.tools import LeaseTools
from worker.settings import ProviderSettings

DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
RULES = Rules(
    arbiter="0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0",
    arbiter_fee=1,
    arbiter_timeout=30,
    checkpoint_timeout=100,
    window=10,
    verification=UNCHECKED.hash(),
)
CHAIN: Any = SimpleNamespace(  # without contract wallets
    domain=DOMAIN, w3=SimpleNamespace(to_checksum_address=str, eth=SimpleNamespace(get_code=lambda address: b""))
)
CLIENT, PROVIDER, APPROVER = (new_account() for _ in range(3))


def make_spec(**fields: Any) -> JobSpec:
    given = {
        "environment": "torch-2.13",
        "recipe": "recipe.py:Toy",
        "files": {"recipe.py": FileRef(sha256="0x" + "11" * 32, size=5)},
        "seed": 7,
        "steps": 20,
        "checkpoint_every": 4,
    }
    return JobSpec.model_validate(given | fields)


def make_bid(spec: JobSpec, **fields: Any) -> Bid:
    given = {
        "client": CLIENT.address,
        "matcher": ZERO_ADDRESS,
        "approver": APPROVER.address,
        "job": to_hex(spec.job_hash()),
        "rules": RULES.struct_hash(),
        "checkpoints": spec.checkpoints,
        "units": 1000,
        "max_price": 10,
        "fee": 0,
        "stake": 50,
        "valid_until": 2**40 - 1,
        "nonce": 0,
    }
    return Bid.model_validate(given | fields)


def make_terms(bid: Bid, start: int = 0, end: int | None = None) -> Terms:
    nums = Nums(start, end or bid.checkpoints, RULES.window, RULES.checkpoint_timeout, 10, bid.fee, 10)
    parties = Parties(
        bid.digest(DOMAIN), bid.job, ZERO_HASH, bid.rules, bid.client, bid.effective_approver, bid.matcher, bid.stake
    )
    return Terms(PROVIDER.address, nums, parties)


def lease_file(terms: Terms, tip: str | None = None, **fields: Any) -> LeaseFile:
    start = terms.nums.start
    tip = tip or to_hex(commitment.start_tip(from_hex(terms.parties.job)))
    given = {
        "provider": terms.provider,
        "nums": terms.nums,
        "parties": terms.parties,
        "tip": tip,
        "opened_block": 3,
        "opened_time": 1_000,
        "base": start,
        "base_tip": tip,
        "made": start,
        "reported": start,
        "accepted": start,
        "settled": start,
    }
    return LeaseFile.model_validate(given | fields)


def make_folder(spec: JobSpec | None = None, start: int = 0, key: str = "rig", **fields: Any) -> LeaseFolder:
    """A lease's folder in $GPUMARKET_HOME, for the job's checkpoints from start + 1 to its end."""
    terms = make_terms(make_bid(spec or make_spec()), start)
    return Store(key).create(terms.lease, lease_file(terms, **fields))


def lease_out(spec: JobSpec, bid: Bid, terms: Terms, /, **fields: Any) -> LeaseOut:
    """What an honest market says."""
    state = LeaseState(phase="active", flags=[], settled=0, accepted=0, claimed=0, t=0, tip="0x" + "00" * 20)
    given: dict[str, Any] = {
        "id": terms.lease,
        "provider": terms.provider,
        "start": terms.nums.start,
        "end": terms.nums.end,
        "price": terms.nums.price,
        "fee": terms.nums.fee,
        "stake": terms.parties.stake,
        "state": state,
        "finished": None,
        "paid": 0,
        "refunded": 0,
        "penalty": 0,
        "final": True,
        "opened_block": 3,
        "job": terms.parties.bid,
        "bid": bid,
        "spec": spec,
        "rules": RULES,
        "prev": ZERO_HASH,
        "reported": terms.nums.start,
        "approved": terms.nums.start,
        "window": RULES.window,
        "timeout": RULES.checkpoint_timeout,
        "job_failures": 0,
        "approval": None,
        "rejection": None,
    }
    return LeaseOut(**(given | fields))


def write_state(path: Path, value: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weights": np.full(8, value, dtype=np.float32)}, path)
    return path


def make_record(spec: JobSpec, index: int, before: str, state: Path, **fields: Any) -> CheckpointRecord:
    """The record of a checkpoint with this state, after the tip `before`; `fields` are put in before it is hashed."""
    parts: dict[str, Any] = {
        "index": index,
        "step": index * spec.checkpoint_every,
        "state_root": to_hex(file_state_root(state)),
        "trace_root": "0x" + f"{index:02}" * 32,
        "numerics": {"torch": "2.13", "threads": 1},
    } | fields
    root = commitment.checkpoint_root(
        spec.job_hash(),
        index,
        index * spec.checkpoint_every,
        from_hex(parts["state_root"]),
        from_hex(parts["trace_root"]),
        commitment.numerics_class(parts["numerics"]),
    )
    tip = commitment.next_tip(from_hex(before), root)
    return CheckpointRecord(
        **parts, root=to_hex(root), tip=to_hex(tip), state=hash_file(state), metrics={"loss": 0.5}, seconds=1
    )


def make_chain(spec: JobSpec, count: int, states: Path) -> list[CheckpointRecord]:
    """Checkpoints 1 .. count of a job, their states as files `states`/INDEX."""
    tip, records = to_hex(commitment.start_tip(spec.job_hash())), []
    for index in range(1, count + 1):
        records.append(make_record(spec, index, tip, write_state(states / str(index), index)))
        tip = records[-1].tip
    return records


def job_key(folder: LeaseFolder, spec: JobSpec, own: PrivateKey | None = None) -> JobKey:
    """Of a lease whose job is known from now on."""
    folder.update(job=Job(bid=make_bid(spec), spec=spec, rules=RULES))
    return JobKey(folder, lease_tools(encryption_key=own or PrivateKey.generate()))


def lease_tools(**given: Any) -> LeaseTools:
    """Of an agent that has a key, a chain without contract wallets, and what is given."""
    nothing = {field.name: None for field in dataclasses.fields(LeaseTools)}
    return LeaseTools(**(nothing | {"account": PROVIDER, "chain": CHAIN, "wake": lambda: None} | given))


def add_checkpoints(folder: LeaseFolder, spec: JobSpec, count: int) -> list[CheckpointRecord]:
    """Makes the next `count` checkpoints of a lease, as training would."""
    made = []
    for index in range(folder.file.made + 1, folder.file.made + count + 1):
        state = write_state(folder.state_path(index), index)
        made.append(make_record(spec, index, folder.tip(index - 1), state))
        folder.add_checkpoint(made[-1])
    return made


class BlobMarket:
    """A market that has checkpoints and blobs, and gives out whatever it was made with."""

    def __init__(self, records: Iterable[CheckpointRecord], states: Path) -> None:
        self.records, self.states = list(records), states
        self.lies: dict[str, bytes] = {}  # sha256 -> what is given out for it

    def checkpoints(self, job: str) -> list[CheckpointOut]:
        return [
            CheckpointOut(
                lease=ZERO_HASH,
                job=job,
                provider=PROVIDER.address,
                checkpoint=record,
                claim=Claim(lease=ZERO_HASH, n=record.index, tip=record.tip),
                signature="0x",
                status="reported",
                reason="",
                received="2030-01-01T00:00:00Z",
            )
            for record in self.records
        ]

    def get_blob(self, ref: FileRef, target: Path, *, job: str) -> Path:
        found = next(path for path in self.states.iterdir() if hash_file(path) == ref)
        target.write_bytes(self.lies.get(ref.sha256, found.read_bytes()))
        return target


def sign(account: LocalAccount, message: Any) -> str:
    signature: str = message.sign(DOMAIN, account)
    return signature


OFFER = ProviderSettings(
    market_url="http://market.example:8600",
    price_per_hour=800_000,
    units_per_hour=2**63,
    max_stake=100,
    rules_name="unchecked",
    rules=RULES,
    resources=AskResources(
        device='A "quoted" GPU', gpus=1, vram_mb=24_000, memory_mb=8_000, environments=("torch-2.13",), sandbox="none"
    ),
    patience=2.5,
)

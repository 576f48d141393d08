"""Download a job's checkpoints and verify them, tip by tip, against what the chain accepted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contracts import commitment
from contracts.api.bodies import CheckpointOut, CheckpointStatus, JobOut
from contracts.api.client import MarketClient
from contracts.api.grants import get_state
from contracts.api.records import tip_after
from contracts.chain.client import Chain
from contracts.chain.lookup import accepted_tips, opened
from contracts.errors import UserError
from contracts.job.sealing import NotOpened
from contracts.program.progress_bar import Watch, nobody
from contracts.statefile import file_state_root
from contracts.types import from_hex, to_hex


@dataclass(frozen=True)
class Pulled:
    index: int
    path: Path
    tip: str


class Unverified(UserError):
    """What the market serves is not what was accepted."""


def accepted_chain(market: MarketClient, job: JobOut) -> list[CheckpointOut]:
    """The records of the accepted checkpoints, each proven to follow from the one before. Raises Unverified.

    Of a checkpoint there may be several, of leases that came to nothing too: what counts is what leads to the last.
    """
    by_index: dict[int, list[CheckpointOut]] = {}
    for reported in market.checkpoints(job.id):
        by_index.setdefault(reported.checkpoint.index, []).append(reported)
    start = to_hex(commitment.start_tip(from_hex(job.bid.job), from_hex(job.bid.start_tip)))
    steps: list[dict[str, tuple[CheckpointOut, str]]] = []  # by tip: the record, and the tip that it follows from
    before = [start]
    for index in range(1, job.accepted + 1):
        # Approved ones first: what one of them has said no other says again.
        found: dict[str, tuple[CheckpointOut, str]] = {}
        for one in sorted(by_index.get(index, []), key=lambda one: one.status is not CheckpointStatus.APPROVED):
            for tip in before:
                if tip_after(one.checkpoint, job.spec, from_hex(tip)) == one.checkpoint.tip:
                    found.setdefault(one.checkpoint.tip, (one, tip))
        if not found:
            raise Unverified(f"no record of checkpoint {index} follows from tip {before[0]}")
        steps.append(found)
        before = list(found)
    chain: list[CheckpointOut] = []
    tip = before[0]
    for step in reversed(steps):
        record, tip = step[tip]
        chain.append(record)
    return chain[::-1]


def check_against_chain(chain: Chain, job: JobOut, records: list[CheckpointOut], watch: Watch = nobody) -> None:
    """Every tip that the chain has accepted must be the records', and the newest record's among them.

    A tip commits to all that came before it, so the newest vouches for all. Raises Unverified.
    """
    tips = {0: to_hex(commitment.start_tip(from_hex(job.bid.job), from_hex(job.bid.start_tip)))}
    tips |= {record.checkpoint.index: record.checkpoint.tip for record in records}
    accepted = {0: tips[0]}
    for lease in job.leases:
        event = opened(chain, lease.id, lease.opened_block, watch)
        if event.terms.parties.bid != job.id:
            raise Unverified(f"lease {lease.id} is of another job on chain")
        accepted |= accepted_tips(chain, event, watch)
    for index, tip in sorted(accepted.items()):
        if index in tips and tips[index] != tip:
            raise Unverified(f"checkpoint {index} has the tip {tip} on chain, the records lead to {tips[index]}")
    if job.accepted not in accepted:
        raise Unverified(
            f"the market says {job.accepted} checkpoints are accepted, the chain has accepted {max(accepted)}",
            "if it was just now, try again: the node may be behind the market",
        )


def pull(
    market: MarketClient,
    chain: Chain,
    job: JobOut,
    target: Path,
    everything: bool,
    done: Callable[[Pulled], None],
    job_key: bytes | None = None,
    watch: Watch = nobody,
) -> list[Pulled]:
    """Download the newest accepted checkpoint (or all), verify bytes, state roots and tips. Raises Unverified.

    `job_key` opens those of a sealed job. `watch` sees how the chain is searched, which takes long on limited nodes.
    """
    if job.bid.digest(chain.domain) != job.id or to_hex(job.spec.job_hash()) != job.bid.job:
        raise Unverified(f"the market's Bid or JobSpec is not that of job {job.id}")
    records = accepted_chain(market, job)
    check_against_chain(chain, job, records, watch)
    pulled: list[Pulled] = []
    for reported in records if everything else records[-1:]:
        record = reported.checkpoint
        path = target / f"checkpoint-{record.index:05d}.safetensors"
        try:
            get_state(market, record, path, job=job.id, job_key=job_key)
        except NotOpened as error:
            raise Unverified(f"checkpoint {record.index}: {error.message}; it is not kept") from error
        try:
            root = to_hex(file_state_root(path))
        except ValueError as error:
            path.unlink()
            raise Unverified(f"the state of checkpoint {record.index} is {error}; it is not kept") from error
        if root != record.state_root:
            path.unlink()
            raise Unverified(f"checkpoint {record.index} has the state root {root}, accepted was {record.state_root}")
        pulled.append(Pulled(record.index, path, record.tip))
        done(pulled[-1])
    return pulled

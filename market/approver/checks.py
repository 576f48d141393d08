"""What an approver demands of a checkpoint before it signs. Pure, but for reading the file it is given."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts import commitment
from contracts.api.bodies import CheckpointOut, CheckpointRecord
from contracts.job.early_stop import Stop
from contracts.job.spec import JobSpec
from contracts.job.state_kinds import check_state_form
from contracts.orders import Domain
from contracts.statefile import mapped_state
from contracts.terms import Terms
from contracts.types import from_hex, to_hex


def problem_with_claim(
    reported: CheckpointOut, terms: Terms, spec: JobSpec, domain: Domain, index: int, before: str
) -> str | None:
    """Why the claim of checkpoint `index`, after tip `before`, can't be accepted; None if nothing is wrong."""
    claim, record = reported.claim, reported.checkpoint
    if claim.lease != terms.lease:
        return f"the claim is for lease {claim.lease}"
    if not terms.nums.start < index <= terms.nums.end:
        return f"checkpoint {index} is not of this lease ({terms.nums.start + 1} to {terms.nums.end})"
    if claim.n != index or record.index != index:
        return f"checkpoint {index} comes next, not {claim.n} / {record.index}"
    if claim.signer(domain, reported.signature) != terms.provider:
        return f"the claim is not signed by the lease's provider {terms.provider}"
    if (record.sealed is not None) != spec.sealed:
        return (
            "the job is sealed, but the checkpoint is not" if spec.sealed else "the checkpoint is sealed, the job not"
        )
    if record.step != spec.step_of(index):
        return f"checkpoint {index} is at step {spec.step_of(index)}, not {record.step}"
    return _problem_with_chain(record, spec.job_hash(), before, claim.tip)


def _problem_with_chain(record: CheckpointRecord, job: bytes, before: str, claimed: str) -> str | None:
    root = commitment.checkpoint_root(
        job,
        record.index,
        record.step,
        from_hex(record.state_root),
        from_hex(record.trace_root),
        commitment.numerics_class(record.numerics),
    )
    if to_hex(root) != record.root:
        return f"the root {record.root} is not that of its parts ({to_hex(root)})"
    tip = to_hex(commitment.next_tip(from_hex(before), root))
    if tip != record.tip or tip != claimed:
        return f"tip {claimed} does not follow {before}; {tip} would"
    return None


def problem_with_stop(stop: Stop, before: Sequence[Mapping[str, float]], metrics: Mapping[str, float]) -> str | None:
    """Why a checkpoint can't follow on those `before` it, by the job's early stop; None if it can."""
    ended = stop.reached(before)
    return stop.problem(metrics) if ended is None else f"the job is over: {stop.sentence(ended)}"


def problem_with_state(path: Path, record: CheckpointRecord) -> str | None:
    """Why a checkpoint's file is not what its record commits to, or can't be loaded; None if nothing is wrong."""
    try:
        tensors, kinds = mapped_state(path)
        root = to_hex(commitment.state_root(tensors, kinds))
        if root != record.state_root:
            return f"the file's state root is {root}, not {record.state_root}"
        check_state_form(tensors, kinds)
    except ValueError as error:
        return str(error)
    return None

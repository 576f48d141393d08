"""A replay as a job like any other: what is asked for, and what its answer says of the claim. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from eth_utils.crypto import keccak

from contracts.audits.cases import Replayed
from contracts.commitment import machine_class, numerics_class
from contracts.job.spec import MAX_THREADS, JobSpec
from contracts.types import from_hex, to_hex


class Work(NamedTuple):
    """What a stretch of training came to."""

    state_root: str
    trace_root: str
    numerics: Mapping[str, Any]

    @property
    def root(self) -> str:
        """Of both roots; that of a checkpoint has the job's hash in it, which a replay's is not."""
        return to_hex(keccak(from_hex(self.state_root) + from_hex(self.trace_root)))


def replay_spec(
    spec: JobSpec, index: int, providers: Iterable[str], numerics: Iterable[str] = (), threads: int = 0
) -> JobSpec:
    """Of checkpoint `index` of a job. Its Bid's startTip is the tip of the checkpoint before; of the first, that of the
    job's own Bid. State and trace must come out as claimed; root and tip don't, which name the job.

    What only says when a job ends, how fast it must be or who may not have it, is left out.
    """
    if not 1 <= index <= spec.checkpoints:
        raise ValueError(f"checkpoint {index} of a job that has 1 to {spec.checkpoints}")
    who = {"providers": tuple(providers), "not_providers": (), "numerics": tuple(numerics)}
    resources = spec.resources.model_copy(update=who | {"threads": threads, "units_per_hour": 0})
    return spec.model_copy(
        update={
            "steps": spec.checkpoint_every,
            "start": spec.start if index == 1 else None,
            "start_step": spec.step_of(index - 1) or None,
            "resources": resources,
            "deadline": None,
            "stop": None,
        }
    )


def replay_of(spec: JobSpec, index: int, numerics: Mapping[str, Any], auditor: str) -> JobSpec:
    """`replay_spec` for one auditor, on a machine of the claim's class and with its threads."""
    threads = numerics.get("threads")
    known = threads if type(threads) is int and 0 <= threads <= MAX_THREADS else 0
    return replay_spec(spec, index, [auditor], [to_hex(machine_class(numerics))], known)


def said_of(claimed: Work, found: Work) -> Replayed:
    """What a replay says of a claim. Bits of two classes say nothing of each other."""
    if numerics_class(claimed.numerics) != numerics_class(found.numerics):
        return Replayed("not_covered")
    return Replayed("equal") if found.root == claimed.root else Replayed("differs", found.root)

"""Which claim of a checkpoint is looked at, and whether its record holds together. The market is not believed."""

from collections.abc import Callable
from functools import cache, cached_property

from contracts.api.bodies import CheckpointOut, CheckpointRecord, CheckpointStatus, JobOut
from contracts.api.client import MarketClient
from contracts.api.grants import Check as SignatureCheck
from contracts.api.records import Link, linked, root_of
from contracts.commitment import start_tip
from contracts.errors import UserError
from contracts.orders import Domain
from contracts.types import ZERO_TIP, from_hex, to_hex
from worker.lease.inputs import NoStartState, record_of_earlier_job
from worker.replay.findings import Check, Withheld

# The first of the job's checkpoints from an index on whose tip the chain has, and that tip.
TipOnChain = Callable[[int], tuple[int, str] | None]

# Of several claims of one checkpoint that is looked at which is likeliest to be paid.
LIKELIEST = (CheckpointStatus.APPROVED, CheckpointStatus.REPORTED, CheckpointStatus.REJECTED)


class Claims:
    """Of one job: all that the market shows."""

    def __init__(self, market: MarketClient, job: JobOut, tip_on_chain: TipOnChain = lambda index: None) -> None:
        self.job, self._next_tip_on_chain = job, cache(tip_on_chain)
        self._market, self._all = market, list(market.checkpoints(job.id))

    @cached_property
    def _links(self) -> dict[tuple[int, str], Link]:
        spec = self.job.spec
        start = to_hex(start_tip(spec.job_hash(), from_hex(self.job.bid.start_tip)))
        return linked((one.checkpoint for one in self._all), spec, start)

    def choose(self, index: int, tip: str | None = None) -> CheckpointOut:
        """The claim of checkpoint `index` whose tip begins with `tip`; without one that which the chain has, else the
        approved, else the newest that is not rejected. Raises UserError.
        """
        job = self.job
        if not 1 <= index <= job.spec.checkpoints:
            raise UserError(f"job {job.id} has no checkpoint {index}", f"it has 1 to {job.spec.checkpoints}")
        found = [one for one in self._all if one.checkpoint.index == index]
        if not found:
            raise UserError(
                f"nobody has claimed checkpoint {index} of job {job.id} yet",
                f"{job.reported} of {job.spec.checkpoints} are reported; see `gpumarket job show {job.id[:12]}`",
            )
        if tip is None and (on_chain := self._tip_on_chain(index)) is not None:
            theirs = [one for one in found if one.checkpoint.tip == on_chain]
            if not theirs:
                known = ", ".join(one.checkpoint.tip for one in found)
                raise UserError(
                    f"the chain has the tip {on_chain} of checkpoint {index}, and the market no record of it",
                    f"what its provider told the market is another claim: --tip {known} looks at that",
                )
            return theirs[-1]
        if tip is None:
            best = min(LIKELIEST.index(one.status) for one in found)
            return [one for one in found if one.status is LIKELIEST[best]][-1]
        named = [one for one in found if one.checkpoint.tip.startswith(tip.lower())]
        if not named:
            known = ", ".join(one.checkpoint.tip for one in found)
            raise UserError(f"no claim of checkpoint {index} has a tip that starts with {tip!r:.60}", f"it has {known}")
        return named[-1]

    def check(self, claim: CheckpointOut, domain: Domain, is_signed: SignatureCheck) -> list[Check]:
        """What can be told without any bytes: signature, numbers, root and tips."""
        job, record = self.job, claim.checkpoint
        spec, said = job.spec, claim.claim
        ours = job.bid.digest(domain) == job.id == claim.job and to_hex(spec.job_hash()) == job.bid.job
        names_it = (said.lease, said.n, said.tip) == (claim.lease, record.index, record.tip)
        signed = names_it and is_signed(said, claim.provider, claim.signature)
        step, root = spec.step_of(record.index), to_hex(root_of(record, spec))
        follows = (record.index, record.tip) in self._links
        return [
            Check("job", ours, f"Bid and JobSpec are {'' if ours else 'not '}those of the job's id"),
            Check("signature", signed, f"{claim.provider} has {'' if signed else 'not '}signed this checkpoint's tip"),
            Check("step", record.step == step, f"it is after step {record.step}, by the JobSpec after {step}"),
            Check("root", record.root == root, f"the record's root is {record.root}, its parts come to {root}"),
            self._check_chain(record),
            Check("tips", follows, f"{'a' if follows else 'no'} chain of records leads to tip {record.tip}"),
        ]

    def _tip_on_chain(self, index: int) -> str | None:
        """What the chain has of a checkpoint, or what leads to a later one that it has."""
        found = self._next_tip_on_chain(index)
        while found is not None and found[0] > index:
            link = self._links.get(found)
            found = link and (found[0] - 1, link.before)
        return found and found[1]

    def _check_chain(self, record: CheckpointRecord) -> Check:
        on_chain = self._tip_on_chain(record.index)
        if on_chain is None:
            return Check("chain", None, f"no claim of checkpoint {record.index} is known to be on chain")
        if on_chain == record.tip:
            return Check("chain", True, f"the chain has this claim's tip {on_chain}")
        return Check("chain", None, f"the chain has another claim, with the tip {on_chain}")

    def tip_before(self, claim: CheckpointOut) -> str | None:
        """The tip that a claim follows on; None if no records lead to it."""
        link = self._links.get((claim.checkpoint.index, claim.checkpoint.tip))
        return link and link.before

    def earlier(self, claim: CheckpointOut) -> list[CheckpointOut]:
        """The claims that it follows on, newest first, as far as records lead."""
        by_tip = {(one.checkpoint.index, one.checkpoint.tip): one for one in self._all}
        found: list[CheckpointOut] = []
        index, tip = claim.checkpoint.index - 1, self.tip_before(claim)
        while tip is not None and (index, tip) in by_tip:
            found.append(by_tip[index, tip])
            index, tip = index - 1, self.tip_before(found[-1])
        return found

    def before(self, claim: CheckpointOut) -> tuple[str, CheckpointRecord | None]:
        """The tip that a claim follows on, and the record of the state to go on from; None for the recipe's own start.

        Raises Withheld if the market has no records that lead there.
        """
        record = claim.checkpoint
        link = self._links.get((record.index, record.tip))
        if link is None:
            raise Withheld(f"the market has no records that lead to tip {record.tip} of checkpoint {record.index}")
        if record.index > 1:
            return link.before, self._links[record.index - 1, link.before].record
        if self.job.bid.start_tip == ZERO_TIP:
            return link.before, None
        try:
            return link.before, record_of_earlier_job(self._market, self.job.bid)
        except NoStartState as error:
            raise Withheld(error.message, error.hint) from error

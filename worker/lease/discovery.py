"""Finds this provider's leases on chain, and checks what the market says about them before a byte of it is used."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import structlog

from contracts.api.auditing.sold_class import sold_class
from contracts.api.bodies import AskResources
from contracts.api.client import MarketClient
from contracts.audits.levels import BEFORE, BY_HASH
from contracts.audits.verification import Verification
from contracts.chain.client import Chain
from contracts.chain.events import Opened
from contracts.chain.lookup import opened_by, verify_lease
from contracts.commitment import machine_class
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS
from contracts.job.provider_wants import Standing, Wants
from contracts.job.spec import JobSpec
from contracts.orders import Domain, Rules
from contracts.program.progress_bar import Watch, nobody
from contracts.terms import Nums, Phase, StateWord
from contracts.types import to_hex
from worker.lease.folder import Job, LeaseFile, LeaseFolder, Store
from worker.training.environment import check_environment
from worker.training.failures import Failure

UNITS_TOLERANCE = 1.01  # of what the Bid says; docs/protocol.md section 1
LIVE = (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED)

log = structlog.get_logger()


class Unfit(Failure):
    """This machine can't do the job, whatever the market thought."""

    def __init__(self, message: str) -> None:
        super().__init__("machine", message)


def discover(
    chain: Chain, provider: str, store: Store, watch: Watch = nobody, is_ours: Callable[[str], bool] = lambda ask: True
) -> Iterator[LeaseFolder]:
    """Makes a folder for each live lease of this provider that has none yet. One that had vanished may come again.

    `is_ours`: of an Ask's id, whether it was not another agent of the same key that posted it. Where the node breaks
    off, the next look goes on. A lease that can't be taken up now is tried again with each look, and keeps no other
    from being found. Raises what an unreachable node raises.
    """
    newest = int(chain.w3.eth.block_number)
    followed = int(store.read_state().get("followed", 0))
    first = max(chain.settings.deploy_block, min(followed, newest) - KEPT_BLOCKS)
    retried = LeasesToRetry(store)
    for block in retried.blocks(before=first):
        for found in opened_by(chain, provider, block, block):
            yield from retried.tried(found.events, lambda event: _taken_up(chain, store, event, is_ours))
    for found in opened_by(chain, provider, first, newest, watch):
        yield from retried.tried(found.events, lambda event: _taken_up(chain, store, event, is_ours))
        if found.end > followed:
            followed = found.end
            store.write_state(followed=followed)
    if newest != followed:
        store.write_state(followed=newest)


class LeasesToRetry:
    """Leases that could not be taken up, by the block that each was opened in; on disk, as the search goes on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks: dict[str, int] = dict(store.read_state().get("skipped", {}))

    def blocks(self, before: int) -> list[int]:
        """Those that the search does not come by again."""
        return sorted({block for block in self._blocks.values() if block < before})

    def tried(self, events: Iterable[Opened], take_up: Callable[[Opened], LeaseFolder | None]) -> Iterator[LeaseFolder]:
        for event in events:
            folder = None
            try:
                folder = take_up(event)
            except UserError as error:
                if event.lease not in self._blocks:
                    log.error("lease.skipped", lease=event.lease, problem=f"{error.message}. It is tried again")
                self._note(self._blocks | {event.lease: event.at.block})
            else:
                self._note({lease: block for lease, block in self._blocks.items() if lease != event.lease})
            if folder is not None:
                yield folder

    def _note(self, blocks: dict[str, int]) -> None:
        if blocks != self._blocks:
            self._store.write_state(skipped=blocks)
            self._blocks = blocks


def _taken_up(chain: Chain, store: Store, event: Opened, is_ours: Callable[[str], bool]) -> LeaseFolder | None:
    """The folder of a lease that is to be worked on from now on; None if there is nothing new to do."""
    folder = store.load(event.lease)
    if (folder is None and not store.is_over(event.lease)) or (folder and folder.file.vanished):
        state = chain.state(event.lease)
        if state.phase in LIVE and folder is None and is_ours(event.ask):
            return store.create(event.lease, lease_file(event, state))
        if state.phase in LIVE and folder:
            folder.update(goal="training", reason="", vanished=False, over_since=None)
            return folder
    return None


def lease_file(event: Opened, state: StateWord) -> LeaseFile:
    """How a lease stands that this machine knows nothing of: as far as it is claimed on chain.

    That is its start, unless an earlier folder was lost. Raises UserError if the event doesn't prove its id.
    """
    if event.terms.lease != event.lease:
        raise UserError(f"the terms in the event of lease {event.lease} have the id {event.terms.lease}")
    # While it is challenged the chain keeps the tip at the accepted index, not at the claimed one.
    base = state.accepted if state.phase == Phase.CHALLENGED else state.claimed
    return LeaseFile(
        provider=event.terms.provider,
        nums=event.terms.nums,
        parties=event.terms.parties,
        tip=event.tip,
        opened_block=event.at.block,
        opened_time=event.at.timestamp,
        ask=event.ask,
        base=base,
        base_tip=state.tip_hex,
        made=base,
        reported=base,
        accepted=state.accepted,
        settled=state.settled,
        goal="finished" if base == event.terms.nums.end else "training",
    )


def verified_job(chain: Chain, market: MarketClient, folder: LeaseFolder) -> Job:
    """Bid, JobSpec and rules of a lease, as the market gives them and the chain proves them.

    Raises MarketLied if they are not what the terms on chain commit to; Problem and Unreachable pass through.
    """
    file = folder.file
    said = market.lease(folder.lease)
    verify_lease(chain, said, file.as_event(folder.lease))
    return Job(bid=said.bid, spec=said.spec, rules=said.rules, verification=_verification(market, said.rules))


def _verification(market: MarketClient, rules: Rules) -> Verification | None:
    """What the rules commit to: it ships with this program, or the market shows it beside the rules.

    Raises Unwanted if nobody tells.
    """
    if rules.verification in BEFORE:
        return None
    if (known := BY_HASH.get(rules.verification)) is not None:
        return known
    for shown in market.info().rules:
        if shown.verification is not None and shown.verification.hash() == rules.verification:
            return shown.verification
    raise Unwanted(
        f"the market does not show the JSON that the lease's rules commit to, {rules.verification}: how it is audited, "
        "nobody can tell"
    )


class Unwanted(UserError):
    """A lease that this provider has said it does not want."""


def check_wanted(wants: Wants, job: Job, nums: Nums, standing: Standing) -> None:
    """Raises Unwanted if the lease is none that this provider takes. `standing`: of the client, by the chain."""
    recipe = job.spec.files[job.spec.recipe_path].sha256
    if reason := wants.objection(job.bid.client, recipe, nums.price * (nums.end - nums.start), standing):
        raise Unwanted(reason)


def check_fit(spec: JobSpec, have: AskResources, units_per_hour: int, disk_mb: int) -> None:
    """Raises Unfit or Failure("machine") if the job needs what this machine has not offered."""
    check_environment(spec.environment)
    need = spec.resources
    wants = [
        ("GPUs", need.gpus, have.gpus),
        ("MB of GPU memory", need.vram_mb if need.gpus else 0, have.vram_mb),
        ("MB of memory", need.memory_mb, have.memory_mb),
        ("work units an hour", need.units_per_hour, units_per_hour),
        ("MB of disk for its files", sum(ref.size for ref in spec.files.values()) >> 20, disk_mb),
    ]
    for what, needed, there in wants:
        if needed > there:
            raise Unfit(f"the job needs {needed} {what}; this machine offers {there}")
    if need.devices and have.device not in need.devices:
        raise Unfit(f"the job wants one of {', '.join(need.devices)}; this machine has {have.device!r}")
    if need.regions and have.region not in need.regions:
        raise Unfit(f"the job wants a machine in {' or '.join(need.regions)}; this one's is {have.region!r}")


def check_signed_units(counted: int, signed: int) -> None:
    """Raises Failure("units") if the job's work is more than its Bid says."""
    if counted > UNITS_TOLERANCE * signed:
        raise Failure(
            "units",
            f"the job's work is {counted} units a checkpoint by this worker's count, its Bid says {signed}",
            "`gpumarket recipe measure` counts them; sign a Bid with that number",
        )


def check_class(market: MarketClient, domain: Domain, file: LeaseFile, numerics: Mapping[str, Any]) -> None:
    """Raises Failure("machine") if what would be trained here is of another class than the lease's own Ask sells: an
    approver under audited rules rejects it, since no replay could tell of it. What the market does not show, is not
    held against this machine.
    """
    if file.audits is None or not file.ask:
        return
    found = to_hex(machine_class(numerics))
    try:
        told = sold_class(market.ask(file.ask), domain, file.ask)
    except UserError as error:
        log.warning("lease.ask_not_shown", ask=file.ask, problem=error.message)
        return
    if told is not None and found != told:
        raise Failure(
            "machine",
            f"this machine's numerics class is {found}, and the lease's Ask sells {told}: something of torch, its "
            "driver or its processor has changed",
            "measure it again: gpumarket provider register",
        )

"""The machine that comes nearest to what a waiting job wants: which, and by what it falls short, in numbers."""

from collections.abc import Callable, Collection, Iterable
from functools import cached_property

from contracts.api.bodies import JobOut, JobStatus
from market.auction.wait_reasons import is_wait_reason
from market.matching import AskOffer, BidOffer, Reason
from market.matching.classes import lowest_limit, obstacle
from market.matching.inputs import tick
from market.runtime.context import Context
from market.services.quoting.pricing import MOST_ORDERS, Offers

ID = 12  # characters of an id that are told


def explained(offers: Offers, job: JobOut) -> JobOut:
    """A job with the machine that comes nearest to it, if it waits for one. With very many orders it stays as it is."""
    if job.status is not JobStatus.PENDING or not is_wait_reason(job.reason):
        return job
    seen = offers.look()
    waiting = seen.bids.get(job.id)
    if waiting is None or len(seen.asks) > MOST_ORDERS:
        return job
    told = nearest_machine(offers.context, waiting.offer, [one.offer for one in seen.asks.values()])
    return job.model_copy(update={"nearest": told})


def nearest_machine(context: Context, bid: BidOffer, asks: Iterable[AskOffer]) -> str:
    """Names the Ask that comes furthest, and the first rule that it does not keep. "" if there is none."""
    short = tick(context.chain.decimals)
    found = [(ask, obstacle(bid, ask, short)) for ask in asks]
    stopped = [(ask, reason) for ask, reason in found if reason is not None]
    if not stopped or len(stopped) < len(found):  # one that nothing stops is taken, or goes to who pays more
        return ""
    furthest = max((reason for _, reason in stopped), key=lambda reason: reason.rank)
    ask = min((ask for ask, reason in stopped if reason is furthest), key=lambda one: _distance(one, furthest))
    told = _Told(context, bid, ask)
    return f"the nearest is ask {ask.id[:ID]} of {ask.provider[:ID]}, which {told.by(furthest)}"


def _distance(ask: AskOffer, reason: Reason) -> tuple[float, str]:
    """Less is nearer."""
    lot = ask.lot
    offered: dict[Reason, float] = {
        Reason.LOT: lot.gpus,
        Reason.VRAM: lot.vram_mb,
        Reason.MEMORY: lot.memory_mb,
        Reason.TIER: lot.tier,
        Reason.STAKE: ask.max_stake,
        Reason.SPEED: ask.units_per_hour,
        Reason.DEADLINE: ask.units_per_hour,
    }
    return -offered.get(reason, -ask.price_per_hour / ask.units_per_hour), ask.id


class _Told:
    """What one Ask says, and what a Bid wants of it."""

    def __init__(self, context: Context, bid: BidOffer, ask: AskOffer) -> None:
        self._context, self._bid, self._ask = context, bid, ask

    def by(self, reason: Reason) -> str:
        return self._sentences[reason]() if reason in self._sentences else "does not fit"

    @cached_property
    def _sentences(self) -> dict[Reason, Callable[[], str]]:
        bid, ask, needs, lot = self._bid, self._ask, self._bid.needs, self._ask.lot
        rules, some, tokens = self._rules, _some, self._context.chain.format_amount
        return {
            Reason.RULES: lambda: f"is under the rules {rules(lot.rules)}; the job's are {rules(needs.rules)}",
            Reason.LOT: lambda: f"sells {lot.gpus} GPUs at once; the job wants {needs.gpus}",
            Reason.ENVIRONMENT: lambda: f"has {some(lot.environments)}; the job wants {needs.environment}",
            Reason.DEVICE: lambda: f"has {lot.device!r}; the job wants {some(needs.devices)}",
            Reason.VRAM: lambda: f"has GPUs of {lot.vram_mb:,} MB; the job wants {needs.vram_mb:,} MB",
            Reason.MEMORY: lambda: f"has {lot.memory_mb:,} MB of memory; the job wants {needs.memory_mb:,} MB",
            Reason.REGION: lambda: f"is in {lot.region or 'a region not told'}; the job wants {some(needs.regions)}",
            Reason.TIER: lambda: f"is of tier {lot.tier}; the job wants {needs.tier}",
            Reason.HOSTS: lambda: f"fetches from {some(lot.hosts) or 'no host'}; files are at {some(needs.hosts)}",
            Reason.NUMERICS: lambda: f"has {lot.numerics or 'no'} numerics class; the job wants {some(needs.numerics)}",
            Reason.STAKE: lambda: f"locks {tokens(ask.max_stake)} at most; the job wants {tokens(bid.stake)}",
            Reason.SPEED: lambda: f"does {ask.units_per_hour:,} work units an hour; {bid.lowest_speed:,} are needed",
            Reason.DEADLINE: lambda: (
                f"does {ask.units_per_hour:,} work units an hour; the deadline needs {bid.deadline_speed:,}"
            ),
            Reason.WANTED: lambda: "refuses this client, this recipe, or so little pay for a lease",
            Reason.PROVIDERS: lambda: "is of a provider that the job does not name, or does not want",
            Reason.UNITS: lambda: "gave it back: its steps take more than the signed work; see `gpumarket job reprice`",
            Reason.RANGE: lambda: f"takes {tokens(ask.price_per_hour)} an hour, more than the auction can count with",
            Reason.PRICE: lambda: (
                f"takes {tokens(self._lowest + bid.fee)} per checkpoint, fee included; the job's max_price is "
                f"{tokens(bid.limit + bid.fee)}"
            ),
        }

    @property
    def _lowest(self) -> int:
        return lowest_limit(self._ask, self._bid.units, tick(self._context.chain.decimals))

    def _rules(self, hash: str) -> str:
        return repr(self._context.rule_set(hash).name)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")

"""What is on offer now, and what a job would cost on each machine."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from contracts.api.bodies import Page
from contracts.api.offers import JobOnMachine, OfferOut, OffersIn
from contracts.job.spec import JobSpec
from contracts.terms import AccountWord
from market.auction.order_book import StandingAsk
from market.matching import AskOffer, Needs, Reason
from market.matching.classes import lone_price, lowest_limit, obstacle
from market.matching.inputs import tick
from market.runtime.context import Context
from market.services.quoting.pricing import Offers, Pricing, invalid, is_open, pricing, rules_named
from market.store.paging import SCAN, Filling, decode_cursor, encode_cursor

WORK_BITS = 64


Place = tuple[int, int, int, str]  # in the list: whether it fits, how dear it is, how slow, the Ask's id


def list_offers(offers: Offers, body: OffersIn) -> Page[OfferOut]:
    """The cheapest work first; with a job, those that fit by what it costs there. Raises Problem."""
    context = offers.context
    job = None if body.job is None else _Job(pricing(offers, body.job), tick(context.chain.decimals))
    seen = job.priced.seen if job else offers.look()
    machines = _machines(seen.asks.values())
    _check_names(context, body, machines)
    places = {}
    for one in machines:
        if _is_asked_for(context, body, one.offer):
            place = context.unreadable.made_of("ask", one.offer.id, partial(_place, job, one.offer))
            if place is not None and (place[0] == 0 or body.misfits):
                places[place] = one
    cursor = None if body.after is None else decode_cursor(body.after, (int, int, int, str))
    left = sorted(place for place in places if cursor is None or list(place) > cursor)
    filling: Filling[OfferOut] = Filling(body.limit)
    shown: str | None = None  # the cursor of the last place that was looked at
    # The chain is asked about those only that may be shown.
    for at in range(0, min(len(left), SCAN), body.limit):
        some = left[at : at + body.limit]
        words = offers.accounts(places[place].offer.provider for place in some)
        for number, place in enumerate(some, at + 1):
            one = places[place]
            word = words[one.offer.provider]
            is_free = _is_free(one.offer, word, job.priced.bid.stake if job else 0)
            is_shown = is_open(one, word) and (is_free or not body.free)
            out = partial(_out, context, one.offer, is_free, job)
            shown_as = context.unreadable.made_of("ask", one.offer.id, out) if is_shown else None
            if not filling.takes(shown_as):
                return filling.page(shown)
            shown = encode_cursor(place)
            if number == SCAN:
                return filling.page(shown if number < len(left) else None)
    return filling.page(None)


@dataclass(frozen=True)
class _Job:
    priced: Pricing
    tick: int

    def reason(self, ask: AskOffer) -> Reason | None:
        return obstacle(self.priced.bid, ask, self.tick)

    def cost(self, ask: AskOffer) -> int:
        """Of all checkpoints, fees included, if nobody else wants the machine."""
        bid = self.priced.bid
        return (lone_price(ask, bid.units, self.tick) + bid.fee) * bid.rest

    def on(self, ask: AskOffer) -> JobOnMachine:
        bid, reason, cost = self.priced.bid, self.reason(ask), self.cost(ask)
        match = self.priced.match
        lasts, price = self.priced.duration(ask), cost // bid.rest
        return JobOnMachine(
            reason=None if reason is None else reason.name.lower(),
            lowest_limit=lowest_limit(ask, bid.units, self.tick) + bid.fee,
            price=price,
            cost=cost,
            seconds_per_checkpoint=lasts.seconds,
            seconds_basis=lasts.basis,
            per_hour=lasts.per_hour(price),
            seconds=lasts.seconds * bid.rest,
            likely=match is not None and _machine(match.ask) == _machine(ask),
        )


def _machine(ask: AskOffer) -> tuple[str, str, str, int]:
    """An Ask is made anew before the old one ends, and with another price when gas has another one."""
    return ask.provider, ask.lot.rules, ask.lot.device, ask.lot.gpus


def _machines(asks: Collection[StandingAsk]) -> list[StandingAsk]:
    """One Ask of each machine, the cheapest."""
    pages: dict[str, int] = {}
    for one in asks:
        pages[one.offer.provider] = max(one.page, pages.get(one.offer.provider, 0))
    found: dict[tuple[str, str, str, int], StandingAsk] = {}
    for one in asks:
        if one.page == pages[one.offer.provider]:  # those of earlier pages are cancelled
            known = found.setdefault(_machine(one.offer), one)
            if _dearness(one.offer) < _dearness(known.offer):
                found[_machine(one.offer)] = one
    return list(found.values())


def _dearness(ask: AskOffer) -> tuple[int, str]:
    """By price for a unit of work."""
    return (ask.price_per_hour << WORK_BITS) // ask.units_per_hour, ask.id


def _place(job: _Job | None, ask: AskOffer) -> Place:
    if job is None:
        return 0, _dearness(ask)[0], -ask.units_per_hour, ask.id
    if job.reason(ask) is None:
        return 0, job.cost(ask), -ask.units_per_hour, ask.id
    return 1, _dearness(ask)[0], -ask.units_per_hour, ask.id


def _is_asked_for(context: Context, body: OffersIn, ask: AskOffer) -> bool:
    lot = ask.lot
    return (
        (not body.devices or lot.device in body.devices)
        and (body.gpus is None or lot.size == Needs(lot.rules, "", body.gpus).size)
        and lot.vram_mb >= body.min_vram_mb
        and (not body.regions or lot.region in body.regions)
        and lot.tier >= body.min_tier
        and (body.environment is None or body.environment in lot.environments)
        and (body.rules is None or body.rules == context.rule_set(lot.rules).name)
        and ask.units_per_hour >= body.min_units_per_hour
        and (body.max_price_per_hour is None or ask.price_per_hour <= body.max_price_per_hour)
    )


def _check_names(context: Context, body: OffersIn, machines: Sequence[StandingAsk]) -> None:
    """Raises Problem for a name that no machine on offer has: more likely it is misspelt than sold out."""
    if body.rules is not None:
        rules_named(context, body.rules)
    environments = [body.environment] if body.environment else []
    for told in _unknown(machines, devices=body.devices, regions=body.regions, environment=environments):
        raise invalid(told)


def unknown_names(machines: Collection[StandingAsk], spec: JobSpec) -> list[str]:
    """What a job asks for by a name that none of the machines has."""
    wanted = spec.resources
    return list(_unknown(machines, devices=wanted.devices, regions=wanted.regions, environment=[spec.environment]))


def _unknown(machines: Collection[StandingAsk], **wanted: Sequence[str]) -> Iterator[str]:
    lots = [one.offer.lot for one in machines]
    known = {
        "devices": {lot.device for lot in lots},
        "regions": {lot.region for lot in lots} - {""},
        "environment": {name for lot in lots for name in lot.environments},
    }
    for field, names in wanted.items():
        for name in names if lots else ():
            if name not in known[field]:
                yield f"{field}: no machine on offer has {name!r}; {_nearest(name, known[field])}"


def _nearest(name: str, known: Collection[str]) -> str:
    by_lower = {one.lower(): one for one in sorted(known)}
    near = [one for one in by_lower if name.lower() in one] or get_close_matches(name.lower(), by_lower, n=1)
    if near:
        return f"did you mean {' or '.join(repr(by_lower[one]) for one in near[:3])}?"
    return f"there are: {', '.join(sorted(known)[:20]) or 'none'}"


def _is_free(ask: AskOffer, word: AccountWord, stake: int) -> bool:
    return word.active < ask.max_active and word.free >= stake


def _out(context: Context, ask: AskOffer, is_free: bool, job: _Job | None) -> OfferOut:
    lot = ask.lot
    return OfferOut(
        ask=ask.id,
        provider=ask.provider,
        rules=context.rule_set(lot.rules).name,
        device=lot.device,
        gpus=lot.gpus,
        vram_mb=lot.vram_mb,
        memory_mb=lot.memory_mb,
        environments=sorted(lot.environments),
        region=lot.region,
        hosts=sorted(lot.hosts),
        numerics=lot.numerics or None,
        tier=lot.tier,
        units_per_hour=ask.units_per_hour,
        price_per_hour=ask.price_per_hour,
        max_stake=ask.max_stake,
        max_checkpoints=ask.max_checkpoints,
        free=is_free,
        job=None if job is None else job.on(ask),
    )

"""Whether an epoch's result is the one that its orders, the chain and the coin give."""

from collections.abc import Iterator, Mapping

from contracts.api.epochs import EpochBid, EpochHeader
from contracts.types import from_hex
from market.matching import BidOffer, Book, Reason, clear
from market.matching.book import TradeClass
from market.matching.inputs import OfferReader, book_of, from_published
from market.matching.verifier import ClaimedMatch, lies
from market.verify.findings import Findings, Lie
from market.verify.history import Past
from market.verify.published import OrderSet, Published

Pairing = tuple[str, int, int]  # ask, its place, price per checkpoint


def rebuild_book(orders: OrderSet, past: Past) -> Book:
    """What the auction takes, from signed orders, the chain and the header. The orders must have been checked."""
    reader = OfferReader()
    timeouts = {rules.struct_hash(): rules.checkpoint_timeout for rules in orders.header.rules}
    bids = [_bid(reader, one, orders.header, timeouts.get(one.bid.rules), past) for one in orders.bids]
    asks = [reader.ask(one.id, one.ask, one.resources, past.tier(one.ask.provider)) for one in orders.asks]
    owners = {one.bid.client for one in orders.bids} | {one.ask.provider for one in orders.asks}
    return book_of(bids, asks, {owner: past.ledger.account(owner) for owner in owners})


def _bid(reader: OfferReader, one: EpochBid, header: EpochHeader, timeout: int | None, past: Past) -> BidOffer:
    leases = past.leases_of(one.id)
    own = {lease.id: lease.terms.provider for lease in leases}
    told = [one.report for one in header.failures if one.report.lease in own]
    avoid = {own[report.lease] for report in told}
    given_back_by = {own[report.lease] for report in told if report.kind == "units"}
    avoid |= {lease.terms.provider for lease in leases if lease.late or lease.reached == lease.terms.nums.start}
    reached = leases[-1].reached if leases else 0
    return reader.bid(
        one.id,
        one.bid,
        one.spec,
        timeout,
        reached=reached,
        avoid=avoid,
        given_back_by=given_back_by,
        wrong={lease.terms.provider for lease in leases if lease.convicted or lease.void},
        standing=past.standing(one.bid.client),
        now=header.time,
    )


def check_certificate(published: Published, book: Book) -> Findings:
    """That prices and matches prove each other."""
    prices: dict[TradeClass, int] = {}
    for one in published.prices:
        trade_class = from_published(one.of)
        if prices.setdefault(trade_class, one.price) != one.price:
            yield Lie(
                f"a class of {trade_class.lot.device} has two prices in epoch {published.epoch.number}: "
                f"{prices[trade_class]} and {one.price} ticks an hour"
            )
    claimed = [ClaimedMatch(one.bid, one.ask, one.place, one.price) for one in published.epoch.matches]
    for text in lies(book, prices, claimed, tick=published.orders.header.tick):
        yield Lie(text)


def check_coin(published: Published, book: Book) -> Findings:
    """That the coin has decided between equals, and prices are the least: cleared again it is the same."""
    assert published.epoch.seed is not None
    result = clear(book, from_hex(published.epoch.seed), published.orders.header.tick)
    afresh = {match.bid.id: (match.ask.id, match.place, match.price) for match in result.matches}
    yield from _compare({one.bid: (one.ask, one.place, one.price) for one in published.epoch.matches}, afresh)
    yield from _compare_reasons(published, book, result.reasons)


def _compare_reasons(published: Published, book: Book, afresh: Mapping[str, Reason]) -> Iterator[Lie]:
    """Why bids were left; but in a size that was not solved now, their reasons may be of when it was."""
    older = {from_published(one.of).lot.pool for one in published.prices if one.epoch != published.epoch.number}
    needs = {bid.id: bid.needs for bid in book.bids}
    for one in published.epoch.unmatched:
        reason = afresh.get(one.bid)
        if one.reason != reason and (one.bid not in needs or needs[one.bid].pool not in older):
            why = f"because {reason}" if reason else "for no reason"
            yield Lie(f"bid {one.bid} is said to be left because {one.reason}; cleared again it is left {why}")


def _compare(told: dict[str, Pairing], afresh: dict[str, Pairing]) -> Iterator[Lie]:
    for bid in sorted(told.keys() | afresh.keys()):
        was, should = told.get(bid), afresh.get(bid)
        if was != should:
            yield Lie(f"bid {bid} {_got(was)}; cleared again with the epoch's seed it {_got(should)}")


def _got(pairing: Pairing | None) -> str:
    if pairing is None:
        return "got no lease"
    ask, place, price = pairing
    return f"got ask {ask} (place {place}) at {price} a checkpoint"

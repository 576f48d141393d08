"""Whether what was opened on chain is what an epoch had matched, and why the rest was not."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from contracts.api.epochs import EpochAsk, EpochBid, MatchOut
from contracts.chain.events import Challenged, EpochPublished, Event, Opened, PageRaised, Withdrawn
from contracts.orders import Bid
from market.verify.findings import Findings, Lie, Note
from market.verify.history import BlockFacts, Node, Past
from market.verify.published import Published


@dataclass
class Openings:
    """The leases that a market opened between its commitment to an epoch and the one to the next."""

    published: Published
    committed: EpochPublished
    following: EpochPublished | None  # the next epoch of this market
    past: Past
    node: Node
    _senders: dict[str, str] = field(default_factory=dict)

    def check(self) -> Findings:
        epoch, seed_block = self.published.epoch, self.committed.at.block + 1
        matches = {(one.bid, one.ask): one for one in epoch.matches} if epoch.status == "cleared" else {}
        for event in self.opened:
            bid, price = event.terms.parties.bid, event.terms.nums.price
            name = f"lease {event.lease} (bid {bid}, ask {event.ask}, {price} a checkpoint)"
            where = f"after epoch {epoch.number} was published, in block {event.at.block}"
            match = matches.get((bid, event.ask))
            if match is None:
                yield Lie(f"{name} was opened {where}, but is no match of it")
            elif match.price != price:
                yield Lie(f"{name} was opened {where}, which matched it at {match.price}")
            elif event.at.block <= seed_block:
                yield Lie(
                    f"{name} was opened in block {event.at.block}, when the seed of epoch {epoch.number} was not known"
                )
            elif match.lease is not None and match.lease != event.lease:
                yield Lie(f"{name} was opened {where}, which names another lease of this match: {match.lease}")
        done = {(event.terms.parties.bid, event.ask) for event in self.opened}
        for pair, match in matches.items():
            if pair not in done:
                yield from self._unopened(match)

    @cached_property
    def opened(self) -> list[Opened]:
        """By this market, in the time that is this epoch's."""
        return [event for event in self._between if isinstance(event, Opened) and self._is_ours(event)]

    @cached_property
    def _between(self) -> list[Event]:
        start = _place(self.committed)
        end = _place(self.following) if self.following is not None else None
        return [one for one in self.past.after if start < _place(one) and (end is None or _place(one) < end)]

    def _is_ours(self, event: Opened) -> bool:
        """Orders that name a market are opened by it alone; the others by whoever sends the transaction."""
        market = self.published.orders.header.market
        if event.terms.parties.fee_to == market:
            return True
        ask = self._asks.get(event.ask)
        if ask is not None and ask.ask.matcher == market:
            return True
        transaction = event.at.transaction
        if transaction not in self._senders:
            self._senders[transaction] = self.node.sender(transaction)
        return self._senders[transaction] == market

    # ------------------------------------------------------------- what was not opened

    def _unopened(self, match: MatchOut) -> Findings:
        number = self.published.epoch.number
        name = f"bid {match.bid} and ask {match.ask} were matched in epoch {number}"
        if match.lease is not None:
            yield Lie(f"{name}, and lease {match.lease} is said to be theirs, but it was not opened by it")
            return
        bid, ask = self._bids.get(match.bid), self._asks.get(match.ask)
        if bid is None or ask is None:
            return  # then the match itself is a lie
        if not match.note and self.following is None and self.published.epoch.transaction is None:
            yield Note(f"{name}, and not opened yet")
        elif not self._hindered(bid, ask):
            why = f" ('{match.note}')" if match.note else ""
            yield Lie(f"{name}, but not opened{why}, although nothing had changed for either")

    def _hindered(self, bid: EpochBid, ask: EpochAsk) -> bool:
        """Whether the chain knows of anything that may have kept the escrow from opening the match."""
        end = self.following.at.timestamp if self.following is not None else self._newest.timestamp
        if end > bid.bid.valid_until or end > ask.ask.valid_until:
            return True
        leases = self.past.leases_of(bid.id)
        previous = leases[-1].id if leases else None
        matched = {(one.bid, one.ask) for one in self.published.epoch.matches}
        if any(_touches(event, bid.bid.client, ask.ask.provider, previous, matched) for event in self._since):
            return True
        if any(
            self.node.is_wallet(owner) and not self.node.is_signed(order, owner, signature)
            for order, owner, signature in (
                (bid.bid, bid.bid.client, bid.signature),
                (ask.ask, ask.ask.provider, ask.signature),
            )
        ):
            return True
        return previous is None and self._is_nonce_gone(bid.bid)

    @cached_property
    def _since(self) -> list[Event]:
        """What happened after the epoch's block, until its time was over."""
        end = _place(self.following) if self.following is not None else None
        return [one for one in self.past.after if end is None or _place(one) < end]

    def _is_nonce_gone(self, bid: Bid) -> bool:
        word = (self.node.accounts([bid.client]) or {}).get(bid.client)
        return word is not None and word.page == bid.page and bool(word.used >> bid.bit & 1)

    @cached_property
    def _newest(self) -> BlockFacts:
        newest = self.node.block()
        assert newest is not None
        return newest

    @cached_property
    def _bids(self) -> dict[str, EpochBid]:
        return {one.id: one for one in self.published.orders.bids}

    @cached_property
    def _asks(self) -> dict[str, EpochAsk]:
        return {one.id: one for one in self.published.orders.asks}


def _place(event: Event) -> tuple[int, int]:
    return event.at.block, event.at.log_index


def _touches(
    event: Event, client: str, provider: str, previous: str | None, matched: Collection[tuple[str, str]]
) -> bool:
    """Whether it may keep a lease between the two from being opened, after `previous`. `matched`: pairs that do not,
    since the auction leaves room for all of them.
    """
    parties = {client, provider}
    if isinstance(event, Withdrawn | PageRaised):
        return event.account in parties
    if isinstance(event, Challenged) and event.challenger in parties:
        return True
    if isinstance(event, Opened) and (event.terms.parties.bid, event.ask) not in matched:
        return not parties.isdisjoint((event.client, event.provider))
    return previous is not None and getattr(event, "lease", None) == previous

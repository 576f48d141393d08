"""What the epoch before proves of this one: sizes in which nobody could trade who could not trade then.

At the prices that an epoch leaves, no bid that it left would rather have a class than nothing, and no slot that it left
costs less than its class. Both stay true when others leave, and while deadlines come nearer: a bid fits ever fewer
classes. So only an order, a slot or a class that was not there *touches* its size.

It is otherwise where a bid avoids a provider, which comes into its reach when the others that it could pay leave. They
leave by being matched, or else that bid would have had one: so where there was a match, such a size is solved again.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from market.matching.book import BidKey, BidOffer, Book, Match, Prices, Reason, Rest, Resting, Size
from market.matching.lot_sizes import Offered, offered
from market.matching.reserve import reserve


def touched(book: Book, before: Resting | None = None) -> frozenset[Size]:
    """The sizes that `clear` would solve, whatever the seed: they have bids and slots, and something is new in them.

    `before` is the `resting` of the last epoch's Result. Orders that it matched are not in it, so that they touch their
    size if their lease was not opened. An id must always stand for the same signed order, and a bid's `left` not grow.
    """
    sizes = offered(reserve(book))
    return frozenset(size for size, now in sizes.items() if now.slots and is_touched(now, (before or {}).get(size)))


def is_touched(now: Offered, before: Rest | None) -> bool:
    if before is None or any(key(bid) not in before.bids for bid in now.bids):
        return True
    for trade_class, slots in now.slots.items():
        if trade_class not in before.prices:
            return True
        had = before.slots[trade_class]
        if any(n > had.get(ask, 0) for ask, n in Counter(slot.ask.id for slot in slots).items()):
            return True
    return False


def left_over(
    solved: Offered, matches: Collection[Match], prices: Prices, reasons: Mapping[str, Reason]
) -> Rest | None:
    """What a solved size leaves. None if even that must be solved again."""
    if matches and solved.avoids:
        return None
    sold = {(match.ask.id, match.place) for match in matches}
    return Rest(
        {key(bid): reasons[bid.id] for bid in solved.bids if bid.id in reasons},
        {
            trade_class: Counter(slot.ask.id for slot in slots if (slot.ask.id, slot.place) not in sold)
            for trade_class, slots in solved.slots.items()
        },
        prices,
    )


def key(bid: BidOffer) -> BidKey:
    return bid.id, bid.rest, bid.standing

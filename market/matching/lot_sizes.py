"""What an epoch offers: each size's bids, and its slots by class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from market.matching.book import BidOffer, Lot, Size, TradeClass
from market.matching.classes import class_bounds, rounded
from market.matching.reserve import Reserved, Slot


@dataclass(frozen=True, slots=True)
class Offered:
    """In one size. Nothing here is in an order that means anything."""

    bids: list[BidOffer] = field(default_factory=list)
    slots: Mapping[TradeClass, list[Slot]] = field(default_factory=dict)
    taken: Mapping[TradeClass, list[Slot]] = field(default_factory=dict)  # likewise, as they would be if they were free

    @property
    def avoids(self) -> bool:
        """Whether a bid would rather not have some provider."""
        return any(bid.avoid for bid in self.bids)


def offered(reserved: Reserved) -> dict[Size, Offered]:
    """Each size in which a bid waits."""
    bids: dict[Size, list[BidOffer]] = {}
    for bid in reserved.bids:
        bids.setdefault(bid.needs.pool, []).append(bid)
    slots, taken = _by_size(reserved.slots), _by_size(reserved.taken)
    return {
        size: Offered(waiting, _by_class(waiting, slots.get(size, [])), _by_class(waiting, taken.get(size, [])))
        for size, waiting in bids.items()
    }


def _by_size(slots: Iterable[Slot]) -> dict[Size, list[Slot]]:
    found: dict[Size, list[Slot]] = {}
    for slot in slots:
        found.setdefault(slot.ask.lot.pool, []).append(slot)
    return found


def _by_class(bids: Sequence[BidOffer], slots: Sequence[Slot]) -> dict[TradeClass, list[Slot]]:
    """A provider that some bid tells apart has classes of its own."""
    apart = {provider for bid in bids for provider in bid.told_apart}
    lots: dict[int, Lot] = {}  # rounded, by the identity of an ask's, since many share one
    same: dict[Lot, Lot] = {}
    found: dict[tuple[object, ...], list[Slot]] = {}  # by numbers: to hash a lot for each slot takes long
    classes: dict[tuple[object, ...], TradeClass] = {}
    for slot in slots:
        ask = slot.ask
        if (lot := lots.get(id(ask.lot))) is None:
            lot = rounded(ask.lot)
            lot = lots[id(ask.lot)] = same.setdefault(lot, lot)
        provider = ask.provider if ask.provider in apart else ""
        limits = class_bounds(ask, slot.stake)
        key = (id(lot), limits, provider)
        if (members := found.get(key)) is None:
            members = found[key] = []
            classes[key] = TradeClass(lot, *limits, provider)
        members.append(slot)
    return {classes[key]: members for key, members in found.items()}

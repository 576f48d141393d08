"""The auction: pure functions from order books to matches. No I/O, no clock, no randomness."""

from market.matching.auction import clear
from market.matching.book import (
    AskOffer,
    BidOffer,
    Book,
    Lot,
    Match,
    Needs,
    Reason,
    Rest,
    Resting,
    Result,
    Size,
    TradeClass,
)  # fmt: skip
from market.matching.carry_over import touched

__all__ = [
    "AskOffer", "BidOffer", "Book", "Lot", "Match", "Needs", "Reason", "Rest", "Resting", "Result", "Size",
    "TradeClass", "clear", "touched",
]  # fmt: skip

"""The auction: pure functions from order books to matches. No I/O, no clock, no randomness."""

from market.matching.auction import clear
from market.matching.book import AskOffer, BidOffer, Book, Lot, Match, Needs, Reason, Result

__all__ = ["AskOffer", "BidOffer", "Book", "Lot", "Match", "Needs", "Reason", "Result", "clear"]

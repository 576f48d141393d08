"""The auction: pure functions from order books to matches. No I/O, no clock, no randomness."""

from market.matching.book import AskOffer, BidOffer, Book, Match, Reason, Result
from market.matching.greedy import clear

__all__ = ["AskOffer", "BidOffer", "Book", "Match", "Reason", "Result", "clear"]

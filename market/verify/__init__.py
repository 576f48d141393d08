"""Checks an epoch that a market has published against signatures, the chain and the auction's own certificate."""

from market.verify.verify import Checked, verify

__all__ = ["Checked", "verify"]

"""Every test of the worker here can take `stage_of`: whole markets, each with its own seconds."""

from tests.support.whole_market import stage_of

__all__ = ["stage_of"]

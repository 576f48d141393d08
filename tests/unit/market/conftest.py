"""Every test of the market here can take `world`: a market without a chain or sockets."""

from tests.support.offline_market import world

__all__ = ["world"]

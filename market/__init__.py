"""The market: collects signed orders, clears the auction, opens leases on chain."""

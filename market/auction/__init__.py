"""An epoch: which orders are in force, clearing them, opening the leases."""

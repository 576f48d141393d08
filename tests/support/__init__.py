"""What tests put on stage: a module for each kind of stage.

Fixtures that all tests of a folder can take are in its conftest.py; others are imported by name where they are taken.
Markets, from the least to the most of one: `offline_market` (no chain, no sockets), `stepped_market` (a real chain, and
each part called by hand), `served_market` (served, and only its indexer runs), `whole_market` (all of it runs, with an
approver and agents), `market_process` (`gpumarket market serve`). All their orders and messages are of `market_parts`.
"""

import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the checkout


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

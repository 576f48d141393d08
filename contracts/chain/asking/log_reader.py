"""Logs of a range of blocks, from a node that may limit ranges, answers and time, each in its own words."""

from collections.abc import Iterator
from typing import NamedTuple

from eth_typing import BlockNumber
from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import FilterParams, LogReceipt

from contracts.chain.asking.node import NodeRefused, Portion
from contracts.program.progress_bar import Watch, nobody

MOST_BLOCKS = 10_000  # asked for at once, where the node gives so many


class LogRange(NamedTuple):
    """All logs of blocks up to `end`, from where the range before it ended."""

    end: int
    logs: list[LogReceipt]


class LogReader:
    """Of one node. What it has learned of the node's limits holds for all who read; threads share it."""

    def __init__(self, w3: Web3) -> None:
        self._w3 = w3
        self._blocks = Portion(MOST_BLOCKS)

    def next_range(self, which: FilterParams, first: int, last: int) -> LogRange:
        """As many blocks from `first` on as the node gives at once, but none above `last`.

        `which`: addresses and topics. Raises NodeRefused if it does not even give one block; NodeSilent.
        """
        while True:
            end = min(last, first + self._blocks.size - 1)
            try:
                logs = self._w3.eth.get_logs({**which, "fromBlock": BlockNumber(first), "toBlock": BlockNumber(end)})
            except (Web3RPCError, NodeRefused) as error:
                if end == first:
                    raise _told(error, first) from error
                self._blocks.refused(end - first + 1, error)
            else:
                self._blocks.taken(end - first + 1)
                return LogRange(end, logs)

    def ranges(
        self, which: FilterParams, first: int, last: int, watch: Watch = nobody, what: str = "blocks searched"
    ) -> Iterator[LogRange]:
        """One after the other, until all blocks from `first` to `last` are read, both included. Raises as above."""
        at = first
        while at <= last:
            found = self.next_range(which, at, last)
            yield found
            at = found.end + 1
            watch(what, at - first, last - first + 1)

    def logs(self, which: FilterParams, first: int, last: int, watch: Watch = nobody) -> list[LogReceipt]:
        """All of them, in the chain's order. Raises as above."""
        return [log for found in self.ranges(which, first, last, watch) for log in found.logs]


def _told(error: Web3RPCError | NodeRefused, block: int) -> NodeRefused:
    """That it is the node, and not the size of a range."""
    said = error.message if isinstance(error, NodeRefused) else f"the Ethereum node says: {error.message or error}"
    return NodeRefused(
        f"the logs of a single block are refused: {said}",  # which one is no other trouble
        f"that was block {block}; use a node that gives logs (eth_getLogs) of all blocks since the deployment "
        "(docs/operations.md)",
        error.status if isinstance(error, NodeRefused) else 200,
        error.after if isinstance(error, NodeRefused) else None,
    )

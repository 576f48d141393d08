"""Follows the contracts' events block by block, through reorganisations of the chain.

The follower keeps nothing: where it stands is in a `BlockStore`, and each `poll` returns steps that its owner applies
there together with whatever it derives from the events (a database does both in one transaction). After a crash
between two steps the next poll goes on from the last one that was applied.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eth_typing import BlockNumber
from web3.exceptions import BlockNotFound, Web3RPCError
from web3.types import BlockData, FilterParams, LogReceipt

from contracts.chain.client import Chain
from contracts.chain.events import Event, decode
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS
from contracts.program.progress_bar import Watch, nobody
from contracts.types import to_hex

# This close to the head, each block is read by its hash: so a store always has the newest ones without a gap.
NEAR_BLOCKS = KEPT_BLOCKS
RANGE_BLOCKS = 10_000  # further away, so many are asked for at once, where the node gives them
STEPS_PER_POLL = 512


@dataclass(frozen=True)
class BlockRef:
    number: int
    hash: str
    parent: str


@dataclass(frozen=True)
class Block(BlockRef):
    """A block to apply. Far behind the head, blocks without events may be left out between two."""

    timestamp: int  # UTC seconds
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Rollback:
    """Blocks above `to_block` are not in the chain any more: undo what came from them."""

    to_block: int


Step = Rollback | Block


class BlockStore(Protocol):
    def recent(self) -> Sequence[BlockRef]:
        """The newest applied blocks, oldest first: KEPT_BLOCKS of them, or all if there are fewer."""


class MemoryStore:
    """A BlockStore for processes that start from the beginning, and for tests."""

    def __init__(self) -> None:
        self.blocks: list[BlockRef] = []

    def recent(self) -> Sequence[BlockRef]:
        return self.blocks

    def apply(self, step: Step) -> None:
        if isinstance(step, Rollback):
            self.blocks = [block for block in self.blocks if block.number <= step.to_block]
        else:
            self.blocks = [*self.blocks, step][-KEPT_BLOCKS:]


class HistoryLost(UserError):
    """The chain was replaced further back than the store remembers."""


class Follower:
    def __init__(
        self, chain: Chain, store: BlockStore, *, near: int = NEAR_BLOCKS, range_blocks: int = RANGE_BLOCKS
    ) -> None:
        """Starts at the settings' deploy_block. The epoch log's events are followed if the settings name one."""
        self.chain = chain
        self.store = store
        self.start = chain.settings.deploy_block
        self.near = near
        self.range_blocks = range_blocks
        self.addresses = [chain.escrow.address]
        if chain.settings.epoch_log is not None:
            self.addresses.append(chain.w3.to_checksum_address(chain.settings.epoch_log))

    def poll(self, until: int | None = None) -> list[Step]:
        """The next steps from where the store stands; none at the head, or at block `until` if the chain has that.
        Apply all, in order, before the next poll.

        Stops early if the chain changes meanwhile: then the next poll rolls back. Raises HistoryLost.
        """
        known = self.store.recent()
        head = self.chain.w3.eth.get_block("latest")
        if until is not None and until < head["number"]:
            head = self.chain.w3.eth.get_block(BlockNumber(until))
        if known and known[-1].hash == to_hex(head["hash"]):
            return []
        last = self._common_ancestor(known)
        steps: list[Step] = []
        if known and last is not known[-1]:
            steps.append(Rollback(last.number if last else self.start - 1))
        while len(steps) < STEPS_PER_POLL:
            following = last.number + 1 if last else self.start
            blocks = self._read(following, head["number"], last)
            if not blocks:
                break
            steps += blocks
            last = blocks[-1]
        return steps

    def _common_ancestor(self, known: Sequence[BlockRef]) -> BlockRef | None:
        """The newest known block that the chain still has; None: start from the beginning."""
        for block in reversed(known):
            header = self._header(block.number)
            if header is not None and to_hex(header["hash"]) == block.hash:
                return block
        if len(known) < KEPT_BLOCKS:
            return None  # the store remembers everything
        raise HistoryLost(
            "the node has another chain than the one followed so far: "
            f"they differ from block {known[0].number} or before",
            "if the node is right, what was derived from the chain must be made again from its start; "
            "for a market: stop it, and run `gpumarket market reindex`",
        )

    def _read(self, number: int, head: int, last: BlockRef | None) -> list[Block]:
        """The next blocks; none at the head, and none if the chain has just changed (the next poll sees how)."""
        if number > head:
            return []
        if head - number >= self.near:
            return self._read_range(number, min(number + self.range_blocks - 1, head - self.near))
        header = self._header(number)
        if header is None or (last is not None and to_hex(header["parentHash"]) != last.hash):
            return []
        try:
            logs = self._logs({"blockHash": header["hash"]})
        except Web3RPCError:
            again = self._header(number)
            if again is None or again["hash"] != header["hash"]:
                return []  # "unknown block": it has been replaced since
            raise
        return [self._block(header, logs)]

    def _read_range(self, first: int, end: int) -> list[Block]:
        """The blocks of a range that have events, and its last one."""
        end, logs = self.chain.logs.next_range({"address": self.addresses}, first, end)
        numbers = sorted({log["blockNumber"] for log in logs} | {end})
        blocks: list[Block] = []
        for number in numbers:
            header = self._header(number)
            own = [log for log in logs if log["blockNumber"] == number]
            if header is None or any(log["blockHash"] != header["hash"] for log in own):
                break
            blocks.append(self._block(header, own))
        return blocks

    def _header(self, number: int) -> BlockData | None:
        try:
            return self.chain.w3.eth.get_block(BlockNumber(number))
        except BlockNotFound:
            return None

    def _logs(self, which: FilterParams) -> list[LogReceipt]:
        return self.chain.w3.eth.get_logs({**which, "address": self.addresses})

    def _block(self, header: BlockData, logs: Iterable[Any]) -> Block:
        timestamp = int(header["timestamp"])
        ordered = sorted(logs, key=lambda log: log["logIndex"])
        events = tuple(event for event in (decode(log, timestamp) for log in ordered) if event is not None)
        return Block(header["number"], to_hex(header["hash"]), to_hex(header["parentHash"]), timestamp, events)


def read_events(chain: Chain, watch: Watch = nobody) -> list[Event]:
    """All of the escrow's and the epoch log's since the deployment, in order."""
    store = MemoryStore()
    follower = Follower(chain, store, near=0)
    events: list[Event] = []
    while steps := follower.poll():
        for step in steps:
            store.apply(step)
            if isinstance(step, Rollback):
                events = [event for event in events if event.at.block <= step.to_block]
            elif isinstance(step, Block):
                events += step.events
        watch("events of the chain", len(events))
    return events

"""The contracts' events as typed values. Pure: logs come in as web3 gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from eth_abi.abi import decode as abi_decode
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from contracts.chain import artifacts
from contracts.orders import Rules
from contracts.terms import Nums, Parties, Terms
from contracts.types import ZERO_HASH, to_hex


@dataclass(frozen=True)
class Place:
    """Where on the chain an event stands. (block_hash, log_index) is its id."""

    block: int
    block_hash: str
    log_index: int
    transaction: str
    timestamp: int  # of the block, UTC seconds


@dataclass(frozen=True)
class Event:
    at: Place


@dataclass(frozen=True)
class Deposited(Event):
    account: str
    sender: str
    amount: int


@dataclass(frozen=True)
class Withdrawn(Event):
    account: str
    to: str
    amount: int


@dataclass(frozen=True)
class PageRaised(Event):
    account: str
    page: int


@dataclass(frozen=True)
class Opened(Event):
    lease: str
    provider: str
    client: str
    ask: str  # the Ask's id
    terms: Terms
    tip: str  # at the lease's start


@dataclass(frozen=True)
class RulesUsed(Event):
    hash: str
    rules: Rules  # those that have no bits beyond their types: then they have this hash


@dataclass(frozen=True)
class Skipped(Event):
    index: int
    reason: int


@dataclass(frozen=True)
class Claimed(Event):
    lease: str
    n: int  # the newest claimed index
    roots: tuple[str, ...]


@dataclass(frozen=True)
class Approved(Event):
    lease: str
    n: int
    tip: str


@dataclass(frozen=True)
class Settled(Event):
    lease: str
    n: int


@dataclass(frozen=True)
class Ended(Event):
    lease: str
    by: str
    status: int


@dataclass(frozen=True)
class Challenged(Event):
    lease: str
    id: str
    challenger: str
    k: int
    accepted_tip: str
    claimed_root: str
    ground: int
    signed_tip: str  # where the signed Claim leads to; 0: the pending claim itself is disputed
    bond: int
    arbiter: str
    arbiter_fee: int


@dataclass(frozen=True)
class Resolved(Event):
    lease: str
    id: str
    verdict: int


@dataclass(frozen=True)
class Closed(Event):
    lease: str
    accepted: int
    penalty: int
    continuable: bool


@dataclass(frozen=True)
class EpochPublished(Event):
    market: str
    epoch: int
    order_set_root: str


class _Layout(NamedTuple):
    name: str
    indexed: list[str]
    data: list[str]
    order: list[tuple[bool, int]]  # of each parameter: whether it is indexed, and which of those it is


_TYPES: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Deposited, Withdrawn, PageRaised, Skipped, Claimed, Approved, Settled, Ended, Challenged, Resolved, Closed,
        EpochPublished,
    )
}  # fmt: skip


@cache
def _layouts() -> dict[bytes, _Layout]:
    found = {}
    for contract in ("Escrow", "EpochLog"):
        for item in artifacts.load_artifact(contract).abi:
            if item["type"] != "event" or not (item["name"] in _TYPES or item["name"] in ("Opened", "RulesUsed")):
                continue
            layout = _Layout(item["name"], [], [], [])
            types = [collapse_if_tuple(value) for value in item["inputs"]]
            for value, kind in zip(item["inputs"], types, strict=True):
                kinds = layout.indexed if value["indexed"] else layout.data
                layout.order.append((value["indexed"], len(kinds)))
                kinds.append(kind)
            found[keccak(f"{layout.name}({','.join(types)})".encode())] = layout
    return found


def topic_of(kind: type[Event]) -> str:
    """By which logs of this event are searched for."""
    return next(to_hex(topic) for topic, layout in _layouts().items() if layout.name == kind.__name__)


def decode(log: Mapping[str, Any], timestamp: int) -> Event | None:
    """The event of a log of the escrow or the epoch log; None if it is none of theirs.

    Ask the node only for logs of these contracts: the emitter is not looked at here.
    """
    topics = log["topics"]
    layout = _layouts().get(bytes(topics[0])) if topics else None
    if layout is None:
        return None
    indexed = [abi_decode([kind], bytes(topic))[0] for kind, topic in zip(layout.indexed, topics[1:], strict=True)]
    data = abi_decode(layout.data, bytes(log["data"]))
    values = [_plain((indexed if is_indexed else data)[at], kind) for (is_indexed, at), kind in _parameters(layout)]
    place = Place(
        log["blockNumber"], to_hex(log["blockHash"]), log["logIndex"], to_hex(log["transactionHash"]), timestamp
    )
    if layout.name == "Opened":
        return _opened(place, values)
    if layout.name == "RulesUsed":
        return RulesUsed(place, values[0], _rules(values[1]))
    return _TYPES[layout.name](place, *values)


def _parameters(layout: _Layout) -> list[tuple[tuple[bool, int], str]]:
    return [(place, (layout.indexed if place[0] else layout.data)[place[1]]) for place in layout.order]


def _opened(place: Place, values: list[Any]) -> Opened:
    lease, provider, client, ask, nums, ask_price, tip, words = values
    bid, job, prev, rules = (to_hex(word) for word in words[:4])
    _, approver, fee_to = (to_checksum_address(word) for word in words[4:7])
    parties = Parties(bid, job, prev, rules, client, approver, fee_to, words[7])
    terms = Terms(provider, Nums.unpack(nums, ask_price), parties)
    return Opened(place, lease, provider, client, ask, terms, tip)


def _rules(words: Sequence[Any]) -> Rules:
    arbiter, fee, arbiter_timeout, checkpoint_timeout, window, verification = words
    return Rules(
        arbiter=to_checksum_address(arbiter),
        arbiter_fee=fee,
        arbiter_timeout=arbiter_timeout,
        checkpoint_timeout=checkpoint_timeout,
        window=window,
        verification=to_hex(verification),
    )


def _plain(value: Any, kind: str) -> Any:
    """Hashes as 0x-hex, addresses with their checksum, arrays as tuples."""
    if kind.endswith("[]"):
        return tuple(_plain(item, kind[:-2]) for item in value)
    if isinstance(value, bytes):
        return to_hex(value)
    return to_checksum_address(value) if kind == "address" else value


def continued(event: Event) -> str | None:
    """The lease that one opened by this event continues."""
    if not isinstance(event, Opened) or event.terms.parties.prev == ZERO_HASH:
        return None
    return event.terms.parties.prev

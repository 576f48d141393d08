"""A lease's terms, its id, and the escrow's packed words. Pure; docs/protocol.md section 4."""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak

from contracts.types import from_hex, to_hex

MAX_PENDING = 1024  # checkpoints of a lease that may be claimed and not yet accepted


class Phase(IntEnum):
    NONE = 0
    ACTIVE = 1
    CLOSING = 2
    CLOSED = 3
    CHALLENGED = 4


class Flag(IntFlag):
    WAS_CLOSING = 0x08
    BY_CLIENT = 0x10
    LATE = 0x20
    MORE = 0x40  # the Bid goes on beyond this lease
    CLAIMED_IN_CLOSING = 0x80


class Verdict(IntEnum):
    """How a dispute ended, as `Resolved` says it."""

    SILENT = 0
    TRUE = 1
    FALSE = 2
    VOID = 3
    UNREPRODUCIBLE = 4
    WITHDRAWN = 5  # an Approval of the disputed checkpoint was redeemed

    @property
    def said(self) -> str:
        """In a word, as the API has it."""
        return self.name.lower()


class Nums(NamedTuple):
    """The numbers of a lease: two words on chain. It covers checkpoints start + 1 .. end."""

    start: int
    end: int
    window: int  # seconds
    timeout: int  # seconds
    price: int  # per checkpoint
    fee: int  # per checkpoint
    ask_price: int  # what the Ask itself wants for a checkpoint, rounded up: the most that silence costs

    def pack(self) -> int:
        """All but `ask_price`, which has a word of its own."""
        return _pack(self[:6], (16, 16, 32, 32, 96, 64))

    @classmethod
    def unpack(cls, word: int, ask_price: int) -> "Nums":
        start, end, window, timeout, price, fee = _unpack(word, (16, 16, 32, 32, 96, 64))
        return cls(start, end, window, timeout, price, fee, ask_price)


class Parties(NamedTuple):
    bid: str
    job: str
    prev: str
    rules: str
    client: str
    approver: str
    fee_to: str
    stake: int

    def hash(self) -> str:
        return to_hex(keccak(abi_encode(["bytes32"] * 4 + ["address"] * 3 + ["uint96"], self.abi())))

    def abi(self) -> tuple[Any, ...]:
        return (*(from_hex(word) for word in self[:4]), *self[4:7], self.stake)


@dataclass(frozen=True)
class Terms:
    """All that a lease id commits to."""

    provider: str
    nums: Nums
    parties: Parties

    @property
    def lease(self) -> str:
        words = abi_encode(
            ["address", "uint256", "uint96", "bytes32"],
            [self.provider, self.nums.pack(), self.nums.ask_price, from_hex(self.parties.hash())],
        )
        return to_hex(keccak(words))

    def abi(self) -> tuple[Any, ...]:
        return (self.provider, self.nums.pack(), self.nums.ask_price, self.parties.abi())


class AccountWord(NamedTuple):
    """An account's slot: free balance, live leases as provider, order page, used nonce bits of that page."""

    free: int
    active: int
    page: int
    used: int

    def pack(self) -> int:
        return _pack(self, (96, 16, 32, 112))

    @classmethod
    def unpack(cls, word: int) -> "AccountWord":
        return cls(*_unpack(word, (96, 16, 32, 112)))


class StateWord(NamedTuple):
    """A lease's slot."""

    status: int
    settled: int
    accepted: int
    claimed: int
    t: int
    tip: int

    @property
    def phase(self) -> Phase:
        return Phase(self.status & 7)

    @property
    def flags(self) -> Flag:
        return Flag(self.status & 0xF8)

    def synced(self, nums: Nums, now: float) -> "StateWord":
        """The state as the escrow's next call at `now` (UTC seconds) finds it, by StateLib.sync.

        A window that has passed accepts what was pending; and whoever was late to end a lease is so no more.
        """
        is_live = self.phase in (Phase.ACTIVE, Phase.CLOSING)
        if not is_live or self.claimed == self.accepted or now < self.t + nums.window:
            return self
        status = self.status & ~Flag.LATE if self.phase is Phase.CLOSING else self.status
        return self._replace(accepted=self.claimed, status=status)

    @property
    def tip_hex(self) -> str:
        return to_hex(self.tip.to_bytes(20, "big"))

    def pack(self) -> int:
        return _pack(self, (8, 16, 16, 16, 40, 160))

    @classmethod
    def unpack(cls, word: int) -> "StateWord":
        return cls(*_unpack(word, (8, 16, 16, 16, 40, 160)))


def _pack(values: tuple[int, ...], widths: tuple[int, ...]) -> int:
    word = 0
    for value, width in zip(values, widths, strict=True):
        if not 0 <= value < 1 << width:
            raise ValueError(f"{value} does not fit in {width} bits")
        word = word << width | value
    return word


def _unpack(word: int, widths: tuple[int, ...]) -> list[int]:
    values = []
    for width in reversed(widths):
        values.append(word & ((1 << width) - 1))
        word >>= width
    return values[::-1]

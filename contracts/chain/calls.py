"""Our types as the contracts' ABI takes them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from contracts.orders import Approval, Ask, Bid, Rules, SignedType
from contracts.terms import Terms
from contracts.types import ZERO_ADDRESS, ZERO_HASH, from_hex


def order_abi(order: SignedType) -> tuple[Any, ...]:
    """An order's or rules' fields in ABI order."""
    message = order.message()
    return tuple(from_hex(message[name]) if kind.startswith("bytes") else message[name] for kind, name in order.TYPE)


class SignedMatch(NamedTuple):
    """One matched pair, as `open` takes it."""

    bid: Bid
    ask: Ask
    price: int  # per checkpoint
    bid_signature: str
    ask_signature: str
    rules: int = 0  # index into the rules that come with the batch
    prev: Terms | None = None  # the Closed lease of the same Bid that this one continues

    def abi(self) -> tuple[Any, ...]:
        """Without the orders' rules, which the batch has: calldata costs."""
        prev = self.prev
        return (
            order_abi(self.bid.model_copy(update={"rules": ZERO_HASH})),
            order_abi(self.ask.model_copy(update={"rules": ZERO_HASH})),
            self.rules,
            self.price,
            prev.provider if prev else ZERO_ADDRESS,
            prev.nums.pack() if prev else 0,
            from_hex(prev.parties.prev) if prev else bytes(32),
            from_hex(self.bid_signature),
            from_hex(self.ask_signature),
            prev.nums.ask_price if prev else 0,
        )


class Redemption(NamedTuple):
    """An Approval to be paid by."""

    terms: Terms
    approval: Approval
    signature: str

    def abi(self) -> tuple[Any, ...]:
        approval = (self.approval.n, from_hex(self.approval.tip), self.approval.last)
        return (self.terms.abi(), approval, from_hex(self.signature))


def rules_abi(rules: Sequence[Rules]) -> list[tuple[Any, ...]]:
    return [order_abi(one) for one in rules]

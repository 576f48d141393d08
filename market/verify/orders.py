"""Whether the orders of an epoch's set are what was signed, and in force."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from contracts.api.bodies import ReceiptOut
from contracts.api.epochs import EpochAsk, EpochBid, EpochHeader
from contracts.orders import NONCE_BITS, Ask, Bid, Rules, SignedType, owner_of, recover
from contracts.program.progress_bar import Watch
from contracts.types import ZERO_ADDRESS, from_hex, to_hex
from market.verify.findings import Findings, Lie, Note
from market.verify.history import Node, Past
from market.verify.published import OrderSet, until

_POSITIVE = {
    Bid: ("checkpoints", "units", "max_price", "stake"),
    Ask: ("price_per_hour", "units_per_hour", "max_stake", "max_active", "max_checkpoints"),
}


@dataclass
class InForce:
    """Which orders count in an epoch: by what they say themselves, and by the chain up to the epoch's block."""

    header: EpochHeader
    past: Past

    @cached_property
    def _rules(self) -> Mapping[str, Rules]:
        return {rules.struct_hash(): rules for rules in self.header.rules}

    def objection(self, id: str, order: Bid | Ask, until: int) -> str | None:
        """Why an order does not count; None if it does. A Bid's nonce, which events don't tell, is not looked at."""
        time, page = self.header.time, self.past.ledger.account(owner_of(order)).page
        is_first = isinstance(order, Ask) or not self.past.leases_of(
            id
        )  # later leases of a Bid don't look at its nonce
        if order.matcher not in (ZERO_ADDRESS, self.header.market):
            return f"it names the matcher {order.matcher}"
        if any(getattr(order, field) == 0 for field in _POSITIVE[type(order)]):
            return "it has a 0 where 1 is the least"
        if until < time:
            return f"it ended at {until}, before {time}"
        if is_first and order.page != page:
            return f"it names page {order.page}, and its owner is at page {page}"
        return self._bids_objection(id, order) if isinstance(order, Bid) else self._asks_objection(order)

    def _asks_objection(self, ask: Ask) -> str | None:
        if ask.valid_from > self.header.time:
            return f"it begins at {ask.valid_from}, after {self.header.time}"
        return None

    def _bids_objection(self, id: str, bid: Bid) -> str | None:
        if bid.max_price <= bid.fee or (bid.fee and bid.matcher == ZERO_ADDRESS) or bid.bit >= NONCE_BITS:
            return "the escrow opens no lease with such terms"
        rules = self._rules.get(bid.rules)
        if rules is not None and bid.stake < rules.arbiter_fee:
            return f"its stake {bid.stake} does not cover the arbiter's fee {rules.arbiter_fee}"
        leases = self.past.leases_of(id)
        live = next((lease for lease in leases if lease.exit is None), None)
        if live is not None:
            return f"its lease {live.id} is live"
        if leases and not leases[-1].continuable:
            return f"nothing can follow its lease {leases[-1].id}"
        return None


def spent_elsewhere(bids: Mapping[str, Bid], past: Past, node: Node) -> dict[str, bool | None]:
    """Of Bids without a lease: whether another order had used their nonce by the end of the block. None: nobody can
    tell, as the node has forgotten how accounts were then.
    """
    fresh = {id: bid for id, bid in bids.items() if not past.leases_of(id) and id not in past.opened_later}
    owners = {bid.client for bid in fresh.values()}
    then = node.accounts(owners, past.block)
    if then is not None:
        return {id: bool(then[bid.client].used >> bid.bit & 1) for id, bid in fresh.items()}
    now = node.accounts(owners) or {}
    unused = {
        id for id, bid in fresh.items() if bid.page == (word := now[bid.client]).page and not word.used >> bid.bit & 1
    }
    return {id: False if id in unused else None for id in fresh}


def check_orders(orders: OrderSet, in_force: InForce, node: Node, watch: Watch) -> Findings:
    """That each order of the set is signed, what it is said to be, in force, and there once."""
    for id, count in Counter(one.id for one in orders.all).items():
        if count > 1:
            yield Lie(f"order {id} is {count} times in epoch {orders.number}")
    known = {rules.struct_hash() for rules in orders.header.rules}
    for done, one in enumerate(orders.all):
        watch("orders", done, len(orders.all))
        order = one.bid if isinstance(one, EpochBid) else one.ask
        name = f"{_kind(one)} {one.id} of epoch {orders.number}"
        digest = order.digest(node.domain)
        if digest != one.id:
            yield Lie(f"{name} is not what its id says: the order given has the id {digest}")
            continue
        yield from check_signature(name, order, owner_of(order), one.signature, node, digest)
        if isinstance(one, EpochBid):
            if (job := to_hex(one.spec.job_hash())) != one.bid.job:
                yield Lie(f"{name} signs the job {one.bid.job}, but the spec given has the hash {job}")
            if one.bid.rules not in known:
                yield Lie(f"{name} signs rules {one.bid.rules}, which the header does not have")
        elif (resources := one.resources.hash()) != one.ask.resources:
            yield Lie(f"{name} signs resources {one.ask.resources}, but those given have the hash {resources}")
        objection = in_force.objection(one.id, order, until(one))
        if objection is not None:
            yield Lie(f"{name} is not in force: {objection}")
        yield from check_receipt(name, one.id, order, one.receipt, orders.header.market, node)
    yield from _check_nonces(orders, in_force.past, node)


def _check_nonces(orders: OrderSet, past: Past, node: Node) -> Findings:
    spent = spent_elsewhere({one.id: one.bid for one in orders.bids}, past, node)
    for id, is_spent in spent.items():
        if is_spent:
            yield Lie(
                f"bid {id} of epoch {orders.number} can open no lease: another order has used its nonce by block "
                f"{past.block}"
            )
    if unknown := sum(one is None for one in spent.values()):
        yield Note(
            f"whether the nonces of {unknown} bids were used by other orders before block {past.block} can't be told: "
            "the node has forgotten accounts of that time"
        )


def check_signature(
    name: str, message: SignedType, signer: str, signature: str, node: Node, digest: str | None = None
) -> Findings:
    """`digest`: the message's, if it is known."""
    if recover(from_hex(digest or message.digest(node.domain)), from_hex(signature)) == signer:
        return
    if not node.is_wallet(signer):
        yield Lie(f"{name} is not signed by {signer}")
    elif not node.is_signed(message, signer, signature):
        yield Note(f"{name} is not signed by {signer}, as that contract says now; it may have said yes before")


def check_receipt(
    name: str, id: str, order: Bid | Ask, receipt: ReceiptOut | None, market: str, node: Node
) -> Findings:
    """The receipt of an order for any market may be of a former key of this one."""
    if receipt is None:
        return
    if receipt.receipt.order != id:
        yield Lie(f"the receipt of {name} is for the order {receipt.receipt.order}")
    elif order.matcher == market != receipt.receipt.signer(node.domain, receipt.signature):
        yield Lie(f"the receipt of {name} is not signed by the market {market}")


def _kind(one: EpochBid | EpochAsk) -> str:
    return "bid" if isinstance(one, EpochBid) else "ask"

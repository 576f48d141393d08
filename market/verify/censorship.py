"""Whether an epoch left out orders that its market had, and should have taken."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from contracts.api.epochs import (
    MAX_FAILURES,
    REFUSED_SECONDS,
    TELLING_KINDS,
    EpochHeader,
    LeftOut,
    LeftOutReason,
    MatchOut,
)
from contracts.chain.errors import ASKS_FAULT, Refusal
from contracts.finality import Finality, at_stake
from contracts.orders import FAILURES, Ask, Bid
from market.verify.findings import Findings, Lie, Note
from market.verify.history import Node, Past
from market.verify.orders import InForce, check_receipt, check_signature, spent_elsewhere
from market.verify.published import Lookup, OrderSet, Promise
from market.verify.rulings import UNAUDITED, Rulings

CLOCKS_DIFFER = 60  # seconds, at most, between the processes of one market
REFUSED_SLACK = 60  # seconds: the moment that an epoch counts from is a little before it is stored
_REFUSALS = {reason.sentence: reason for reason in Refusal}


def check_failures(header: EpochHeader, past: Past, node: Node) -> Findings:
    """That each report of a failure was signed by the provider of its lease."""
    digests = [one.report.digest(node.domain) for one in header.failures]
    if len(set(digests)) < len(digests):
        yield Lie(f"the header of epoch {header.number} tells a failure report twice")
    for one in header.failures:
        lease = past.ledger.leases.get(one.report.lease)
        name = f"the failure report of lease {one.report.lease} in the header of epoch {header.number}"
        if lease is None:
            yield Lie(f"{name} is of no lease that was opened by block {header.block}")
        elif one.report.kind not in TELLING_KINDS:
            yield Lie(f"{name} is none: its kind is {one.report.kind}")
        else:
            yield from check_signature(name, one.report, lease.terms.provider, one.signature, node)


@dataclass
class LeftOutOrders:
    """The orders that are not in an epoch's set, and that its market is known to have had."""

    orders: OrderSet
    in_force: InForce
    finality: Finality  # as the market says it now
    market: Lookup
    node: Node
    rulings: Rulings

    def check(self, promises: Iterable[Promise]) -> Findings:
        header, ids = self.orders.header, self.orders.ids
        number = header.number
        told = {one.order: one for one in header.left_out}
        if len(told) < len(header.left_out):
            yield Lie(f"the header of epoch {number} leaves an order out twice")
        for id in sorted(told.keys() & ids):
            yield Lie(f"order {id} is in epoch {number}, and said to be left out of it")
        missing: dict[str, Promise] = {}
        for promise in promises:
            if promise.id not in ids:
                missing.setdefault(promise.id, promise)
        for id in sorted(told.keys() - missing.keys() - ids):
            found = self.market.promise(id)
            if found is None:
                yield Note(f"order {id} was left out of epoch {number}, and the market does not tell what it was")
            else:
                missing[id] = found
        bids = {id: one.order for id, one in missing.items() if isinstance(one.order, Bid)}
        spent = spent_elsewhere(bids, self.past, self.node)
        for id, promise in sorted(missing.items()):
            yield from self._missing(promise, told.get(id), spent.get(id, False))

    @property
    def past(self) -> Past:
        return self.in_force.past

    def _missing(self, promise: Promise, told: LeftOut | None, spent: bool | None) -> Findings:
        number, name = self.orders.number, f"{_kind(promise.order)} {promise.id}"
        if promise.order.digest(self.node.domain) != promise.id:
            yield Lie(f"{name}, which {promise.whence}, is not what its id says")
            return
        if promise.receipt is not None:
            market = self.orders.header.market
            yield from check_receipt(name, promise.id, promise.order, promise.receipt, market, self.node)
        objection = self.in_force.objection(promise.id, promise.order, promise.until)
        if objection is not None or spent:
            return
        if told is not None:
            yield from self._reason(promise, told)
        elif promise.due > number:
            yield from self._put_off(name, promise)
        elif spent is None:
            yield Note(
                f"{name} {promise.whence}, and is not in epoch {number}; whether another order had used its nonce by "
                f"block {self.past.block} can't be told: the node has forgotten accounts of that time"
            )
        else:
            yield Lie(
                f"{name} {promise.whence}, and is in force at block {self.past.block}, "
                f"but it is not in epoch {number}, nor does the header say why"
            )

    def _put_off(self, name: str, promise: Promise) -> Findings:
        """An order that came before an epoch is promised that one."""
        assert promise.receipt is not None
        given, time = promise.receipt.receipt.time, self.orders.header.time
        if given + CLOCKS_DIFFER < time:
            yield Lie(
                f"{name} was accepted at {given}, and epoch {self.orders.number} counts from {time}, "
                f"but its receipt promises epoch {promise.due} only"
            )

    # ------------------------------------------------------------- reasons

    def _reason(self, promise: Promise, told: LeftOut) -> Findings:
        checks: Mapping[LeftOutReason, Callable[[Promise, LeftOut], str | None]] = {
            LeftOutReason.FINAL: self._not_final,
            LeftOutReason.FAILED: self._not_failed,
            LeftOutReason.UNREPRODUCIBLE: self._not_unreproducible,
            LeftOutReason.STOPPED_EARLY: self._not_begun,
            LeftOutReason.SILENT: self._not_silent,
            LeftOutReason.UNAUDITED: self._not_unaudited,
            LeftOutReason.RESERVE: self._not_unpaid,
            LeftOutReason.REFUSED: self._not_refused,
        }
        name = f"{_kind(promise.order)} {promise.id} was left out of epoch {self.orders.number} as '{told.reason}'"
        wrong = checks[told.reason](promise, told)
        if wrong is not None:
            yield Lie(f"{name}, but {wrong}")
        elif told.reason is LeftOutReason.STOPPED_EARLY:
            yield Note(f"{name}: whether its metrics say so is for its client to see")
        elif told.reason is LeftOutReason.RESERVE and isinstance(promise.order, Bid):
            approver = promise.order.effective_approver
            free = self.past.ledger.account(approver).free
            yield Note(f"{name}: at block {self.past.block} its approver {approver} had {free} free in the escrow")
        elif told.reason is LeftOutReason.SILENT and promise.receipt is None:
            yield Note(f"{name}: the ask has no receipt that says when the market received it")

    def _not_final(self, promise: Promise, told: LeftOut) -> str | None:
        leases = self.past.leases_of(promise.id)
        if not leases or told.lease != leases[-1].id:
            return f"{told.lease} is not the lease that it continues"
        lease, head = leases[-1], self.past.block
        value = at_stake(lease.terms.nums, lease.terms.parties.stake)
        changed = self.past.changed[lease.id]
        if not self.finality.is_final(changed, head, value):
            return None
        return (
            f"what happened to lease {lease.id} in block {changed} was {head - changed} blocks deep, and by the "
            f"market's own finality {self.finality.confirmations(value)} are enough"
        )

    def _not_failed(self, promise: Promise, told: LeftOut) -> str | None:
        leases = {lease.id: lease for lease in self.past.leases_of(promise.id)}
        index = max((lease.reached for lease in leases.values()), default=0) + 1
        reports = [one.report for one in self.orders.header.failures if one.report.kind in FAILURES]
        failed = {one.lease for one in reports if one.lease in leases and one.n == index}
        if len(failed) >= MAX_FAILURES:
            return None
        return (
            f"the header has reports of {len(failed)} leases that failed at checkpoint {index}, not of {MAX_FAILURES}"
        )

    def _not_begun(self, promise: Promise, told: LeftOut) -> str | None:
        return None if self.past.leases_of(promise.id) else "it never had a lease"

    def _not_silent(self, promise: Promise, told: LeftOut) -> str | None:
        lease = self.past.ledger.leases.get(told.lease or "")
        if not isinstance(promise.order, Ask) or lease is None or lease.terms.provider != promise.order.provider:
            return f"{told.lease} is no lease of an ask's provider"
        ended = self.past.late.get(lease.id)
        if ended is None:
            return f"lease {lease.id} was not ended for its provider's silence"
        if promise.receipt is not None and ended <= promise.receipt.receipt.block:
            return (
                f"lease {lease.id} ended in block {ended}, and the market received the ask after block "
                f"{promise.receipt.receipt.block}"
            )
        return None

    def _not_unaudited(self, promise: Promise, told: LeftOut) -> str | None:
        return self.rulings.objection_to_unaudited(promise)

    def _not_unreproducible(self, promise: Promise, told: LeftOut) -> str | None:
        return self.rulings.objection_to_end(promise)

    def _not_unpaid(self, promise: Promise, told: LeftOut) -> str | None:
        """It is for all that have that approver, or for none: whom to leave out is not the market's to choose."""
        audited = {rules.struct_hash() for rules in self.orders.header.rules if rules.verification not in UNAUDITED}
        bid = promise.order
        if not isinstance(bid, Bid) or bid.rules not in audited:
            return "it is no bid under audited rules"
        if bid.client == bid.effective_approver:
            return "its client is its own approver, who pays replays itself"
        for one in self.orders.bids:
            other = one.bid
            if other.rules in audited and other.client != other.effective_approver == bid.effective_approver:
                return f"bid {one.id}, whose replays the same approver pays, is in the epoch"
        return None

    def _not_refused(self, promise: Promise, told: LeftOut) -> str | None:
        header = self.orders.header
        epoch = self.market.epoch(told.epoch) if told.epoch is not None and told.epoch < header.number else None
        if epoch is None or epoch.header is None:
            return f"there is no earlier epoch {told.epoch}"
        if epoch.header.time < header.time - REFUSED_SECONDS - REFUSED_SLACK:
            return f"epoch {told.epoch} was {header.time - epoch.header.time} s before, more than {REFUSED_SECONDS}"
        if not any(_is_fault(promise, match) for match in epoch.matches):
            return f"epoch {told.epoch} tells of no refused match that was its fault"
        return None


def check_silent_stay_out(orders: OrderSet, past: Past) -> Findings:
    """That no ask counts whose provider has let a lease time out since the market received it."""
    silent: dict[str, tuple[int, str]] = {}
    for lease, block in past.late.items():
        provider = past.ledger.leases[lease].terms.provider
        silent[provider] = max(silent.get(provider, (0, "")), (block, lease))
    for ask in orders.asks:
        block, lease = silent.get(ask.ask.provider, (0, ""))
        if ask.receipt is not None and block > ask.receipt.receipt.block:
            yield Lie(
                f"ask {ask.id} is in epoch {orders.number}, though its provider let lease {lease} time out in block "
                f"{block}, after the market had received it (block {ask.receipt.receipt.block})"
            )


def _is_fault(promise: Promise, match: MatchOut) -> bool:
    """Whether a match was refused for what this order is, or its party."""
    refusal = _REFUSALS.get(match.note)
    if refusal is None or match.lease is not None:
        return False
    return promise.id == (match.ask if refusal in ASKS_FAULT else match.bid)


def _kind(order: Bid | Ask) -> str:
    return "bid" if isinstance(order, Bid) else "ask"

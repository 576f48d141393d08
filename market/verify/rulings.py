"""What rulings leave out of an epoch: whose work nobody audits, jobs that differ from themselves; and no others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from contracts.api.auditing.notes import AuditNoteIn, AuditNoteOut, RulingContent
from contracts.audits.levels import BEFORE, BY_HASH, UNCHECKED
from contracts.audits.unaudited import MOST, AuditedAsk, Ruled, alone, unaudited
from contracts.orders import Ask, Rules
from market.verify.findings import Findings, Lie
from market.verify.history import Node, Past
from market.verify.orders import check_signature
from market.verify.published import Lookup, OrderSet, Promise

CLOCKS_DIFFER = timedelta(seconds=60)  # at most, between the processes of one market
UNAUDITED = BEFORE | {UNCHECKED.hash()}  # what rules commit to under which nothing is replayed


@dataclass
class Rulings:
    """Rulings are counted as they had come when the epoch began, by the market's own clock; where that is too close to
    tell, either way may be right.
    """

    orders: OrderSet
    before: OrderSet | None
    past: Past
    market: Lookup
    node: Node
    rules: Iterable[Rules]  # that the market offers now
    started: datetime
    _rulings: dict[str, list[AuditNoteOut]] = field(default_factory=dict)

    def check(self) -> Findings:
        """That the rulings in the header are their approvers', and that no Ask stays in that they leave out."""
        header = self.orders.header
        yield from self._rulings_told("unaudited", header.unaudited)
        yield from self._rulings_told("unreproducible", header.unreproducible)
        yield from self._who_stays()

    def _rulings_told(self, ruling: str, told: Sequence[AuditNoteIn]) -> Findings:
        number = self.orders.header.number
        if len({(one.note.lease, one.note.content) for one in told}) < len(told):
            yield Lie(f"the header of epoch {number} tells a ruling twice")
        for one in told:
            lease = self.past.ledger.leases.get(one.note.lease)
            name = f"the ruling on lease {one.note.lease} in the header of epoch {number}"
            if lease is None:
                yield Lie(f"{name} is of no lease that was opened by block {self.past.block}")
            elif not isinstance(one.content, RulingContent) or one.content.ruling != ruling:
                yield Lie(f"{name} is none that says '{ruling}'")
            elif lease.terms.parties.rules in self._unchecked:
                yield Lie(f"{name} is of a lease under rules that promise no audit")
            else:
                yield from check_signature(name, one.note, lease.terms.parties.approver, one.signature, self.node)

    def objection_to_end(self, promise: Promise) -> str | None:
        """Why a Bid is not to be left out as one whose honest runs differ; None if it is."""
        bid, leases = promise.order, {lease.id: lease for lease in self.past.leases_of(promise.id)}
        rules = next((one for one in self._known if one.struct_hash() == bid.rules), None)
        verification = None if rules is None else BY_HASH.get(rules.verification)
        if bid.rules in self._unchecked or (verification is not None and verification.unreproducible != "end"):
            return "its rules end no job for that"
        told = (one for one in self.orders.header.unreproducible if one.note.lease in leases)
        if any(told) or any(lease.unreproducible for lease in leases.values()):
            return None
        return "the header has no ruling that says so of one of its leases, nor has an arbiter said it on chain"

    def objection_to_unaudited(self, promise: Promise) -> str | None:
        """Why an Ask is not to be left out as one whose work nobody audits; None if it is."""
        ask = promise.order
        if not isinstance(ask, Ask) or ask.rules in self._unchecked:
            return "it is no ask under audited rules"
        leases = self.past.ledger.leases
        shown = [one for one in self.orders.header.unaudited if self._provider(one) == ask.provider]
        if len(shown) < MOST or len({leases[one.note.lease].terms.parties.approver for one in shown}) > 1:
            return (
                f"the header has {len(shown)} rulings on its provider's work that show it, not {MOST} of one approver"
            )
        if (numerics := self._class_of(promise.id, ask)) is not None:
            for one in self.orders.asks:
                same = (one.ask.rules, one.resources.numerics or "") == (ask.rules, numerics)
                if numerics and same and one.ask.provider != ask.provider:
                    return f"ask {one.id} of the same class is in the epoch: its provider could audit it"
        if not any(self._as_ruled(ask.provider)):
            return "by the rulings that had come when the epoch began its provider's work is audited"
        return None

    def _who_stays(self) -> Findings:
        audited = {one.struct_hash() for one in (*self.orders.header.rules, *self.rules)} - self._unchecked
        offered = [
            AuditedAsk(one.id, one.ask.provider, one.ask.rules, one.resources.numerics or "")
            for one in self.orders.asks
            if one.ask.rules in audited
        ]
        lone = alone(offered)
        for ask in offered:
            if ask.id in lone and all(self._as_ruled(ask.provider, audited)):
                yield Lie(
                    f"ask {ask.id} is in epoch {self.orders.number}, though {MOST} checkpoints of its provider "
                    f"{ask.provider} were approved unaudited and none was audited since, and nobody else in the epoch "
                    "could audit it"
                )

    def _as_ruled(self, provider: str, rules: Iterable[str] | None = None) -> Iterator[bool]:
        """Whether nobody audits its work, by each state of the rulings that the epoch may have seen. `rules`: of
        leases that count; None: all that are not known to promise no audit.
        """
        leases, certain, later = self.past.ledger.leases, list[Ruled[AuditNoteOut]](), list[Ruled[AuditNoteOut]]()
        for out in self._rulings_on(provider):
            terms = leases[out.lease].terms.parties
            counts = terms.rules not in self._unchecked if rules is None else terms.rules in rules
            if counts and out.received <= self.started + CLOCKS_DIFFER:
                assert isinstance(out.content, RulingContent)
                is_certain = out.received < self.started - CLOCKS_DIFFER
                (certain if is_certain else later).append(Ruled(terms.approver, out.content.ruling, out))
        for count in range(len(later) + 1):
            yield bool(unaudited([*certain, *later[:count]]))

    def _rulings_on(self, provider: str) -> list[AuditNoteOut]:
        """Those that are their approvers', in the order in which they came."""
        if provider not in self._rulings:
            found = [one for one in self.market.rulings(provider) if self._provider(one) == provider]
            self._rulings[provider] = sorted(
                (one for one in found if not any(isinstance(it, Lie) for it in self._signature(one))),
                key=lambda one: one.id,
            )
        return self._rulings[provider]

    def _signature(self, one: AuditNoteOut) -> Findings:
        approver = self.past.ledger.leases[one.lease].terms.parties.approver
        if one.note.lease != one.lease or one.note.content != one.content.hash() or one.note.kind != "ruling":
            yield Lie(f"note {one.id} is not of its content")
        yield from check_signature(f"note {one.id}", one.note, approver, one.signature, self.node)

    def _provider(self, one: AuditNoteIn | AuditNoteOut) -> str | None:
        lease = self.past.ledger.leases.get(one.note.lease)
        return None if lease is None else lease.terms.provider

    def _class_of(self, id: str, ask: Ask) -> str | None:
        """Of the machine that an Ask sells; empty: it tells none; None: nobody shows it."""
        shown = self.before.asks if self.before is not None else ()
        resources = next((one.resources for one in shown if one.id == id), None) or self.market.resources(id)
        return resources.numerics or "" if resources is not None and resources.hash() == ask.resources else None

    @property
    def _unchecked(self) -> set[str]:
        return {one.struct_hash() for one in self._known if one.verification in UNAUDITED}

    @property
    def _known(self) -> tuple[Rules, ...]:
        return (*self.orders.header.rules, *self.rules)

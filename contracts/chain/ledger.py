"""The escrow's books as a fold of its events. Pure; docs/protocol.md sections 4 and 5.

It is the reference that an indexer, and `gpumarket reconcile`, are compared with; and it must equal the escrow's views.
Only the nonces that an account has used are not in the events.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from contracts.chain.events import (
    Approved,
    Challenged,
    Claimed,
    Closed,
    Deposited,
    Ended,
    Event,
    Opened,
    PageRaised,
    Resolved,
    Settled,
    Withdrawn,
)
from contracts.commitment import next_tip
from contracts.terms import Flag, Phase, StateWord, Terms, Verdict
from contracts.types import ZERO_ADDRESS, from_hex

REWARD_DIVISOR = 5
GONE = StateWord(0, 0, 0, 0, 0, 0)


class LedgerError(Exception):
    """An event that can't follow the ones before it: one is missing, or was applied twice."""


class Exit(StrEnum):
    COMPLETE = "complete"  # all of the lease is accepted and paid
    CLOSED = "closed"  # it stopped before


@dataclass
class Account:
    """What the escrow holds for an owner, and what it knows of it."""

    free: int = 0
    active: int = 0  # live leases as provider
    page: int = 0


@dataclass(frozen=True)
class Dispute:
    id: str
    challenger: str
    bond: int
    arbiter: str
    arbiter_fee: int
    k: int
    claimed_tip: int  # of what is pending


@dataclass
class LeaseView:
    """One lease: terms, the state as the escrow stores it, and the money that has moved."""

    id: str
    ask: str
    terms: Terms
    state: StateWord  # all zero once the escrow has forgotten it
    opened: int  # UTC seconds
    stake: int  # still held
    more: bool | None = None  # whether the Bid goes on beyond this lease; None until an event tells
    pending: tuple[str, ...] = ()  # roots from accepted + 1 to claimed
    accepted_tip: int = 0  # the tip at accepted, as long as something is pending
    dispute: Dispute | None = None
    exit: Exit | None = None
    last: StateWord = GONE  # the state in which its money was given out
    ended: int | None = None  # when it left Active, UTC seconds
    closed: int | None = None  # when its money was given out, UTC seconds
    continuable: bool = False  # Closed, and waiting for the next lease of the Bid
    late: bool = False  # it was ended because its provider was silent; stays when the flag is forgiven
    convicted: bool = False  # a challenge was found right
    void: bool = False  # a challenge was found right, of a recipe that may have been made so
    unreproducible: bool = False  # the arbiter's own runs differed
    paid: int = 0  # to the provider, for checkpoints
    fees: int = 0  # to the matcher
    refunded: int = 0  # of the lock, to the client
    penalty: int = 0  # of the stake, to the client
    burnt: int = 0  # of the stake, by a void

    def synced(self, now: int) -> StateWord:
        """The state as the next call would see it at `now`."""
        return self.state.synced(self.terms.nums, now)

    @property
    def settled(self) -> int:
        """Up to which checkpoint the provider was paid, also once the escrow has forgotten the lease."""
        return (self.last if self.exit else self.state).settled

    @property
    def reached(self) -> int:
        """Up to which checkpoint it is accepted, as it was stored; also once the escrow has forgotten the lease."""
        return (self.last if self.exit else self.state).accepted

    @property
    def held(self) -> int:
        """Lock, stake and bond that the escrow holds for this lease."""
        bond = self.dispute.bond if self.dispute else 0
        return self.lock + self.stake + bond

    @property
    def lock(self) -> int:
        """What is held of the client for checkpoints that are not paid."""
        nums = self.terms.nums
        return 0 if self.exit else (nums.price + nums.fee) * (nums.end - self.state.settled)

    def agrees(self, on_chain: StateWord) -> bool:
        """Whether the escrow's `state` view is this, but for the flag *more* while no event has told it."""
        unknown = 0 if self.more is not None else Flag.MORE
        return on_chain._replace(status=on_chain.status & ~unknown) == self.state


@dataclass
class Ledger:
    """Accounts and leases. What voids burnt is the balance of address 0."""

    accounts: dict[str, Account] = field(default_factory=dict)
    leases: dict[str, LeaseView] = field(default_factory=dict)

    def account(self, owner: str) -> Account:
        return self.accounts.setdefault(owner, Account())

    @property
    def held(self) -> int:
        """All that the escrow owes: its token balance must be at least this (invariant 1)."""
        free = sum(account.free for account in self.accounts.values())
        return free + sum(lease.held for lease in self.leases.values())

    def apply_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Applies the next event. Those that are not about balances or leases are ignored. Raises LedgerError."""
        match event:
            case Deposited():
                self.account(event.account).free += event.amount
            case Withdrawn():
                self._debit(event.account, event.amount)
            case PageRaised():
                self.account(event.account).page = event.page
            case Opened():
                self._open(event)
            case Claimed():
                self._claim(event)
            case Approved() | Settled():
                self._accept(event)
            case Ended():
                self._end(event)
            case Challenged():
                self._challenge(event)
            case Resolved():
                self._resolve(event)
            case Closed():
                self._close(event)

    # ---------------------------------------------------------------- leases

    def _open(self, event: Opened) -> None:
        terms = event.terms
        nums, parties = terms.nums, terms.parties
        if event.lease in self.leases:
            raise LedgerError(f"lease {event.lease} was opened twice")
        previous = self.leases.get(parties.prev)
        if previous is not None:
            previous.state = GONE
            previous.continuable = False
        self._debit(parties.client, (nums.price + nums.fee) * (nums.end - nums.start))
        self._debit(terms.provider, parties.stake)
        self.account(terms.provider).active += 1
        tip = int(event.tip, 16)
        state = StateWord(Phase.ACTIVE, nums.start, nums.start, nums.start, event.at.timestamp, tip)
        self.leases[event.lease] = LeaseView(
            event.lease, event.ask, terms, state, opened=event.at.timestamp, stake=parties.stake
        )

    def _claim(self, event: Claimed) -> None:
        lease = self._synced(event.lease, event.at.timestamp)
        s = lease.state
        if not lease.pending:
            lease.accepted_tip = s.tip
        lease.pending += event.roots
        tip = s.tip.to_bytes(20, "big")
        for root in event.roots:
            tip = next_tip(tip, from_hex(root))
        status = s.status | Flag.CLAIMED_IN_CLOSING if s.phase is Phase.CLOSING else s.status
        lease.state = s._replace(status=status, claimed=event.n, t=event.at.timestamp, tip=int.from_bytes(tip, "big"))

    def _accept(self, event: Approved | Settled) -> None:
        """Accepted up to n, and paid: by approval, or after a window."""
        lease = self._synced(event.lease, event.at.timestamp)
        s = lease.state
        if isinstance(event, Approved):
            s = self._approved(lease, event)
        if s.accepted != event.n:
            raise LedgerError(f"lease {lease.id} was settled up to {event.n}, but is accepted up to {s.accepted}")
        lease.state = s
        self._pay(lease)
        if event.n == lease.terms.nums.end:
            self._exit(lease, Exit.COMPLETE, event.at.timestamp, 0)

    def _approved(self, lease: LeaseView, event: Approved) -> StateWord:
        s, tip = lease.state, int(event.tip, 16)
        if event.n < s.claimed:  # in a dispute: what is beyond stays pending on top of it
            lease.pending, lease.accepted_tip = lease.pending[event.n - s.accepted :], tip
        else:
            lease.pending = ()
            s = s._replace(claimed=event.n)
            if s.phase is not Phase.CHALLENGED:
                s = s._replace(tip=tip)
            elif lease.dispute is not None:
                lease.dispute = replace(lease.dispute, claimed_tip=tip)
        s = s._replace(accepted=event.n)
        if s.phase is Phase.CHALLENGED:
            s = s._replace(tip=tip)
        if s.phase is Phase.ACTIVE:
            return s._replace(t=event.at.timestamp)
        was_active = s.phase is Phase.CHALLENGED and not s.status & Flag.WAS_CLOSING
        return s if was_active else s._replace(status=s.status & ~Flag.LATE)

    def _end(self, event: Ended) -> None:
        now = event.at.timestamp
        lease = self._synced(event.lease, now)
        if event.status == 0:
            lease.state = GONE
            lease.continuable = False
            return
        lease.more = bool(event.status & Flag.MORE)
        if lease.state.phase is not Phase.ACTIVE:  # the client wants no other lease to follow
            lease.state = lease.state._replace(status=event.status)
            return
        lease.state = lease.state._replace(status=event.status, t=now)
        lease.late = bool(event.status & Flag.LATE)
        lease.ended = now
        self.account(lease.terms.provider).active -= 1

    def _challenge(self, event: Challenged) -> None:
        # A signed Claim may be challenged when the window of what is pending has passed.
        lease = self._synced(event.lease, event.at.timestamp)
        s = lease.state
        self._debit(event.challenger, event.bond)
        lease.dispute = Dispute(
            event.id, event.challenger, event.bond, event.arbiter, event.arbiter_fee, event.k, s.tip
        )
        was = Flag.WAS_CLOSING if s.phase is Phase.CLOSING else 0
        lease.state = s._replace(
            status=(s.status & ~7) | Phase.CHALLENGED | was, t=event.at.timestamp, tip=int(event.accepted_tip, 16)
        )

    def _resolve(self, event: Resolved) -> None:
        lease = self._lease(event.lease)
        dispute = lease.dispute
        if dispute is None:
            raise LedgerError(f"lease {lease.id} was resolved, but not challenged")
        lease.dispute = None
        fee, bond, stake = dispute.arbiter_fee, dispute.bond, lease.stake
        arbiter, challenger = self.account(dispute.arbiter), self.account(dispute.challenger)
        provider = self.account(lease.terms.provider)
        match Verdict(event.verdict):
            case Verdict.TRUE:
                self._revive(lease, dispute, event.at.timestamp)
                arbiter.free += fee
                provider.free += bond - fee
            case Verdict.FALSE:  # `Closed` follows, and gives the rest of the stake to the client
                lease.convicted = True
                reward = (stake - fee) // REWARD_DIVISOR
                lease.stake -= fee + reward
                arbiter.free += fee
                challenger.free += bond + reward
            case Verdict.VOID:
                lease.void, lease.burnt, lease.stake = True, stake - fee, 0
                arbiter.free += fee
                self.account(ZERO_ADDRESS).free += stake - fee
                challenger.free += bond
            case Verdict.UNREPRODUCIBLE:
                lease.unreproducible = True
                arbiter.free += fee
                challenger.free += bond - fee
            case Verdict.WITHDRAWN:  # `Approved` follows
                self._revive(lease, dispute, event.at.timestamp)
                arbiter.free += fee
                challenger.free += bond - fee
            case Verdict.SILENT:
                challenger.free += fee
                provider.free += bond - fee

    def _revive(self, lease: LeaseView, dispute: Dispute, now: int) -> None:
        """As before the challenge; the window of what is pending restarts."""
        s = lease.state
        phase = Phase.CLOSING if s.status & Flag.WAS_CLOSING else Phase.ACTIVE
        status = (s.status & ~7 & ~Flag.WAS_CLOSING) | phase
        lease.state = s._replace(status=status, t=now, tip=dispute.claimed_tip)

    def _close(self, event: Closed) -> None:
        """The lease stopped before its end; or it is complete, and the Bid goes on."""
        now = event.at.timestamp
        lease = self._synced(event.lease, now)
        if lease.exit is None:
            s = lease.state
            if s.accepted != event.accepted:
                raise LedgerError(f"lease {lease.id} closed at {event.accepted}, but is accepted up to {s.accepted}")
            self._pay(lease)
            self._exit(lease, Exit.CLOSED, now, event.penalty)
        lease.continuable = event.continuable
        if event.continuable:
            n, s = event.accepted, lease.last
            lease.state = StateWord(Phase.CLOSED, n, n, n, s.t, s.tip)

    # ---------------------------------------------------------------- money

    def _pay(self, lease: LeaseView) -> None:
        """Pays what is accepted and not yet settled."""
        nums, parties = lease.terms.nums, lease.terms.parties
        count = lease.state.accepted - lease.state.settled
        lease.state = lease.state._replace(settled=lease.state.accepted)
        lease.paid += nums.price * count
        lease.fees += nums.fee * count
        self.account(lease.terms.provider).free += nums.price * count
        if nums.fee:
            self.account(parties.fee_to).free += nums.fee * count

    def _exit(self, lease: LeaseView, exit: Exit, now: int, penalty: int) -> None:
        """Gives out the rest of the lock, and the stake."""
        s, nums = lease.state, lease.terms.nums
        provider = self.account(lease.terms.provider)
        lease.refunded = (nums.price + nums.fee) * (nums.end - s.accepted)
        lease.penalty = penalty
        self.account(lease.terms.parties.client).free += lease.refunded + penalty
        provider.free += lease.stake - penalty
        lease.stake = 0
        if s.phase is Phase.ACTIVE or (s.phase is Phase.CHALLENGED and not s.status & Flag.WAS_CLOSING):
            provider.active -= 1
            lease.ended = now
        lease.exit, lease.closed, lease.pending = exit, now, ()
        lease.last, lease.state = s, GONE

    def _debit(self, owner: str, amount: int) -> None:
        account = self.account(owner)
        if amount > account.free:
            raise LedgerError(f"{owner} has {account.free} free, but {amount} leaves its account")
        account.free -= amount

    def _lease(self, lease: str) -> LeaseView:
        if lease not in self.leases:
            raise LedgerError(f"lease {lease} was never opened")
        return self.leases[lease]

    def _synced(self, lease: str, now: int) -> LeaseView:
        """The lease after what the escrow does first in most calls."""
        view = self._lease(lease)
        view.state = view.synced(now)
        if view.state.claimed == view.state.accepted:
            view.pending = ()
        return view

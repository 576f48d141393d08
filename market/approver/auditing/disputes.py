"""A claim that is wrong, questioned on chain: inside its window, or by the provider's signature before it is there."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from web3.contract.contract import ContractFunction

from contracts.api.bodies import ApprovalIn
from contracts.chain.client import Chain
from contracts.chain.events import Challenged, Resolved
from contracts.chain.lookup import TipsOnChain, accepted_tips, lease_events, pending_roots, tips_on_chain
from contracts.chain.sending.sender import Sender
from contracts.commitment import next_tip
from contracts.errors import UserError
from contracts.terms import Phase, StateWord, Verdict
from contracts.types import from_hex, to_hex
from market.approver.metrics import ApproverMetrics
from market.approver.signing import KnownLease

WRONG, WITHHELD = 0, 1  # grounds

log = structlog.get_logger()


class BondShort(UserError):
    """The approver's account can't bond a challenge that is due."""


@dataclass(frozen=True)
class Questioned:
    """A Claim that its provider signed, and what leads to it."""

    n: int
    tip: str
    signature: str
    roots: Mapping[int, str]  # of checkpoints up to n, as far as they are known
    ground: int = WRONG


@dataclass(frozen=True)
class LeaseOnChain:
    """A lease as the chain has it now."""

    state: StateWord
    found: TipsOnChain
    roots: Mapping[int, str]  # that are pending

    @property
    def pending(self) -> dict[int, str]:
        """Tips of what is claimed and not accepted."""
        return {n: tip for n, tip in self.found.tips.items() if self.state.accepted < n <= self.state.claimed}


class Disputes:
    def __init__(self, chain: Chain, sender: Sender, metrics: ApproverMetrics) -> None:
        self._chain, self._sender, self._metrics = chain, sender, metrics

    def look(self, lease: KnownLease) -> LeaseOnChain:
        state = self._chain.state(lease.id).synced(lease.event.terms.nums, self._chain.now())
        events = lease_events(self._chain, lease.id, lease.event.at.block)
        return LeaseOnChain(state, tips_on_chain(lease.event, events), pending_roots(events, state))

    def challenge(self, lease: KnownLease, one: Questioned, approval: ApprovalIn | None) -> bool:
        """Whether nothing is left to do: it was challenged, or can't be paid any more. False: it is to be tried again.

        The newest Approval is redeemed before, or in the dispute: what was approved is no part of it. Raises BondShort,
        and what the escrow refuses with.
        """
        found = self.look(lease)
        if _is_past(found.state, one) or (
            approval and (approval.approval.n, approval.approval.tip) == (one.n, one.tip)
        ):
            return True
        if found.state.phase is Phase.CHALLENGED:
            return self._is_mine(lease, one.n)  # of before this program was ended
        if approval and found.state.claimed <= approval.approval.n and found.state.accepted < approval.approval.n:
            self._send(
                lease, "redeem", self._chain.redeem(lease.event.terms, approval.approval, approval.signature),
                f"redeem {lease.id} {approval.approval.n}",
            )  # fmt: skip
            found = self.look(lease)
            if _is_past(found.state, one):
                return True
        call = self._call(lease, one, found)
        if call is None:
            log.warning("approver.no_challenge", lease=lease.id, n=one.n, tip=one.tip, why="it can't be paid any more")
            return True
        self._check_bond(lease, one, found.state)
        self._send(lease, "challenge", call, f"challenge {lease.id} {one.n} {one.tip} {one.ground} {found.state.t}")
        self._metrics.challenged.labels(self._sender.address).inc()
        log.warning("approver.challenged", lease=lease.id, n=one.n, tip=one.tip, ground=one.ground)
        if approval and approval.approval.n > found.state.accepted:
            terms, rules = lease.event.terms, lease.out.rules
            pending = _in_order(found.roots)
            redeem = self._chain.redeem_challenged(terms, rules, approval.approval, approval.signature, pending)
            self._send(lease, "redeem_challenged", redeem, f"redeem {lease.id} {approval.approval.n} in dispute")
        return True

    def _is_mine(self, lease: KnownLease, n: int) -> bool:
        """Whether the dispute that waits is this key's, of checkpoint n."""
        events = lease_events(self._chain, lease.id, lease.event.at.block)
        *_, newest = (event for event in events if isinstance(event, Challenged))
        return (newest.challenger, newest.k) == (self._sender.address, n)

    def upheld(self, lease: KnownLease) -> set[tuple[int, str]]:
        """Claims that the arbiter has found true, as checkpoint and root."""
        return self._upheld(lease, WRONG)

    def _upheld(self, lease: KnownLease, *grounds: int) -> set[tuple[int, str]]:
        asked, found = dict[str, tuple[int, str]](), set[tuple[int, str]]()
        for event in lease_events(self._chain, lease.id, lease.event.at.block):
            match event:
                case Challenged(id=id, k=k, claimed_root=root, ground=ground) if ground in grounds:
                    asked[id] = (k, root)
                case Resolved(id=id, verdict=Verdict.TRUE) if id in asked:
                    found.add(asked[id])
        return found

    def is_paid(self, lease: KnownLease, n: int, tip: str) -> bool:
        """Whether the chain has accepted this claim, and no arbiter has found it true. Of a lease that is over and
        forgotten by the escrow its events tell.
        """
        if accepted_tips(self._chain, lease.event).get(n) != tip:
            return False
        return all(m != n for m, _ in self._upheld(lease, WRONG, WITHHELD))

    def bond(self, lease: KnownLease, unjudged: int) -> int:
        """What a challenge may take: this is bounded for the lease's own approver."""
        terms = lease.event.terms
        return lease.out.rules.arbiter_fee + min(terms.nums.price * unjudged, terms.parties.stake)

    def _call(self, lease: KnownLease, one: Questioned, found: LeaseOnChain) -> ContractFunction | None:
        """None: it does not follow on what the chain has accepted, so it can't be paid, and not be questioned."""
        terms, rules, accepted = lease.event.terms, lease.out.rules, found.state.accepted
        accepted_tip, pending = found.found.tips[accepted], _in_order(found.roots)
        if found.pending.get(one.n) == one.tip:
            return self._chain.challenge(terms, rules, accepted_tip, pending, one.n, one.ground)
        roots = [one.roots[n] for n in range(accepted + 1, one.n + 1) if n in one.roots]
        tip = from_hex(accepted_tip)
        for root in roots:
            tip = next_tip(tip, from_hex(root))
        if to_hex(tip) != one.tip:
            return None
        return self._chain.challenge_signed(
            terms, rules, accepted_tip, pending, roots, one.n, one.signature, one.ground
        )

    def _check_bond(self, lease: KnownLease, one: Questioned, state: StateWord) -> None:
        count = max(state.claimed - state.accepted, one.n - state.accepted)
        needed, free = self.bond(lease, count), self._chain.account(self._sender.address).free
        if free < needed:
            raise BondShort(
                f"a challenge of checkpoint {one.n} of lease {lease.id} takes a bond of "
                f"{self._chain.format_amount(needed)}, and {self._sender.address} has "
                f"{self._chain.format_amount(free)} free in the escrow",
                f"deposit {self._chain.format_amount(needed - free)} before the claim's window is over",
            )

    def _send(self, lease: KnownLease, what: str, call: ContractFunction, key: str) -> None:
        self._sender.send(call, key=key)
        log.info("approver.sent", what=what, lease=lease.id)


def _is_past(state: StateWord, one: Questioned) -> bool:
    return state.phase not in (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED) or state.accepted >= one.n


def _in_order(roots: Mapping[int, str]) -> list[str]:
    return [roots[n] for n in sorted(roots)]

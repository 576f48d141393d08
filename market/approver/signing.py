"""What an approver signs, for leases whose terms it has read on chain; and what it remembers of that."""

from dataclasses import dataclass

import structlog
from eth_account.signers.local import LocalAccount

from contracts.api.bodies import ApprovalIn, CheckpointOut, LeaseOut, RejectionIn
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.chain.client import Chain
from contracts.chain.events import Opened
from contracts.chain.lookup import accepted_tips, opened, verify_lease
from contracts.errors import UserError
from contracts.orders import Approval, Claim, Rejection
from market.approver.memory import Memory, Signed
from market.approver.metrics import ApproverMetrics

log = structlog.get_logger()


@dataclass(frozen=True)
class KnownLease:
    """A lease whose terms were read on chain and compared with what the market says."""

    event: Opened
    out: LeaseOut

    @property
    def id(self) -> str:
        return self.event.lease

    @property
    def is_with_whom_it_may(self) -> bool:
        """Whether its provider is one whom the job names, or it names none: that is for the market to see to."""
        resources, provider = self.out.spec.resources, self.event.provider
        return provider not in resources.not_providers and provider in (resources.providers or [provider])


class Signing:
    """Of one key. Threads share it."""

    def __init__(
        self, market: MarketClient, chain: Chain, key: LocalAccount, memory: Memory, metrics: ApproverMetrics
    ) -> None:
        self._market, self._chain, self._key, self._memory, self._metrics = market, chain, key, memory, metrics
        self._known: dict[str, KnownLease] = {}

    def lease(self, id: str) -> KnownLease:
        """Raises UserError if it is not this key's to approve, or not what the chain has."""
        if id not in self._known:
            out = self._market.lease(id)
            event = opened(self._chain, id, near=out.opened_block)
            verify_lease(self._chain, out, event)
            if event.terms.parties.approver != self._key.address:
                raise UserError(f"lease {id} names {event.terms.parties.approver} as its approver, not this key")
            self._known[id] = KnownLease(event, out)
        return self._known[id]

    def provider_of(self, lease: str) -> str:
        """As far as it is known: the lease itself, before it was looked at."""
        known = self._known.get(lease)
        return lease if known is None else known.event.provider

    def reached(self, lease: KnownLease) -> Signed:
        """How far the lease is approved: by memory, or not at all."""
        return self._memory.recall(lease.id) or Signed(lease.event.terms.nums.start, lease.event.tip)

    def accepted_otherwise(self, lease: KnownLease, signed: Signed) -> Signed | None:
        """What the chain has accepted without this approver's word, beyond what it has signed or in place of that."""
        state = self._chain.state(lease.id)
        if state.accepted < max(signed.n, lease.event.terms.nums.start + 1):
            return None
        if (state.accepted, state.claimed, state.tip_hex) == (signed.n, signed.n, signed.tip):
            return None
        n, tip = max(accepted_tips(self._chain, lease.event).items())
        return None if (n, tip) == (signed.n, signed.tip) else Signed(n, tip)

    def approve(self, lease: KnownLease, signed: Signed) -> None:
        self._memory.remember(lease.id, signed)
        self._post_approval(lease, signed)
        self._metrics.approved.labels(self._key.address).inc()
        log.info("approver.approved", lease=lease.id, n=signed.n, last=signed.last)

    def approval(self, lease: KnownLease) -> ApprovalIn | None:
        """The newest that was signed; None: nothing of the lease."""
        signed = self._memory.recall(lease.id)
        return None if signed is None else self._signed_approval(lease, signed)

    def is_posted(self, lease: KnownLease, signed: Signed) -> bool:
        """Whether the market has the Approval, if there is one."""
        newest = self._market.lease(lease.id).approval
        return signed.n == lease.event.terms.nums.start or (newest is not None and newest.approval.n >= signed.n)

    def post_signed(self, lease: KnownLease, signed: Signed, reported: Claim) -> None:
        """An Approval that the market has not got. The Claim that was signed comes back by it, if it was replaced."""
        try:
            self._post_approval(lease, signed)
        except Problem as problem:
            if problem.code != Code.COMMITMENT_MISMATCH:
                raise
            raise UserError(
                f"checkpoint {signed.n} was approved with the tip {signed.tip}; its maker has put others in place of "
                f"that ({reported.n} is {reported.tip}), and two tips of one checkpoint are never signed",
                "its maker can hand the first one in again",
            ) from problem

    def reject(self, reported: CheckpointOut, problem: str) -> None:
        claim = reported.claim
        log.warning("approver.rejects", lease=claim.lease, n=claim.n, problem=problem)
        rejection = Rejection(lease=claim.lease, n=claim.n, tip=claim.tip, reason=problem[:500])
        signature = rejection.sign(self._chain.domain, self._key)
        self._market.post_rejection(RejectionIn(rejection=rejection, signature=signature))
        self._metrics.rejected.labels(self._key.address).inc()

    def _post_approval(self, lease: KnownLease, signed: Signed) -> None:
        self._market.post_approval(self._signed_approval(lease, signed))

    def _signed_approval(self, lease: KnownLease, signed: Signed) -> ApprovalIn:
        approval = Approval(lease=lease.id, n=signed.n, tip=signed.tip, last=signed.last)
        return ApprovalIn(approval=approval, signature=approval.sign(self._chain.domain, self._key))

"""What an approver tells the public of an audit: each word once, and again only after a restart."""

import time
from collections.abc import Iterator

from eth_account.signers.local import LocalAccount

from contracts.api.auditing.notes import (
    BatchContent,
    CommitmentContent,
    Content,
    DrawnClaim,
    ReplayContent,
    RulingContent,
    SecretContent,
    signed_note,
)
from contracts.api.client import MarketClient
from contracts.audits.cases import OWN, Ruling
from contracts.audits.draw import commitment
from contracts.chain.client import Chain
from contracts.types import to_hex
from market.approver.auditing.lease_audit import LeaseAudit


class Notes:
    def __init__(self, market: MarketClient, chain: Chain, key: LocalAccount) -> None:
        self._market, self._chain, self._key = market, chain, key
        self._told: set[tuple[str, str]] = set()  # lease, and hash of the content

    def commit(self, lease: str, secret: bytes) -> None:
        """Before its first Claim."""
        self._tell(lease, CommitmentContent(commitment=commitment(secret)))

    def publish(self, audit: LeaseAudit) -> None:
        """All that there is to tell so far."""
        for content in _contents(audit):
            self._tell(audit.id, content)

    def reveal(self, lease: str, secret: bytes) -> None:
        """When it is over."""
        self._tell(lease, SecretContent(secret=to_hex(secret)))

    def forget(self, lease: str) -> None:
        self._told = {(other, content) for other, content in self._told if other != lease}

    def _tell(self, lease: str, content: Content) -> None:
        if (lease, content.hash()) not in self._told:
            note = signed_note(lease, content, int(time.time()), self._chain.domain, self._key)
            self._market.post_audit_note(note)
            self._told.add((lease, content.hash()))


def _contents(audit: LeaseAudit) -> Iterator[Content]:
    decided = audit.audit
    for batch in decided.batches:
        claims = [DrawnClaim(n=one.n, tip=one.tip) for one in batch.claims]
        yield BatchContent(
            claims=claims,
            block=decided.claims[batch.claims[-1].n].block + 1,
            block_hash=batch.block,
            drawn=sorted(one.n for one in batch.claims if one.n in decided.drawn),
        )
    for n, case in sorted(decided.cases.items()):
        for auditor, answer in case.answers.items():
            ordered = audit.ordered.get((n, auditor))
            yield ReplayContent(
                n=n,
                auditor=None if auditor == OWN else auditor,
                job=None if ordered is None else ordered.body.bid.digest(audit.domain),
                outcome=answer.outcome,
                root=answer.root,
            )
        if case.ruling is not Ruling.OPEN:
            yield RulingContent.model_validate({"n": n, "ruling": case.ruling.value})

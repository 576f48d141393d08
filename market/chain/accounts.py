"""Accounts as of a followed block; the chain is asked again only for those that an event has touched since."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from contracts.chain.client import Chain
from contracts.chain.events import Challenged
from contracts.errors import UserError
from contracts.terms import AccountWord
from market.store.models import ChainBlock, ChainEvent, LeaseRow
from market.store.queries.events import Head

REORGANISED = ("a reorganisation of the chain came between", "it is tried again at once")


@dataclass
class FollowedAccounts:
    chain: Chain
    _words: dict[str, AccountWord] = field(default_factory=dict)
    _head: Head | None = None  # as of the end of which block they are

    def forget_changed(self, session: Session, head: Head) -> None:
        """Go on to block `head`, which the session's database knows as its newest."""
        before, self._head = self._head, head
        known = session.get(ChainBlock, before.number) if before else None
        if before is None or known is None or known.hash != before.hash:  # that was on another branch
            self._words.clear()
            return
        for owner in _touched(session, before.number):
            self._words.pop(owner, None)

    def of(self, owners: Iterable[str]) -> dict[str, AccountWord]:
        """Never call it inside a database session. Raises UserError if the block is gone meanwhile."""
        if self._head is None:  # another thread has found that out
            raise UserError(*REORGANISED)
        wanted = set(owners)
        missing = sorted(wanted - self._words.keys())
        found = dict(zip(missing, self.chain.accounts(missing, self._head.number), strict=True))
        if missing and self.chain.block_hash(self._head.number) != self._head.hash:
            self._head = None
            raise UserError(*REORGANISED)
        self._words |= found
        return {owner: self._words[owner] for owner in wanted}


def _touched(session: Session, after: int) -> set[str]:
    """Whose account an event of the blocks after that may have changed."""
    since = session.exec(select(ChainEvent.lease, ChainEvent.account).where(ChainEvent.block_number > after)).all()
    touched = {account for _, account in since if account is not None}
    leases = {lease for lease, _ in since if lease is not None}
    if leases:
        rows = session.exec(select(LeaseRow).where(col(LeaseRow.id).in_(leases))).all()
        touched |= {owner for row in rows for owner in (row.provider, row.client, row.fee_to)}
        disputes = select(ChainEvent.data).where(
            ChainEvent.name == Challenged.__name__, col(ChainEvent.lease).in_(leases)
        )
        touched |= {data[who] for data in session.exec(disputes) for who in ("challenger", "arbiter")}
    return touched

"""Accounts in the escrow, and the nonces that are left of them."""

from sqlmodel import select

from contracts.api.bodies import AccountOut
from contracts.orders import NONCE_BITS
from contracts.terms import AccountWord
from market.runtime.context import Context
from market.store.models import BidRow


def get_account(context: Context, address: str) -> AccountOut:
    word = context.account(address)
    return AccountOut(
        address=address,
        free=word.free,
        active=word.active,
        page=word.page,
        next_nonce=next_nonce(context, address, word),
    )


def next_nonce(context: Context, address: str, account: AccountWord) -> int | None:
    """The lowest that neither the chain nor a Bid at this market has used; None if the page has no more."""
    with context.db.reading() as session:
        bits = session.exec(select(BidRow.bit).where(BidRow.client == address, BidRow.page == account.page)).all()
    taken = set(bits) | {bit for bit in range(NONCE_BITS) if account.used >> bit & 1}
    free = next((bit for bit in range(NONCE_BITS) if bit not in taken), None)
    return None if free is None else account.page << 8 | free

"""The market's word that it will consider an order, and by which epoch."""

from typing import Any

from sqlalchemy import func
from sqlmodel import Session, select

from contracts.api.bodies import ReceiptOut
from contracts.orders import Receipt
from market.runtime.context import Context
from market.store.models import EpochRow


def sign_receipt(context: Context, session: Session, order: str) -> dict[str, Any]:
    """A ReceiptOut as JSON, for the order with this id. `session` must be the one that accepts the order.

    An epoch begins in such a session too, and they exclude each other: the next one has the order in its set.
    """
    if context.sender is None:
        raise RuntimeError("this process has no key to sign receipts with")
    newest = session.exec(select(func.max(EpochRow.number))).one() or 0
    receipt = Receipt(order=order, epoch=newest + 1, block=context.head.number, time=context.now())
    signature = receipt.sign(context.chain.domain, context.sender.account)
    return ReceiptOut(receipt=receipt, signature=signature).model_dump(mode="json", by_alias=True)

"""Receipts of a market for the orders of this machine, kept to show later what the market left out of its epochs.

home()/receipts/MATCHER/ORDER.json     one order as it was signed, and its receipt
"""

import contextlib
import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.api.bodies import AskIn, BidIn, ReceiptOut
from contracts.errors import UserError
from contracts.orders import Ask, Bid, Domain
from contracts.settings import home
from contracts.types import Signature
from contracts.wallet.keys import private_scratch

KEPT_SECONDS = 30 * 86_400  # after an order's end


class KeptReceipt(BaseModel):
    """An order of ours, and the market's word by which epoch it will have considered it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Bid | Ask
    signature: Signature  # the order's
    until: int  # UTC seconds: the last moment at which a lease may be opened by it
    receipt: ReceiptOut

    @property
    def id(self) -> str:
        return self.receipt.receipt.order


def keep_receipt(domain: Domain, matcher: str, posted: BidIn | AskIn, answer: ReceiptOut | None) -> None:
    """Check and keep the receipt of an order that was posted to the market of `matcher`.

    Deletes those of orders that ended long ago. Raises UserError if there is none, or it is worth nothing, or it can't
    be kept; the market has the order all the same.
    """
    if isinstance(posted, BidIn):
        order: Bid | Ask = posted.bid
        until = min(order.valid_until, posted.spec.deadline_time or order.valid_until)
    else:
        order, until = posted.ask, posted.ask.valid_until
    receipt = _checked(domain, matcher, order.digest(domain), answer)
    kept = KeptReceipt(order=order, signature=posted.signature, until=until, receipt=receipt)
    folder = _folder(matcher)
    path = folder / f"{kept.id}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with private_scratch(path, kept.model_dump(mode="json", by_alias=True)) as scratch:
            os.replace(scratch, path)
        _forget_old(folder)
    except OSError as error:
        raise UserError(f"can't keep the market's receipt as {path}: {error.strerror}", "make room there") from error


def load_receipts(matcher: str) -> list[KeptReceipt]:
    """Those of a market's matcher that are kept here, by the order's id. Raises UserError for a file that is none."""
    return [_read(path) for path in sorted(_folder(matcher).glob("0x*.json"))]


def _folder(matcher: str) -> Path:
    return home() / "receipts" / matcher


def _checked(domain: Domain, matcher: str, order: str, answer: ReceiptOut | None) -> ReceiptOut:
    if answer is None:
        wrong = "the market gave no receipt for the order"
    elif answer.receipt.order != order:
        wrong = "the market's receipt is for another order"
    elif answer.receipt.signer(domain, answer.signature) != matcher:
        wrong = f"the market's receipt for the order is not signed by its matcher {matcher}"
    else:
        return answer
    raise UserError(
        wrong,
        "Nobody could show that this market passes the order over: ask its operator, or cancel and use another one.",
    )


def _read(path: Path) -> KeptReceipt:
    try:
        return KeptReceipt.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is no receipt that can be read", "move it away, or take it from a backup") from error


def _forget_old(folder: Path) -> None:
    """Agents post an Ask every few minutes: only files that may be old enough are read."""
    before = time.time() - KEPT_SECONDS
    for path in folder.glob("0x*.json"):
        # Another process may have deleted it just now; what can't be read is told to who reads it all.
        with contextlib.suppress(FileNotFoundError, UserError):
            if path.stat().st_mtime < before and _read(path).until < before:
                path.unlink(missing_ok=True)

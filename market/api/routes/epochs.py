"""Clearings of the auction, with all that is needed to check them."""

from typing import Annotated

from fastapi import APIRouter, Path

from contracts.api.bodies import Page
from contracts.api.epochs import ClassPrice, EpochAsk, EpochBid, EpochOut
from market.api.dependencies import DEFAULT, After, Limit, Market
from market.services import epochs

router = APIRouter(tags=["epochs"], prefix="/epochs")

Number = Annotated[int, Path(ge=0, lt=1 << 31)]


@router.get("")
def list_epochs(market: Market, after: After = None, limit: Limit = DEFAULT) -> Page[EpochOut]:
    """Newest first."""
    return epochs.list_epochs(market, after, limit)


@router.get("/{number}")
def get_epoch(market: Market, number: Number) -> EpochOut:
    return epochs.get_epoch(market, number)


@router.get("/{number}/bids")
def list_epoch_bids(market: Market, number: Number, after: After = None, limit: Limit = DEFAULT) -> Page[EpochBid]:
    """The Bids of its order set, as they were signed."""
    return epochs.list_epoch_bids(market, number, after, limit)


@router.get("/{number}/asks")
def list_epoch_asks(market: Market, number: Number, after: After = None, limit: Limit = DEFAULT) -> Page[EpochAsk]:
    """The Asks of its order set, as they were signed."""
    return epochs.list_epoch_asks(market, number, after, limit)


@router.get("/{number}/prices")
def list_epoch_prices(market: Market, number: Number, after: After = None, limit: Limit = DEFAULT) -> Page[ClassPrice]:
    """The prices of all classes that were in force after it."""
    return epochs.list_prices(market, number, after, limit)

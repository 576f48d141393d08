"""Clearings of the auction."""

from typing import Annotated

from fastapi import APIRouter, Path

from contracts.api.bodies import EpochOut, Page
from market.api.dependencies import DEFAULT, After, Limit, Market
from market.services import epochs

router = APIRouter(tags=["epochs"], prefix="/epochs")


@router.get("")
def list_epochs(market: Market, after: After = None, limit: Limit = DEFAULT) -> Page[EpochOut]:
    """Newest first."""
    return epochs.list_epochs(market, after, limit)


@router.get("/{number}")
def get_epoch(market: Market, number: Annotated[int, Path(ge=0, lt=1 << 31)]) -> EpochOut:
    return epochs.get_epoch(market, number)

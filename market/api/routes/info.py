"""What this market is, and accounts in its escrow."""

from fastapi import APIRouter

from contracts.api.bodies import AccountOut
from contracts.api.info import Info
from market.api.dependencies import AddressPath, Market
from market.services import accounts

router = APIRouter(tags=["market"])


@router.get("/info")
def get_info(market: Market) -> Info:
    """What to know before anything is signed."""
    return market.info()


@router.get("/accounts/{address}")
def get_account(market: Market, address: AddressPath) -> AccountOut:
    """An account as the chain has it now, and the nonce for its next Bid."""
    return accounts.get_account(market, address)

"""Leases of this market's jobs, as the chain has them."""

from typing import Annotated

from fastapi import APIRouter, Query

from contracts.api.bodies import LeaseOut, ListedLease, Page
from market.api.dependencies import DEFAULT, AddressQuery, After, HashPath, Limit, Market
from market.services import leases

router = APIRouter(tags=["leases"], prefix="/leases")


@router.get("")
def list_leases(
    market: Market,
    provider: AddressQuery = None,
    approver: AddressQuery = None,
    live: Annotated[
        bool | None, Query(description="true: only those that are not over, false: only those that are")
    ] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[ListedLease]:
    return leases.list_leases(market, provider, approver, live, after, limit)


@router.get("/{id}")
def get_lease(market: Market, id: HashPath) -> LeaseOut:
    return leases.get_lease(market, id)

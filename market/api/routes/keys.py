"""Encryption keys: to which keys of sealed jobs are sealed."""

from fastapi import APIRouter

from contracts.api.bodies import EncryptionKeyIn
from market.api.dependencies import AddressPath, Market
from market.api.json_bodies import JsonRoute
from market.services import sealing

router = APIRouter(tags=["keys"], prefix="/keys", route_class=JsonRoute)


@router.get("/{address}")
def get_key(market: Market, address: AddressPath) -> EncryptionKeyIn:
    """The newest that the account has signed."""
    return sealing.get_key(market, address)


@router.put("/{address}")
def put_key(market: Market, address: AddressPath, body: EncryptionKeyIn) -> EncryptionKeyIn:
    """Register an account's X25519 key. An older one than is known changes nothing; the newest is the answer."""
    return sealing.put_key(market, address, body)

"""Machines of several providers on offer, for tests of lists, prices and quotes."""

from typing import Any

from eth_account.signers.local import LocalAccount

from contracts.api.bodies import AskResources
from contracts.api.offers import OfferOut, OffersIn
from contracts.api.quotes import QuoteIn
from contracts.orders import new_account
from tests.support.market_parts import (
    CPU,
    RECIPE,
    make_ask,
    make_bid,
    signed_ask,
    signed_bid,
    upload,
)
from tests.support.offline_market import DOMAIN, RULES, World

GPU = CPU.model_copy(update={"device": "NVIDIA GeForce RTX 4090", "gpus": 1, "vram_mb": 24_000, "region": "eu-de"})
TOKEN = 1_000_000


def post(world: World, resources: AskResources = CPU, **changes: Any) -> LocalAccount:
    """An Ask of another provider; by default a token, and a second, for a million units."""
    provider = new_account()
    world.set_account(provider.address, free=100 * TOKEN)
    ask = make_ask(provider, world.context.matcher, RULES, resources, **changes)
    world.api.post_ask(signed_ask(ask, DOMAIN, provider, resources))
    return provider


def rival(world: World, max_price: int) -> None:
    """A Bid of another client for the same kind of machine."""
    client = new_account()
    world.set_account(client.address, free=100 * TOKEN)
    upload(world.context, client.address, RECIPE)
    bid = make_bid(client, world.context.matcher, RULES, world.spec, max_price=max_price)
    world.api.post_bid(signed_bid(bid, DOMAIN, client, world.spec))


def offers(world: World, **fields: Any) -> list[OfferOut]:
    return list(world.api.offers(OffersIn.model_validate(fields)))


def quote_in(world: World, **changes: Any) -> QuoteIn:
    fields = {
        "client": world.client.address,
        "spec": world.spec,
        "units": 1_000_000,
        "max_price": 2 * TOKEN,
        "stake": 20 * TOKEN,
    }
    return QuoteIn.model_validate(fields | changes)

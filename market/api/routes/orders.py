"""Asks, Bids, offers and quotes."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from contracts.api.bodies import AskIn, AskOut, BidIn, JobOut, OrderStatus, Page
from contracts.api.offers import OfferOut, OffersIn
from contracts.api.quotes import QuoteIn, QuoteOut
from market.api.dependencies import DEFAULT, AddressQuery, After, HashPath, KnownOffers, Limit, Market
from market.api.json_bodies import JsonRoute
from market.services import asks, bids
from market.services.quoting import offers, quotes

router = APIRouter(tags=["orders"], route_class=JsonRoute)


@router.post("/asks", status_code=201, responses={200: {"model": AskOut, "description": "It was stored before"}})
def post_ask(market: Market, body: AskIn, response: Response) -> AskOut:
    """Offer a machine. The same Ask again changes nothing."""
    out, is_new = asks.admit_ask(market, body)
    response.status_code = 201 if is_new else 200
    return out


@router.get("/asks")
def list_asks(
    market: Market,
    provider: AddressQuery = None,
    status: Annotated[OrderStatus | None, Query()] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[AskOut]:
    return asks.list_asks(market, provider, status, after, limit)


@router.get("/asks/{id}")
def get_ask(market: Market, id: HashPath) -> AskOut:
    return asks.get_ask(market, id)


@router.post("/bids", status_code=201, responses={200: {"model": JobOut, "description": "It was stored before"}})
def post_bid(market: Market, body: BidIn, response: Response) -> JobOut:
    """Submit a job. Its files must be uploaded first. The same Bid again changes nothing."""
    out, is_new = bids.admit_bid(market, body)
    response.status_code = 201 if is_new else 200
    return out


@router.post("/quote")
def quote(known: KnownOffers, body: QuoteIn) -> QuoteOut:
    """What a job would cost now, and the Bid to sign for it. Stores nothing."""
    return quotes.quote(known, body)


@router.post("/offers")
def list_offers(known: KnownOffers, body: OffersIn) -> Page[OfferOut]:
    """Machines on offer, and what a job would cost on each. Stores nothing."""
    return offers.list_offers(known, body)

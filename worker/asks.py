"""The provider's standing offer: short-lived Asks, made anew while the machine is free."""

import time

import structlog
from eth_account.signers.local import LocalAccount

from contracts.api.bodies import AskIn, Info
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.sender import Sender
from contracts.errors import UserError
from contracts.orders import Ask
from worker.offer import Offer
from worker.store import Store
from worker.trouble import Trouble

CLOCK_SLACK = 120  # seconds that the chain's clock may be behind this machine's

log = structlog.get_logger()


def make_ask(offer: Offer, provider: str, info: Info, page: int, chain_time: int) -> Ask:
    """The Ask that the offer comes to, in force from now on."""
    return Ask(
        provider=provider,
        matcher=info.matcher,
        resources=offer.resources.hash(),
        rules=offer.rules.struct_hash(),
        price_per_hour=offer.price_per_hour,
        units_per_hour=offer.units_per_hour,
        max_stake=offer.max_stake,
        max_active=offer.max_active,
        max_checkpoints=offer.max_checkpoints,
        valid_from=chain_time,
        # A chain without traffic lags behind the wall clock, which its next block takes over.
        valid_until=max(chain_time, int(time.time())) + offer.ask_seconds,
        page=page,
    )


def check_market(info: Info, chain: Chain, offer: Offer) -> None:
    """Raises UserError if the market works with another escrow, or no longer has the rules that were agreed to."""
    here = (chain.domain.chain_id, chain.domain.verifying_contract)
    if (info.chain_id, info.escrow) != here:
        raise UserError(
            f"the market works with escrow {info.escrow} on chain {info.chain_id}, "
            f"the settings name {here[1]} on chain {here[0]}",
            "set GPUMARKET_CHAIN_ID, GPUMARKET_ESCROW and GPUMARKET_TOKEN to the deployment you want to use",
        )
    if offer.rules.struct_hash() not in {one.hash for one in info.rules}:
        names = ", ".join(one.name for one in info.rules)
        raise UserError(
            f"the market no longer has the rules '{offer.rules_name}' that this provider agreed to",
            f"it has: {names}. Look at them, and register anew with --rules NAME",
        )


class StandingAsk:
    """Keeps one Ask in force while the agent wants work. Kept on disk: a restart must be able to withdraw it."""

    def __init__(
        self, offer: Offer, chain: Chain, sender: Sender, market: MarketClient, account: LocalAccount, store: Store
    ) -> None:
        self._offer, self._chain, self._sender, self._market = offer, chain, sender, market
        self._account, self._store = account, store
        self._trouble = Trouble(log.bind(provider=account.address))
        self._valid_until = int(store.read_state().get("ask_valid_until", 0))
        self._renew_at = 0.0  # monotonic; an Ask of before the restart may have named other terms

    def renew(self) -> None:
        """Posts a new Ask when the last one has half of its time left. What fails is tried again later."""
        if time.monotonic() < self._renew_at:
            return
        try:
            self._post()
        except UserError as error:
            self._trouble.at("ask", error.message)
            self._renew_at = time.monotonic() + min(5.0, self._offer.ask_seconds / 4)
        else:
            self._trouble.over("ask")
            self._renew_at = time.monotonic() + self._offer.ask_seconds / 2

    def _post(self) -> None:
        info = self._market.info()
        check_market(info, self._chain, self._offer)
        page = self._chain.account(self._account.address).page
        ask = make_ask(self._offer, self._account.address, info, page, self._chain.now())
        self._store.write_state(ask_valid_until=ask.valid_until)
        signature = ask.sign(self._chain.domain, self._account)
        posted = self._market.post_ask(AskIn(ask=ask, signature=signature, resources=self._offer.resources))
        self._valid_until = ask.valid_until
        log.info("ask.posted", ask=posted.id, status=posted.status, valid_until=ask.valid_until)

    def withdraw(self) -> None:
        """No new lease from now on: cancels the Ask on chain, if it is still in force. Raises UserError."""
        if self._valid_until + CLOCK_SLACK < time.time():
            return
        page = self._chain.account(self._account.address).page
        self._sender.send(self._chain.raise_page(page + 1))
        self._valid_until = 0
        self._store.write_state(ask_valid_until=0)
        log.info("ask.withdrawn", page=page + 1)

"""The provider's standing offer: short-lived Asks, made anew while the machine is free."""

import time

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.amounts import parse_amount
from contracts.api import receipts
from contracts.api.auditing.notes import RulingContent
from contracts.api.bodies import AskIn
from contracts.api.client import MarketClient
from contracts.api.grants import publish_key
from contracts.api.info import Info, RuleSet
from contracts.audits.unaudited import MOST, Ruled, unaudited
from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from contracts.clocks import REPORT_SECONDS, check_clocks
from contracts.errors import UserError
from contracts.orders import Ask
from contracts.program.logs import Trouble
from worker.agent.copies import PostedAsks
from worker.agent.gas import GasPrice, least_pay
from worker.lease.folder import Store
from worker.lease.schedule import LeaseTiming
from worker.settings import SETTINGS_FILE, MoneyRules, ProviderSettings

BACK_OFF_SECONDS = (30.0, 3600.0)  # first and longest
CLOCK_SLACK = 120  # seconds that the chain's clock may be behind this machine's

log = structlog.get_logger()


def make_ask(
    settings: ProviderSettings, provider: str, info: Info, page: int, chain_time: int, min_pay: int = 0
) -> Ask:
    """The Ask that the settings come to, in force from now on; for leases that pay `min_pay` at least."""
    return Ask(
        provider=provider,
        matcher=info.matcher,
        resources=settings.sold(min_pay).hash(),
        rules=settings.rules.struct_hash(),
        price_per_hour=settings.price_per_hour,
        units_per_hour=settings.units_per_hour,
        max_stake=settings.max_stake,
        max_active=settings.max_active,
        max_checkpoints=settings.max_checkpoints,
        valid_from=chain_time,
        # A chain without traffic lags behind the wall clock, which its next block takes over.
        valid_until=max(chain_time, int(time.time())) + settings.ask_seconds,
        page=page,
    )


def check_market_terms(info: Info, chain: Chain, settings: ProviderSettings) -> RuleSet:
    """The rules that the Ask is under, as the market shows them. Raises UserError if the market works with another
    escrow, no longer has those that were agreed to, shows another level of proof for them, or if they ask for more than
    the settings tell.
    """
    here = (chain.domain.chain_id, chain.domain.verifying_contract)
    if (info.chain_id, info.escrow) != here:
        raise UserError(
            f"the market works with escrow {info.escrow} on chain {info.chain_id}, "
            f"the settings name {here[1]} on chain {here[0]}",
            "set GPUMARKET_CHAIN_ID, GPUMARKET_ESCROW and GPUMARKET_TOKEN to the deployment you want to use",
        )
    if info.draining:
        raise Draining(info.successor)
    agreed = next((one for one in info.rules if one.hash == settings.rules.struct_hash()), None)
    if agreed is None:
        names = ", ".join(one.name for one in info.rules)
        raise UserError(
            f"the market no longer has the rules '{settings.rules_name}' that this provider agreed to",
            f"it has: {names}. Look at them, and register anew with --rules NAME",
        )
    agreed.check()
    if objection := settings.wants.objection_to_rules(agreed.level, agreed.most_unjudged):
        raise UserError(
            f"the rules '{agreed.name}' are not what [wants] in {SETTINGS_FILE} says: {objection}",
            "register with --rules and a name of another rule-set (gpumarket market show tells them), or want more",
        )
    if agreed.level != "unchecked" and settings.resources.numerics is None:
        raise UserError(
            f"the rules '{agreed.name}' are audited ({agreed.level}), and this machine's numerics class is not known: "
            "nobody could tell who can replay what it trains",
            "measure it: gpumarket provider register; or choose rules of the level 'unchecked' with --rules",
        )
    return agreed


def gas_today(chain: Chain, money: MoneyRules) -> GasPrice:
    """The node's price for gas, and what the owner says an ETH is worth."""
    worth = money.tokens_per_eth
    return GasPrice(int(chain.w3.eth.gas_price), parse_amount(worth, chain.decimals) if worth else None)


class Draining(UserError):
    """The market takes no Asks any more. Where to go next is its owner's to decide: another escrow may wait there."""

    def __init__(self, successor: str | None) -> None:
        where = f"and names {successor} as its successor" if successor else "and names no successor"
        super().__init__(
            f"the market drains: it takes no new orders, {where}",
            f"look at what it offers, and `gpumarket provider register --market {successor}`"
            if successor
            else "use another market; leases that live go on to their end",
        )


class CurrentAsk:
    """Keeps one Ask in force while the agent wants work. Kept on disk: a restart must be able to withdraw it."""

    def __init__(
        self,
        settings: ProviderSettings,
        chain: Chain,
        sender: Sender,
        market: MarketClient,
        account: LocalAccount,
        store: Store,
        posted: PostedAsks | None = None,
        own: PrivateKey | None = None,
    ) -> None:
        """`own`: the encryption key, which clients of sealed jobs must know to let this provider replay them."""
        self._own = own
        self._posted = posted or PostedAsks(store)
        self._settings, self._chain, self._sender, self._market = settings, chain, sender, market
        self._account, self._store = account, store
        self._trouble = Trouble(log.bind(provider=account.address))
        state = store.read_state()
        self._valid_until, self._page = int(state.get("ask_valid_until", 0)), int(state.get("ask_page", 0))
        self._renew_at = 0.0  # monotonic; an Ask of before the restart may have named other terms
        self._raised_to = 0  # page, by this process: what a node says may be older
        self._refused = 0  # leases in a row
        self._drained = 0  # times that the market said so, in a row
        self._not_before = 0.0  # monotonic
        self.problem = ""  # why the newest could not be posted

    @property
    def waits(self) -> str:
        """Why none is posted at the moment; empty if one is."""
        left = self._not_before - time.monotonic()
        return self.problem or (f"a lease was given back; the next Ask comes in {left:.0f} s" if left > 0 else "")

    @property
    def min_pay(self) -> int:
        """What the Asks that may still be matched have said."""
        return int(self._store.read_state().get("min_pay", 0))

    def renew(self) -> None:
        """Posts a new Ask when the last one has half of its time left. What fails is tried again later."""
        if time.monotonic() < max(self._renew_at, self._not_before):
            return
        try:
            self._post()
        except UserError as error:
            self.problem = error.message
            self._trouble.at("ask", error.message)
            pause = min(5.0, self._settings.ask_seconds / 4)
            if isinstance(error, Draining):  # that is not mended in a moment
                pause = min(BACK_OFF_SECONDS[0] * 2**self._drained, BACK_OFF_SECONDS[1])
                self.problem = f"{error.message}: {error.hint}"
                self._drained = min(self._drained + 1, 10)
            self._renew_at = time.monotonic() + pause
        else:
            self.problem, self._drained = "", 0
            self._trouble.over("ask")
            self._renew_at = time.monotonic() + self._settings.ask_seconds / 2

    def _post(self) -> None:
        info = self._market.info()
        check_clocks(time.time(), self._market.clock, most=REPORT_SECONDS)  # reports and uploads would be refused
        agreed = check_market_terms(info, self._chain, self._settings)
        page = max(self._raised_to, self._chain.account(self._account.address).page)
        min_pay = self._least_pay()
        ask = make_ask(self._settings, self._account.address, info, page, self._chain.now(), min_pay)
        # While the Ask before this one is in force, it binds as well.
        before = self.min_pay if self._valid_until > time.time() else min_pay
        self._page = max(self._page, page)
        self._store.write_state(ask_valid_until=ask.valid_until, ask_page=self._page, min_pay=min(before, min_pay))
        self._posted.note(ask.digest(self._chain.domain), ask.valid_until)
        signature = ask.sign(self._chain.domain, self._account)
        body = AskIn(ask=ask, signature=signature, resources=self._settings.sold(min_pay))
        posted = self._market.post_ask(body)
        self._valid_until = ask.valid_until
        log.info("ask.posted", ask=posted.id, status=posted.status, valid_until=ask.valid_until)
        self._store.write_state(no_lease=self._why_no_lease(agreed))
        if agreed.level != "unchecked" and self._own is not None:
            self._show_key(self._own)
        try:
            receipts.keep_receipt(self._chain.domain, info.matcher, body, posted.receipt)
        except UserError as error:  # the Ask is in force all the same
            self._trouble.at("receipt", f"{error.message}. {error.hint}")
        else:
            self._trouble.over("receipt")

    def _show_key(self, own: PrivateKey) -> None:
        try:
            publish_key(self._market, self._chain.domain, self._account, own)
        except UserError as error:  # then it replays no sealed jobs; all else goes on
            self._trouble.at("key", f"{error.message}. {error.hint}")
        else:
            self._trouble.over("key")

    def _why_no_lease(self, agreed: RuleSet) -> str:
        """Why the market may leave the Ask out, for `provider status`; empty if it does not."""
        if agreed.level == "unchecked":
            return ""
        try:
            notes = list(self._market.audit_notes(provider=self._account.address, kind="ruling"))
        except UserError as error:
            log.info("ask.rulings_not_told", problem=error.message)
            return ""
        domain = self._chain.domain
        rulings = [
            Ruled(out.note.signer(domain, out.signature) or "", out.content.ruling, out)
            for out in notes
            if isinstance(out.content, RulingContent)
        ]
        if not unaudited(rulings):
            return ""
        return (
            f"{MOST} of its checkpoints were approved unaudited, since nobody could replay them, and none was audited "
            f"since: under audited rules the market gives it no lease while nobody else of the numerics class "
            f"{self._settings.resources.numerics} sells under the rules '{agreed.name}'"
        )

    def _least_pay(self) -> int:
        """Raises UserError if at today's gas price no lease is worth its transactions."""
        times, timeout = self._settings.money.least_over_gas, self._settings.rules.checkpoint_timeout
        if not times:
            return 0
        gas = gas_today(self._chain, self._settings.money)
        redeem_every = LeaseTiming.of(timeout, redeem_every=self._settings.redeem_every).redeem_every
        least = least_pay(self._settings.price_per_hour, gas, redeem_every, times)
        if least is None:
            raise UserError(
                f"at {gas.wei / 1e9:.3g} gwei no lease pays {times:g} times its gas, however long it is",
                "wait for cheaper gas, or register with a higher price, or set a lower pay_over_gas in provider.toml",
            )
        return least

    def back_off(self) -> None:
        """A lease came that is not wanted, under an Ask of before or because the market does not heed Asks.

        Withdraws them all, and waits longer each time: else the next clearing gives it again. Raises UserError.
        """
        pause = min(BACK_OFF_SECONDS[0] * 2**self._refused, BACK_OFF_SECONDS[1])
        self._not_before = time.monotonic() + pause
        self.withdraw()
        self._refused = min(self._refused + 1, 10)
        log.warning("ask.backs_off", seconds=pause)

    def was_wanted(self) -> None:
        """A lease that is wanted has come to its end."""
        self._refused = 0

    def withdraw(self) -> None:
        """No new lease from now on: cancels the Ask on chain, if it is still in force. Raises UserError."""
        self._renew_at = 0.0
        if self._valid_until + CLOCK_SLACK >= time.time():
            self.revoke()

    def revoke(self) -> None:
        """Cancels all of this key's Asks on chain, whoever posted them. Raises UserError."""
        # A node that lags behind gives the page of before. To leave that would leave the Ask in force; and it was left
        # before, under the same key, so that nothing would be sent at all.
        page = max(self._page, self._chain.account(self._account.address).page) + 1
        self._sender.send(self._chain.raise_page(page), key=f"page {page}")
        self._valid_until, self._raised_to = 0, page
        self._store.write_state(ask_valid_until=0)
        log.info("ask.withdrawn", page=page)

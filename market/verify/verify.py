"""All checks of one epoch, in the order in which each can build on those before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from contracts.api import receipts
from contracts.api.client import MarketClient
from contracts.api.epochs import EpochOut
from contracts.api.info import Info
from contracts.chain.client import Chain
from contracts.chain.events import EpochPublished
from contracts.chain.follower import read_events
from contracts.errors import UserError
from contracts.finality import Finality
from contracts.orders import Rules
from contracts.program.progress_bar import Watch, nobody
from market.matching import Book
from market.verify import order_set
from market.verify.censorship import LeftOutOrders, check_failures, check_silent_stay_out
from market.verify.findings import Checked, Findings, Lie, Note
from market.verify.history import ChainNode, Node, Past, look_back
from market.verify.openings import Openings
from market.verify.orders import InForce, check_orders
from market.verify.published import Lookup, MarketSource, Promise, Published
from market.verify.result import check_certificate, check_coin, rebuild_book
from market.verify.rulings import Rulings


@dataclass(frozen=True)
class _Step:
    name: str
    count: int
    find: Callable[[], Findings]
    builds_on_orders: bool = False


def verify(
    client: MarketClient,
    chain: Chain,
    number: int,
    matcher: str | None = None,
    *,
    every: bool = False,
    watch: Watch = nobody,
) -> list[Checked]:
    """Check epoch `number`, up to the first lie or, with `every`, for all of them.

    `matcher`: whose epoch it must be; None: of who the market says it is. Raises UserError if it can't be checked.
    """
    info = client.info()
    _check_same_chain(info, chain)
    market, events = matcher or info.matcher, read_events(chain, watch)
    commitments = [one for one in events if isinstance(one, EpochPublished) and one.market == market]
    source = MarketSource(client, watch)
    epoch = source.epoch(number)
    committed = next((one for one in commitments if one.epoch == number), None)
    following = next((one for one in commitments if one.epoch > number), None)  # numbers only rise
    before = next((one for one in reversed(commitments) if one.epoch < number), None)
    if epoch is None:
        return [_unknown(number, committed)]
    if epoch.status in ("begun", "announced") and following is None:
        raise UserError(f"epoch {number} is not cleared yet: it is {epoch.status}", "Try again in a minute.")
    if epoch.header is None:
        return [_without_header(epoch, committed)]
    if matcher is None and epoch.header.market != market:
        raise UserError(
            f"epoch {number} is of the matcher {epoch.header.market}, but this market's is {market} now",
            f"If you know that it was this market's key before: --matcher {epoch.header.market}",
        )
    published = source.published(epoch, epoch.header, before.epoch if before else None)
    past = look_back(events, epoch.header.block)
    verifier = Verifier(
        published=published,
        finality=info.finality,
        market=market,
        before=before,
        committed=committed,
        following=following,
        past=past,
        lookup=source,
        node=ChainNode(chain),
        rules=[one.rules for one in info.rules],
        watch=watch,
    )
    return verifier.run(_kept(market), every)


def _kept(market: str) -> list[Promise]:
    """What the market has promised to who runs this."""
    found = []
    for one in receipts.load_receipts(market):
        due = one.receipt.receipt.epoch
        whence = f"has a receipt for epoch {due}"
        found.append(Promise(one.id, one.order, one.signature, one.until, one.receipt, whence, due))
    return found


def _check_same_chain(info: Info, chain: Chain) -> None:
    log = chain.settings.require("epoch_log")
    theirs, ours = (info.chain_id, info.escrow, info.epoch_log), (chain.domain.chain_id, chain.escrow.address, log)
    if theirs != ours:
        raise UserError(
            f"the market is at escrow {info.escrow} and epoch log {info.epoch_log} of chain {info.chain_id}, the "
            f"settings say {chain.escrow.address} and {log} of chain {chain.domain.chain_id}",
            "Set GPUMARKET_CHAIN_ID, GPUMARKET_ESCROW and GPUMARKET_EPOCH_LOG, if you trust the market's.",
        )


def _unknown(number: int, committed: EpochPublished | None) -> Checked:
    if committed is None:
        raise UserError(f"there is no epoch {number} at this market", "gpumarket epoch list")
    return Checked("commitment", 1, lies=[_hidden(committed).text])


def _without_header(epoch: EpochOut, committed: EpochPublished | None) -> Checked:
    if epoch.status == "cleared":
        raise UserError(
            f"epoch {epoch.number} has no header", "It is from before markets published what an epoch takes."
        )
    if committed is not None:
        return Checked("commitment", 1, lies=[_hidden(committed).text])
    return Checked("commitment", 1, notes=[order_set.never_committed(epoch).text])


def _hidden(committed: EpochPublished) -> Lie:
    return Lie(
        f"{committed.market} published epoch {committed.epoch} with the root {committed.order_set_root} in block "
        f"{committed.at.block}, but the market tells nothing of it"
    )


@dataclass
class Verifier:
    """An epoch's data, and what it is compared with."""

    published: Published
    finality: Finality  # of the market, as it says it now
    market: str
    before: EpochPublished | None  # commitments of the same market
    committed: EpochPublished | None
    following: EpochPublished | None
    past: Past
    lookup: Lookup
    node: Node
    rules: Sequence[Rules] = ()  # that the market offers now
    watch: Watch = nobody

    def run(self, kept: Sequence[Promise], every: bool) -> list[Checked]:
        """`kept`: what the market has promised to us."""
        checked: list[Checked] = []
        for step in self._steps(kept):
            if step.builds_on_orders and any(one.lies for one in checked):
                checked.append(Checked(step.name, 0, notes=["not checked, since something before it is not right"]))
                continue
            self.watch(step.name)
            one = Checked(step.name, step.count)
            checked.append(one)
            for finding in step.find():
                (one.lies if isinstance(finding, Lie) else one.notes).append(finding.text)
                if one.lies and not every:
                    return checked
        return checked

    def _steps(self, kept: Sequence[Promise]) -> list[_Step]:
        orders, epoch = self.published.orders, self.published.epoch
        cleared = epoch.status == "cleared"
        steps = [
            _Step("header", 1, self._header),
            _Step("commitment", 1, self._commitment),
            _Step("orders", len(orders.ids), lambda: check_orders(orders, self._in_force, self.node, self.watch)),
            _Step("left out", len(self._promises(kept)), lambda: self._left_out(kept)),
        ]
        if cleared:
            matches = len(epoch.matches)
            steps.append(_Step("prices", len(self.published.prices), self._certificate, builds_on_orders=True))
            steps.append(_Step("coin", matches, self._coin, builds_on_orders=True))
        if self.committed is not None:
            openings = Openings(self.published, self.committed, self.following, self.past, self.node)
            steps.append(_Step("openings", len(openings.opened), openings.check))
        return steps

    # ------------------------------------------------------------- steps

    def _header(self) -> Findings:
        epoch, header = self.published.epoch, self.published.orders.header
        if epoch.status in ("begun", "announced") and self.following is not None:
            yield Lie(
                f"epoch {epoch.number} is said to be {epoch.status}, but epoch {self.following.epoch} came after it"
            )
        yield from order_set.check_header(header, epoch.number, self.market, self.committed, self.node)

    def _commitment(self) -> Findings:
        epoch = self.published.epoch
        if self.committed is None and epoch.status == "abandoned":
            yield order_set.never_committed(epoch)
            return
        yield from order_set.check_root(self.published.orders, self.committed)
        if self.committed is None:
            return
        if epoch.status == "cleared":
            yield from order_set.check_seed(epoch, self.committed, self.node)
        else:
            yield from order_set.check_given_up(epoch, self.committed, self.node)

    def _left_out(self, kept: Sequence[Promise]) -> Findings:
        orders, before = self.published.orders, self.published.before
        yield from check_failures(orders.header, self.past, self.node)
        yield from check_silent_stay_out(orders, self.past)
        rulings = Rulings(orders, before, self.past, self.lookup, self.node, self.rules, self.published.epoch.started)
        yield from rulings.check()
        if before is not None and self.before is not None:
            yield from order_set.check_root(before, self.before)
        elif self.before is not None and self.lookup.epoch(self.before.epoch) is None:
            yield _hidden(self.before)
        elif self.before is not None:
            yield Note(
                f"the market has no orders of epoch {self.before.epoch}: nobody can tell if some of them are missing"
            )
        left_out = LeftOutOrders(orders, self._in_force, self.finality, self.lookup, self.node, rulings)
        yield from left_out.check(self._promises(kept))

    def _certificate(self) -> Findings:
        return check_certificate(self.published, self._book)

    def _coin(self) -> Findings:
        return check_coin(self.published, self._book)

    # ------------------------------------------------------------- what they take

    @cached_property
    def _in_force(self) -> InForce:
        return InForce(self.published.orders.header, self.past)

    @cached_property
    def _book(self) -> Book:
        return rebuild_book(self.published.orders, self.past)

    def _promises(self, kept: Sequence[Promise]) -> list[Promise]:
        """Orders that the market had. If its own data have another receipt than we do, it is ours that counts."""
        before = self.published.before
        found = {one.id: one for one in before.promises()} if before is not None else {}
        for ours in kept:
            found[ours.id] = replace(ours, due=0) if ours.id in found else ours
        return list(found.values())

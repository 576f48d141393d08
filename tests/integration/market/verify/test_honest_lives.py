"""Whatever happens to an honest market, no epoch of it is called a lie."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from eth_account.signers.local import LocalAccount

from contracts.api import receipts
from contracts.api.bodies import LeaseOut
from contracts.api.problems import Problem
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.errors import EscrowError
from contracts.chain.sending.sender import Sender
from market.auction import clearing
from market.verify.verify import verify
from tests.support.devnet import TOKEN, Funded, pass_time
from tests.support.market_parts import CPU, RECIPE, make_ask, make_bid, make_spec, signed_ask, signed_bid, upload
from tests.support.stepped_market import Lives, lives

GPU = CPU.model_copy(update={"device": "Test GPU", "gpus": 1, "vram_mb": 8000})


@dataclass
class Story:
    """Clients and providers who do as dice tell them."""

    market: Lives
    clients: list[LocalAccount]
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    nonces: Counter[str] = field(default_factory=Counter)

    def go_on(self) -> None:
        actions: list[tuple[Callable[[], None], int]] = [
            (self.bid, 6), (self.ask, 6), (self.clear, 8), (self.train, 6), (self.release, 3), (self.fail, 3),
            (self.silence, 1), (self.cancel, 1), (self.withdraw, 2), (self.deposit, 2),
        ]  # fmt: skip
        (action,) = self.dice.choices([action for action, _ in actions], [weight for _, weight in actions])
        try:
            action()
        except (Problem, EscrowError):
            return  # refused, as happens
        self.done[action.__name__] += 1
        self.market.follow()

    def bid(self) -> None:
        client, market = self.dice.choice(self.clients), self.market
        page = market.chain.account(client.address).page
        deadline = datetime.fromtimestamp(market.context.now() + self.dice.choice([8, 600]), UTC)
        changes: dict[str, Any] = {"resources": {"gpus": 1}} if self.dice.random() < 0.3 else {}
        if self.dice.random() < 0.3:
            changes["deadline"] = f"{deadline:%Y-%m-%dT%H:%M:%SZ}"
        spec = make_spec(**changes)
        bid = make_bid(
            client, market.context.matcher, market.rules, spec, approver=market.approver_key.address,
            nonce=page << 8 | self.nonces[client.address], max_price=self.dice.randrange(8, 21) * TOKEN // 10,
            stake=self.dice.choice([5, 20]) * TOKEN,
        )  # fmt: skip
        body = signed_bid(bid, market.chain.domain, client, spec)
        job = market.api.post_bid(body)
        self.nonces[client.address] += 1
        receipts.keep_receipt(market.chain.domain, market.context.matcher, body, job.receipt)

    def ask(self) -> None:
        provider, market = self.dice.choice(self.market.providers), self.market
        machine = GPU if self.dice.random() < 0.3 else CPU
        ask = make_ask(
            provider, market.context.matcher, market.rules, machine, page=market.chain.account(provider.address).page,
            price_per_hour=self.dice.randrange(20, 60) * 100_000_000, max_active=self.dice.choice([1, 1, 2]),
            max_checkpoints=self.dice.choice([1, 2, 4]), max_stake=self.dice.choice([20, 50]) * TOKEN,
            valid_until=market.context.now() + self.dice.choice([5, 3600]),
        )  # fmt: skip
        body = signed_ask(ask, market.chain.domain, provider, machine)
        answer = market.api.post_ask(body)
        receipts.keep_receipt(market.chain.domain, market.context.matcher, body, answer.receipt)

    def clear(self) -> None:
        """Now and then somebody is in between: the escrow then refuses to open what was matched."""
        draw = clearing.draw_coin

        def and_somebody_acts(*given: Any) -> tuple[int, str]:
            coin = draw(*given)
            if self.dice.random() < 0.3:
                self.dice.choice([self.withdraw, self.withdraw, self.cancel])()
            return coin

        with patch.object(clearing, "draw_coin", and_somebody_acts):
            self.market.clear()

    def lease(self) -> LeaseOut:
        live = [lease for lease in self.market.api.leases(live=True) if lease.state.phase == "active"]
        if not live:
            raise Problem(404, "not_found", "no lease is live")  # type: ignore[arg-type]
        return self.dice.choice(live)

    def train(self) -> None:
        lease = self.lease()
        reached = lease.start if lease.approval is None else lease.approval.approval.n
        self.market.make(lease, self.dice.randrange(1, lease.end - reached + 1))
        self.market.redeem(lease)

    def release(self) -> None:
        lease = self.lease()
        self.market.say(lease, "release", lease.start if lease.approval is None else lease.approval.approval.n)
        self.market.approver.answer_releases()
        self.market.redeem(lease)

    def fail(self) -> None:
        lease = self.lease()
        reached = lease.start if lease.approval is None else lease.approval.approval.n
        self.market.say(lease, "failed", reached + 1)
        self.market.approver.answer_releases()
        self.market.redeem(lease)

    def silence(self) -> None:
        lease = self.lease()
        self.market.pass_time(lease.timeout)
        self.market.keep()
        self.market.pass_time(lease.window)
        self.market.keep()

    def cancel(self) -> None:
        who = self.dice.choice(self.clients + self.market.providers)
        page = self.market.chain.account(who.address).page
        Sender(self.market.chain, who).send(self.market.chain.raise_page(page + 1))
        self.nonces[who.address] = 0

    def withdraw(self) -> None:
        who = self.dice.choice(self.clients + self.market.providers)
        amount = self.market.chain.account(who.address).free // self.dice.choice([1, 10])
        if amount:
            Sender(self.market.chain, who).send(self.market.chain.withdraw(who.address, amount))

    def deposit(self) -> None:
        who, chain, amount = self.dice.choice(self.clients + self.market.providers), self.market.chain, 50 * TOKEN
        for call in (chain.faucet(who.address, amount), chain.approve(amount), chain.deposit(who.address, amount)):
            Sender(chain, who).send(call)


@pytest.mark.parametrize(
    ("seed", "actions"), [(1, 40), *(pytest.param(seed, 120, marks=pytest.mark.long) for seed in range(2, 8))]
)
def test_an_honest_market(
    chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, seed: int, actions: int
) -> None:
    finality = {"confirmations_base": 2, "confirmations_max": 2}
    chain = Chain(chain.w3, chain.settings.model_copy(update=finality))
    if (behind := int(time.time()) - chain.now()) > 0:  # earlier tests have put the chain's clock back
        pass_time(chain, behind)
    matcher, approver = funded(2)
    first, second, *providers = funded(5, free=100 * TOKEN)
    people, rules = [matcher, approver, first, *providers], devnet.settings.rules["unchecked"]
    with lives(chain, tmp_path, people, rules, f"sqlite:///{tmp_path}/market.sqlite3") as market:
        upload(market.context, second.address, RECIPE)
        story = Story(market, [first, second], random.Random(seed))
        for _ in range(actions):
            story.go_on()
        market.clear()
        epochs = list(market.api.epochs())
        told = [verify(market.api, chain, epoch.number, every=True) for epoch in epochs]
    assert [lie for checked in told for one in checked for lie in one.lies] == []
    assert epochs

"""Following a chain that reorganises under the follower."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from eth_account.signers.local import LocalAccount

from contracts.chain import follower as follower_module
from contracts.chain.client import Chain
from contracts.chain.events import Deposited, Event
from contracts.chain.follower import Block, Follower, HistoryLost, MemoryStore, Rollback
from contracts.chain.ledger import Ledger
from contracts.chain.sending.sender import Sender
from tests.support.devnet import TOKEN, Funded, rpc


class Reader:
    """Applies a follower's steps to a store and to a list of events, as an indexer would."""

    def __init__(self, chain: Chain, **options: int) -> None:
        self.chain = chain
        self.store = MemoryStore()
        self.follower = Follower(chain, self.store, **options)
        self.events: list[Event] = []
        self.rollbacks: list[int] = []

    def poll(self) -> "Reader":
        for _ in range(100):
            steps = self.follower.poll()
            if not steps:
                return self
            for step in steps:
                self.store.apply(step)
                if isinstance(step, Rollback):
                    self.rollbacks.append(step.to_block)
                    self.events = [event for event in self.events if event.at.block <= step.to_block]
                else:
                    self.events += step.events
        raise AssertionError("the follower does not come to rest")

    def deposits(self, account: LocalAccount) -> list[int]:
        return [e.amount for e in self.events if isinstance(e, Deposited) and e.account == account.address]

    def check(self) -> None:
        """The books from the events followed are those of the chain."""
        ledger = Ledger()
        ledger.apply_all(self.events)
        for owner, account in ledger.accounts.items():
            assert account.free == self.chain.account(owner).free
        assert ledger.held == self.chain.token_balance(self.chain.escrow.address)


Deposit = Callable[[int], None]


@pytest.fixture
def alice(chain: Chain, funded: Funded) -> LocalAccount:
    [account] = funded(free=5)
    Sender(chain, account).send(chain.approve(100 * TOKEN))
    return account


def deposit(chain: Chain, account: LocalAccount, *amounts: int) -> None:
    """Not by a Sender, which would send again what a reorganisation takes away."""
    for amount in amounts:
        nonce = chain.w3.eth.get_transaction_count(account.address)
        call = chain.deposit(account.address, amount).build_transaction({"from": account.address, "nonce": nonce})
        sent = chain.w3.eth.send_raw_transaction(account.sign_transaction(cast(Any, call)).raw_transaction)
        chain.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)


def test_events_come_once_in_order(chain: Chain, alice: LocalAccount) -> None:
    reader = Reader(chain).poll()
    deposit(chain, alice, 1, 2, 3)
    reader.poll()
    assert reader.deposits(alice) == [5, 1, 2, 3]
    assert [event.at.block for event in reader.events] == sorted(event.at.block for event in reader.events)
    assert all(later.parent == earlier.hash for earlier, later in pairwise(reader.store.blocks))
    assert reader.follower.poll() == []
    reader.check()
    newest = reader.events[-1].at
    assert chain.w3.eth.get_transaction_receipt(newest.transaction)["blockNumber"] == newest.block  # type: ignore[arg-type]
    assert newest.timestamp == chain.now()


def test_a_reorganisation_rolls_back_and_follows_the_new_branch(chain: Chain, alice: LocalAccount) -> None:
    reader = Reader(chain)
    deposit(chain, alice, 1)
    kept = chain.w3.eth.block_number
    deposit(chain, alice, 2, 3)
    reader.poll()
    # The last two blocks go; deposits that were in them do not come back.
    rpc(chain, "anvil_reorg", 2, [])
    reader.poll()
    assert reader.rollbacks == [kept]
    assert reader.deposits(alice) == [5, 1]
    deposit(chain, alice, 4)
    reader.poll()
    assert reader.deposits(alice) == [5, 1, 4]
    reader.check()


def test_a_shorter_chain(chain: Chain, alice: LocalAccount) -> None:
    """The new head is below what was followed (anvil_rollback; or a node that was restored)."""
    reader = Reader(chain)
    deposit(chain, alice, 1, 2, 3)
    reader.poll()
    rpc(chain, "anvil_rollback", 2)
    reader.poll()
    assert reader.deposits(alice) == [5, 1]
    reader.check()


def test_catching_up_in_ranges_gives_the_same_events(chain: Chain, alice: LocalAccount) -> None:
    for amount in range(1, 6):
        deposit(chain, alice, amount)
        rpc(chain, "anvil_mine", "0x14")
    by_block, in_ranges = Reader(chain, near=1_000), Reader(chain, near=8, range_blocks=16)
    assert by_block.poll().events == in_ranges.poll().events
    assert in_ranges.deposits(alice) == [5, 1, 2, 3, 4, 5]
    assert len(in_ranges.store.blocks) < len(by_block.store.blocks)
    # And a reorganisation is followed from sparse history too.
    rpc(chain, "anvil_reorg", 30, [])
    for reader in (by_block, in_ranges):
        reader.poll().check()
    assert by_block.events == in_ranges.events


def test_a_reorganisation_while_polling(chain: Chain, alice: LocalAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(chain)
    deposit(chain, alice, 1, 2, 3, 4)
    logs = reader.follower._logs
    before_last = chain.w3.eth.block_number - 1 - chain.settings.deploy_block
    calls = 0

    def reorganise_before_the_last(which: object) -> object:
        nonlocal calls
        calls += 1
        if calls == before_last:
            rpc(chain, "anvil_reorg", 3, [])
            deposit(chain, alice, 9)
        return logs(which)  # type: ignore[arg-type]

    monkeypatch.setattr(reader.follower, "_logs", reorganise_before_the_last)
    reader.poll().poll()  # the first one stops where the chain has changed
    assert calls > before_last
    assert reader.deposits(alice) == [5, 1, 9]
    reader.check()


def test_another_chain_is_followed_from_the_start_if_all_is_remembered(chain: Chain, alice: LocalAccount) -> None:
    reader = Reader(chain).poll()
    reader.store.blocks = [Block(block.number, "0x" + "ab" * 32, block.parent, 0, ()) for block in reader.store.blocks]
    reader.poll()
    assert reader.rollbacks == [chain.settings.deploy_block - 1]
    reader.check()


def test_deeper_than_what_is_remembered(chain: Chain, alice: LocalAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "KEPT_BLOCKS", 3)
    reader = Reader(chain)
    deposit(chain, alice, 1, 2, 3, 4)
    reader.poll()
    assert len(reader.store.blocks) == 3
    rpc(chain, "anvil_reorg", 4, [])
    with pytest.raises(HistoryLost, match="another chain than the one followed so far") as caught:
        reader.poll()
    assert "gpumarket market reindex" in (caught.value.hint or "")

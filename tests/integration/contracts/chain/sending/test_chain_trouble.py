"""What a chain can do to a transaction: undo it, forget it, give its nonce to another."""

import copy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractFunction

from contracts.chain.client import Chain
from contracts.chain.errors import EscrowError
from contracts.chain.sending import lane
from contracts.chain.sending.intents import Intent, IntentStore
from contracts.chain.sending.lane import lane_path
from contracts.chain.sending.sender import NotMined, Sender
from contracts.types import to_hex
from tests.support.devnet import TOKEN, Funded, rpc
from worker.onboarding import register

HELD = 1_000 * TOKEN


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("WATCH_POLL", 0.1), ("WATCH_EVERY", 0.0), ("AGAIN_SECONDS", 0.3), ("LONGEST_POLL", 0.1)):
        monkeypatch.setattr(lane, name, seconds)


@pytest.fixture
def not_mining(chain: Chain) -> Iterator[None]:
    rpc(chain, "evm_setAutomine", False)
    yield
    rpc(chain, "evm_setAutomine", True)


def eventually(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def open_intents(chain: Chain, account: LocalAccount) -> list[Intent]:
    store = IntentStore(lane_path(chain, account.address))
    try:
        return store.open()
    finally:
        store.close()


def foreign(chain: Chain, account: LocalAccount, nonce: int) -> str:
    """A transfer of nothing, sent by somebody who has the key but not this lane. Returns its hash."""
    return chain.w3.eth.send_raw_transaction(raw_foreign(chain, account, nonce)).to_0x_hex()  # type: ignore[arg-type]


def raw_foreign(chain: Chain, account: LocalAccount, nonce: int) -> str:
    fields = {"to": account.address, "value": 0, "gas": 21_000, "nonce": nonce, "chainId": chain.domain.chain_id}
    fields |= {"maxFeePerGas": 50 * 10**9, "maxPriorityFeePerGas": 50 * 10**9}
    return account.sign_transaction(fields).raw_transaction.to_0x_hex()


def raw_of(chain: Chain, account: LocalAccount, nonce: int) -> str:
    """What this lane has signed with a nonce."""
    store = IntentStore(lane_path(chain, account.address))
    try:
        [version] = [one for intent in store.settling() for one in intent.versions if one.nonce == nonce]
        return to_hex(version.raw)
    finally:
        store.close()


def count(chain: Chain, account: LocalAccount, block: str = "latest") -> int:
    return int(chain.w3.eth.get_transaction_count(account.address, block))  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1, 5])
def test_a_reorg_undoes_it_and_it_is_sent_again(chain: Chain, funded: Funded, depth: int) -> None:
    [account] = funded()
    rpc(chain, "anvil_mine", lane.DEPTH + 1)
    sender = Sender(chain, account)
    sender.send(chain.faucet(account.address, 5), key="five")
    sender.send_many([chain.faucet(account.address, 10 + i) for i in range(depth - 1)])
    rpc(chain, "anvil_reorg", depth, [])
    expected = HELD + 5 + sum(10 + i for i in range(depth - 1))
    eventually(lambda: chain.token_balance(account.address) == expected)
    sender.send(chain.faucet(account.address, 5), key="five")
    assert chain.token_balance(account.address) == expected


def revert(sender: Sender, withdraw: ContractFunction, key: str) -> int:
    """Two withdrawals of the same money in one block; that with the key is the second. Returns the block."""
    chain, start = sender.chain, count(sender.chain, sender.account)
    rpc(chain, "evm_setAutomine", False)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(sender.send, withdraw)
            eventually(lambda: count(chain, sender.account, "pending") == start + 1)
            second = pool.submit(sender.send, withdraw, key=key)
            eventually(lambda: count(chain, sender.account, "pending") == start + 2)
            rpc(chain, "evm_mine")
            with pytest.raises(EscrowError, match="5 short of 5"):
                second.result()
            return int(first.result()["blockNumber"])
    finally:
        rpc(chain, "evm_setAutomine", True)


def test_what_reverted_is_not_repeated_while_a_reorg_can_make_it_succeed(chain: Chain, funded: Funded) -> None:
    [account] = funded(free=5)
    sender, withdraw = Sender(chain, account), chain.withdraw(account.address, 5)
    sender.send(chain.approve(5))
    rpc(chain, "anvil_mine", lane.DEPTH + 1)
    start = count(chain, account)
    block = revert(sender, withdraw, "back")
    sender.send(chain.deposit(account.address, 5))  # it could be paid now
    with pytest.raises(EscrowError) as caught:
        sender.send(withdraw, key="back")
    assert f"before block {block + lane.DEPTH}" in str(caught.value.hint)
    again = [raw_foreign(chain, account, start), raw_of(chain, account, start + 1)]
    rpc(chain, "anvil_reorg", chain.w3.eth.block_number - block + 1, [[raw, 0] for raw in again])
    eventually(lambda: count(chain, account) == start + 3)  # the deposit, too
    done = sender.send(withdraw, key="back")
    assert chain.w3.eth.get_transaction(done["transactionHash"])["nonce"] == start + 1
    assert chain.account(account.address).free == 5


def test_what_reverted_for_good_is_sent_again(chain: Chain, funded: Funded) -> None:
    """Also by a process that comes later, before its watcher has looked."""
    [account] = funded(free=5)
    sender, withdraw = Sender(chain, account), chain.withdraw(account.address, 5)
    sender.send(chain.approve(5))
    block = revert(sender, withdraw, "back")
    sender.send(chain.deposit(account.address, 5))
    lane.close_lanes()
    rpc(chain, "anvil_mine", lane.DEPTH - 2)
    assert Sender(chain, account).knows("back")
    rpc(chain, "anvil_mine", 1)
    assert chain.w3.eth.block_number == block + lane.DEPTH
    sender = Sender(chain, account)
    assert not sender.knows("back")
    sender.send(withdraw, key="back")
    assert chain.account(account.address).free == 0


def test_what_a_reorg_makes_fail_frees_its_key_in_time(chain: Chain, funded: Funded) -> None:
    """Mined again in a block of the same number, but this time without the deposit that it took from."""
    [account] = funded()
    sender = Sender(chain, account)
    sender.send(chain.approve(5))
    rpc(chain, "anvil_mine", lane.DEPTH + 1)
    sender.send(chain.deposit(account.address, 5))
    take_back = sender.send(chain.withdraw(account.address, 5), key="back")
    lane.close_lanes()
    raw = [chain.w3.eth.get_raw_transaction(take_back["transactionHash"]).to_0x_hex()]
    raw.insert(0, raw_foreign(chain, account, count(chain, account) - 2))
    rpc(chain, "anvil_reorg", 2, [[one, at] for at, one in enumerate(raw)])
    again = chain.w3.eth.get_transaction_receipt(take_back["transactionHash"])
    assert (again["status"], again["blockNumber"]) == (0, take_back["blockNumber"])
    sender = Sender(chain, account)
    with pytest.raises(EscrowError):
        sender.send(chain.withdraw(account.address, 5), key="back")
    assert sender.knows("back")
    rpc(chain, "anvil_mine", lane.DEPTH)
    assert not sender.knows("back")


def test_the_same_key_at_another_escrow_is_another_intent(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    Sender(chain, account).send(chain.faucet(account.address, 5), key="five")
    other = copy.copy(chain)
    other.domain = chain.domain.model_copy(update={"verifying_contract": chain.token.address})
    assert not Sender(other, account).knows("five")
    Sender(other, account).send(chain.faucet(account.address, 5), key="five")
    assert chain.token_balance(account.address) == HELD + 10


@pytest.mark.usefixtures("not_mining")
def test_a_forgotten_transaction_is_sent_again(chain: Chain, funded: Funded) -> None:
    rpc(chain, "evm_setAutomine", True)
    [account] = funded()
    rpc(chain, "evm_setAutomine", False)
    start = count(chain, account)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(Sender(chain, account).send_many, [chain.faucet(account.address, 5)] * 3)
        eventually(lambda: count(chain, account, "pending") == start + 3)
        rpc(chain, "anvil_dropAllTransactions")
        assert count(chain, account, "pending") == start
        eventually(lambda: count(chain, account, "pending") == start + 3)
        rpc(chain, "evm_mine")
        assert len(sending.result()) == 3
    assert chain.token_balance(account.address) == HELD + 15


def test_a_nonce_that_somebody_took(chain: Chain, funded: Funded) -> None:
    """The intent gets another, but not before the taker is too deep to be undone."""
    [account] = funded()
    start = count(chain, account)
    rpc(chain, "evm_setAutomine", False)
    try:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(Sender(chain, account).send, chain.faucet(account.address, 5))
            eventually(lambda: count(chain, account, "pending") == start + 1)
            taker = foreign(chain, account, start)  # dearer, so that it takes the place
            rpc(chain, "evm_mine")
            assert chain.w3.eth.get_transaction_receipt(taker)["status"] == 1  # type: ignore[arg-type]
            rpc(chain, "anvil_mine", lane.DEPTH - 1)
            time.sleep(0.5)
            assert [intent.nonce for intent in open_intents(chain, account)] == [start]
            rpc(chain, "evm_setAutomine", True)
            rpc(chain, "evm_mine")
            receipt = sending.result()
    finally:
        rpc(chain, "evm_setAutomine", True)
    assert chain.w3.eth.get_transaction(receipt["transactionHash"])["nonce"] == start + 1
    assert chain.token_balance(account.address) == HELD + 5


def test_a_foreign_transaction_that_vanishes_leaves_no_gap(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    start = count(chain, account)
    rpc(chain, "evm_setAutomine", False)
    try:
        vanishing = foreign(chain, account, start)
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(Sender(chain, account, bump_after=0.3).send, chain.faucet(account.address, 5))
            eventually(lambda: count(chain, account, "pending") == start + 2)
            rpc(chain, "anvil_dropTransaction", vanishing)
            eventually(lambda: count(chain, account, "pending") == start + 2)
            rpc(chain, "evm_mine")
            receipt = sending.result()
    finally:
        rpc(chain, "evm_setAutomine", True)
    assert chain.w3.eth.get_transaction(receipt["transactionHash"])["nonce"] == start + 1
    assert count(chain, account) == start + 2


def test_fees_rise_to_the_cap_and_no_further(chain: Chain, funded: Funded) -> None:
    chain.settings = chain.settings.model_copy(update={"max_fee_gwei": 4})
    [account] = funded()
    rpc(chain, "evm_setAutomine", False)
    try:
        with pytest.raises(NotMined, match="can't be raised above the setting max_fee_gwei, 4"):
            Sender(chain, account, timeout=10, bump_after=0.05).send(chain.faucet(account.address, 5))
        [intent] = open_intents(chain, account)
        assert len(intent.versions) > 2
        assert 4 * 10**9 * 8 // 9 < max(version.fees.most for version in intent.versions) <= 4 * 10**9
    finally:
        rpc(chain, "evm_setAutomine", True)
    rpc(chain, "evm_mine")
    Sender(chain, account).settle()
    assert chain.token_balance(account.address) == HELD + 5


def test_a_deposit_on_its_way_is_counted(chain: Chain, funded: Funded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stake, only what a former try has not brought is deposited."""
    [account] = funded()
    sender = Sender(chain, account, timeout=0.3)
    sender.send(chain.approve(HELD))
    rpc(chain, "evm_setAutomine", False)
    with pytest.raises(NotMined):
        sender.send(chain.deposit(account.address, 60))
    sender = Sender(chain, account)
    settle = sender.settle

    def mined_meanwhile() -> None:
        rpc(chain, "evm_setAutomine", True)
        rpc(chain, "evm_mine")
        settle()

    monkeypatch.setattr(sender, "settle", mined_meanwhile)
    register.deposit_stake(sender, 100)
    assert chain.account(account.address).free == 100
    register.deposit_stake(sender, 5)
    assert chain.account(account.address).free == 105

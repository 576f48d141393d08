"""Sending: nonces under concurrency, decoded refusals, fee bumps, gas money, intents by key."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import requests
from structlog.testing import capture_logs

from contracts.chain.client import Chain
from contracts.chain.errors import EscrowError
from contracts.chain.sending import lane
from contracts.chain.sending.sender import NotMined, Sender
from contracts.errors import UserError
from contracts.orders import new_account
from tests.support.devnet import TOKEN, Funded, rpc


def test_threads_share_a_key_without_a_nonce_gap(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    start = chain.w3.eth.get_transaction_count(account.address)
    # A Sender each, as in processes that know nothing of one another.
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda i: Sender(chain, account).send(chain.faucet(account.address, i)), range(1, 33)))
    nonces = {chain.w3.eth.get_transaction(receipt["transactionHash"])["nonce"] for receipt in receipts}
    assert nonces == set(range(start, start + 32))
    assert chain.token_balance(account.address) == 1_000 * TOKEN + sum(range(1, 33))


def test_a_refused_call_is_not_sent(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    before = chain.w3.eth.get_transaction_count(account.address)
    with pytest.raises(EscrowError) as caught:
        Sender(chain, account).send(chain.withdraw(account.address, 5))
    assert caught.value.name == "Escrow_BalanceShort"
    assert caught.value.values == {"account": account.address, "free": 0, "needed": 5}
    assert "5 short of 5" in caught.value.message
    assert chain.w3.eth.get_transaction_count(account.address) == before


def test_a_call_that_fails_when_mined_is_explained(chain: Chain, funded: Funded) -> None:
    """Two withdrawals pass their dry runs, but only one can be paid."""
    [account] = funded(free=10 * TOKEN)
    sender = Sender(chain, account)
    rpc(chain, "evm_setAutomine", False)
    outcomes: list[object] = []

    def withdraw() -> None:
        try:
            outcomes.append(sender.send(chain.withdraw(account.address, 10 * TOKEN))["status"])
        except EscrowError as error:
            outcomes.append(error.name)

    threads = [threading.Thread(target=withdraw) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        while int(chain.w3.eth.get_transaction_count(account.address, "pending")) < 5:
            pass
        rpc(chain, "evm_mine")
        for thread in threads:
            thread.join()
    finally:
        rpc(chain, "evm_setAutomine", True)
    assert sorted(outcomes, key=str) == [1, "Escrow_BalanceShort"]


def test_the_fee_rises_until_it_is_mined(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    sender = Sender(chain, account, bump_after=0.2)
    rpc(chain, "evm_setAutomine", False)
    seen: list[int] = []

    def mine_later() -> None:
        while len(seen) < 3:
            pool = rpc(chain, "txpool_content")
            for transaction in pool["pending"].get(account.address.lower(), {}).values():  # type: ignore[index]
                fee = int(transaction["maxFeePerGas"], 16)
                if fee not in seen:
                    seen.append(fee)
        rpc(chain, "evm_mine")

    miner = threading.Thread(target=mine_later)
    try:
        miner.start()
        receipt = sender.send(chain.faucet(account.address, 1))
        miner.join()
    finally:
        rpc(chain, "evm_setAutomine", True)
    assert receipt["status"] == 1
    assert seen == sorted(seen)
    assert all(later * 8 >= earlier * 9 for earlier, later in pairwise(seen))


def test_no_receipt_in_time(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    rpc(chain, "evm_setAutomine", False)
    try:
        with pytest.raises(NotMined, match=r"not mined within 0\.3 s"):
            Sender(chain, account, timeout=0.3).send(chain.faucet(account.address, 1))
    finally:
        rpc(chain, "evm_setAutomine", True)


def test_gas_money_that_is_missing_is_named(chain: Chain) -> None:
    poor = new_account()
    with pytest.raises(UserError, match=r"has 0\.000000 ETH, 0\.0\d+ short") as caught:
        Sender(chain, poor).send(chain.faucet(poor.address, 1))
    assert "wallet faucet" in (caught.value.hint or "")


def test_low_gas_money_is_told_once_a_fall(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    chain.settings = chain.settings.model_copy(update={"gas_alarm_transactions": 1_000})
    sender = Sender(chain, account)

    def warnings(wei: int) -> list[int]:
        """Of a send with so much gas money: how many more transactions each warning says there are."""
        rpc(chain, "anvil_setBalance", account.address, hex(wei))
        with capture_logs() as logs:
            sender.send(chain.faucet(account.address, 1))
        found = [entry for entry in logs if entry["event"] == "sender.gas_low"]
        assert all(entry["address"] == account.address and entry["balance"] for entry in found)
        return [entry["transactions"] for entry in found]

    cost = sender.cost(chain.faucet(account.address, 1))
    assert warnings(5_000 * cost) == []
    [left] = warnings(100 * cost)
    assert 50 < left < 150
    assert warnings(90 * cost) == []
    assert warnings(5_000 * cost) == []
    assert len(warnings(100 * cost)) == 1


def test_a_key_sends_once(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    first = Sender(chain, account).send(chain.faucet(account.address, 5), key="five")
    again = Sender(chain, account).send(chain.faucet(account.address, 5), key="five")
    assert again == first
    assert chain.token_balance(account.address) == 1_000 * TOKEN + 5
    sender = Sender(chain, account)
    sender.forget("five")
    assert not sender.knows("five")
    assert sender.send(chain.faucet(account.address, 5), key="five") != first
    assert chain.token_balance(account.address) == 1_000 * TOKEN + 10


def test_threads_with_one_key_send_once(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    sender = Sender(chain, account)
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda _: sender.send(chain.faucet(account.address, 5), key="five"), range(8)))
    assert len({receipt["transactionHash"] for receipt in sent}) == 1
    assert chain.token_balance(account.address) == 1_000 * TOKEN + 5


def test_many_are_in_flight_at_once(chain: Chain, funded: Funded) -> None:
    [account] = funded()
    sender = Sender(chain, account)
    start = int(chain.w3.eth.get_transaction_count(account.address))
    rpc(chain, "evm_setAutomine", False)
    try:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(sender.send_many, [chain.faucet(account.address, 1 + i) for i in range(30)])
            wait_for_pending(chain, account.address, start + 30)
            rpc(chain, "evm_mine")
            receipts = sending.result()
    finally:
        rpc(chain, "evm_setAutomine", True)
    amounts = [int(receipt["logs"][0]["data"].hex(), 16) for receipt in receipts]
    assert amounts == list(range(1, 31))
    with pytest.raises(EscrowError, match="short of 7"):
        sender.send_many([chain.faucet(account.address, 1), chain.withdraw(account.address, 7)])
    assert int(chain.w3.eth.get_transaction_count(account.address, "pending")) == start + 30


def test_a_node_that_is_away_is_waited_for(chain: Chain, funded: Funded, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the broadcast on: the intent is written, so that it will be sent."""
    [account] = funded()
    ask, left = lane.ask, list(range(4))

    def flaky(*arguments: object) -> object:
        if left:
            left.pop()
            raise requests.ConnectionError("refused")
        return ask(*arguments)  # type: ignore[arg-type]

    sender = Sender(chain, account, poll=0.01)
    monkeypatch.setattr(lane, "ask", flaky)
    monkeypatch.setattr(lane, "LONGEST_POLL", 0.05)
    assert sender.send(chain.faucet(account.address, 5))["status"] == 1
    assert not left
    left.extend(range(1000))
    with pytest.raises(NotMined, match="ConnectionError: refused"):
        Sender(chain, account, timeout=0.3).send(chain.faucet(account.address, 5))


def wait_for_pending(chain: Chain, address: str, count: int) -> None:
    while int(chain.w3.eth.get_transaction_count(address, "pending")) < count:  # type: ignore[arg-type]
        pass

"""Sending: nonces under concurrency, decoded refusals, fee bumps, gas money."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from contracts.chain.client import Chain
from contracts.chain.errors import EscrowError
from contracts.chain.sender import NotMined, Sender
from contracts.errors import UserError
from contracts.orders import new_account
from tests.integration.conftest import TOKEN, Funded, rpc


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

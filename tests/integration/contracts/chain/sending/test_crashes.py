"""What was to be sent is mined exactly once, wherever the process dies."""

import subprocess
import sys

import pytest
from eth_account.signers.local import LocalAccount

from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from tests.support.devnet import TOKEN, Funded, rpc
from tests.support.dying_sender import POINTS

HELD = 1_000 * TOKEN


def start(point: str, account: LocalAccount, *amounts: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.dying_sender", point, account.key.hex(), *map(str, amounts)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("point", "mining"), [*((point, True) for point in POINTS), ("versions-persisted", False), ("broadcast", False)]
)
def test_killed_and_sent_once(chain: Chain, funded: Funded, point: str, mining: bool) -> None:
    """Killed before or after it is mined; then another process asks for the same again."""
    [account] = funded()
    before = chain.w3.eth.get_transaction_count(account.address)
    if not mining:
        rpc(chain, "evm_setAutomine", False)
    try:
        assert start(point, account, 7).wait(300) == -9
        sender = Sender(chain, account, timeout=100)
        rpc(chain, "evm_setAutomine", True)
        if not mining:
            rpc(chain, "evm_mine")
        sender.settle()  # it needs nobody to ask for it again
        assert chain.token_balance(account.address) == HELD + 7
        first = sender.send(chain.faucet(account.address, 7), key="7")
    finally:
        rpc(chain, "evm_setAutomine", True)
    again = Sender(chain, account).send(chain.faucet(account.address, 7), key="7")
    assert again["transactionHash"] == first["transactionHash"]
    assert chain.token_balance(account.address) == HELD + 7
    assert chain.w3.eth.get_transaction_count(account.address) == before + 1


def test_two_processes_share_a_key(chain: Chain, funded: Funded) -> None:
    """Both have transactions in flight; none collides, none is lost."""
    [account] = funded()
    before = chain.w3.eth.get_transaction_count(account.address)
    processes = [start("never", account, *amounts) for amounts in (range(1, 6), range(101, 106))]
    sender = Sender(chain, account)
    sender.send_many([chain.faucet(account.address, 1000)] * 10)
    nonces = [int(nonce) for process in processes for nonce in process.communicate(timeout=300)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(nonces)) == 10
    assert chain.token_balance(account.address) == HELD + sum(range(1, 6)) + sum(range(101, 106)) + 10_000
    assert chain.w3.eth.get_transaction_count(account.address) == before + 20

"""Transactions per second, from call to receipt: the Sender's, with its intents synced to disk, and naive web3.py's.

Both send the same token transfers to one anvil that makes a block of each transaction at once. web3.py builds, signs,
sends and waits for one after another, as its documentation does. Rounds of one and of the other take turns.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractFunction

from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import accounts, start_devnet
from contracts.chain.sending.lane import close_lanes
from contracts.chain.sending.sender import Sender
from tests.bench import Figure, report

ROUNDS, CALLS, SINGLE = 5, 100, 20


def naive(chain: Chain, account: LocalAccount, calls: list[ContractFunction]) -> None:
    eth = chain.w3.eth
    for call in calls:
        nonce = eth.get_transaction_count(account.address)
        transaction = call.build_transaction({"from": account.address, "nonce": nonce})
        sent = eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        assert eth.wait_for_transaction_receipt(sent)["status"] == 1


def measure(chain: Chain) -> Iterator[Figure]:
    one, other = accounts()[1:3]
    sender = Sender(chain, other)
    for account in (one, other):
        sender.send(chain.faucet(account.address, 10**9))
    transfers = [chain.token.functions.transfer(accounts()[3].address, 1 + i) for i in range(CALLS)]
    times: dict[str, list[float]] = {"naive": [], "sender": [], "single": []}
    for _ in range(ROUNDS):
        times["naive"].append(_timed(lambda: naive(chain, one, transfers)) / CALLS)
        times["sender"].append(_timed(lambda: sender.send_many(transfers)) / CALLS)
        times["single"].append(_timed(lambda: [sender.send(call) for call in transfers[:SINGLE]]) / SINGLE)
    rates = {name: ROUNDS / sum(seconds) for name, seconds in times.items()}
    yield "sender_over_naive", rates["sender"] / rates["naive"], "ratio"
    yield "sender", rates["sender"], "tx/s"
    yield "sender_one_by_one", rates["single"], "tx/s"
    yield "naive", rates["naive"], "tx/s"


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="gpumarket-bench-") as folder:
        os.environ["GPUMARKET_HOME"] = folder
        with start_devnet(Path(folder)) as devnet:
            report(measure(connect(devnet.settings)), json)
            close_lanes()

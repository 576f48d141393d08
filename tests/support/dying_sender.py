"""A process that sends with a key, for tests of crashes: it ends itself with SIGKILL where it is told to.

python -m tests.support.dying_sender POINT PRIVATE_KEY AMOUNT... sends a faucet call for each amount, with the
amount as the intent's key. POINT is one of `POINTS`, or "never". Prints the nonces of its transactions.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from eth_account import Account

from contracts.chain.client import connect
from contracts.chain.sending.intents import IntentStore
from contracts.chain.sending.lane import Lane
from contracts.chain.sending.sender import Sender
from contracts.chain.sending.signing import TransactionSigner
from contracts.program.logs import log_warnings_only
from contracts.settings import load_settings

# The call at which the process dies, and whether that is before or after it.
POINTS: dict[str, tuple[type, str, bool]] = {
    "persisted": (IntentStore, "plan", False),
    "signed": (TransactionSigner, "sign", False),
    "versions-persisted": (Lane, "_broadcast", True),
    "broadcast": (Lane, "_broadcast", False),
    "mined": (IntentStore, "note_mined", True),
    "mined-persisted": (IntentStore, "note_mined", False),
}


def die_at(point: str) -> None:
    owner, name, before = POINTS[point]
    original: Callable[..., Any] = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> None:
        if not before:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def main(point: str, private_key: str, *amounts: str) -> None:
    log_warnings_only()
    chain = connect(load_settings())
    account = Account.from_key(private_key)
    sender = Sender(chain, account)
    if point != "never":
        die_at(point)
    for amount in amounts:
        receipt = sender.send(chain.faucet(account.address, int(amount)), key=amount)
        print(chain.w3.eth.get_transaction(receipt["transactionHash"])["nonce"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

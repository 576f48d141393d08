"""Sends what a hot key need not hold to a cold address. The stake that the Ask needs always stays."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from filelock import FileLock, Timeout
from web3.contract.contract import ContractFunction

from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY, EscrowError
from contracts.chain.sending.lane import lane_path
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.program.logs import Trouble
from worker.settings import ProviderSettings

ALONE_SECONDS = 30.0  # to wait for another process that moves tokens

log = structlog.get_logger()


@dataclass(frozen=True)
class Sweep:
    """What to send on, in the token's smallest unit."""

    from_wallet: int
    from_escrow: int

    @property
    def amount(self) -> int:
        return self.from_wallet + self.from_escrow


def plan_sweep(held: int, free: int, above: int, stake: int) -> Sweep:
    """What of the wallet's `held` and the escrow's `free` tokens is over `above`; `stake` stays free in any case."""
    spare = max(0, held + free - max(above, stake))
    from_escrow = min(spare, max(0, free - stake))
    return Sweep(from_wallet=min(held, spare - from_escrow), from_escrow=from_escrow)


def stake_needed(settings: ProviderSettings) -> int:
    """For all leases that the Ask allows at a time: a market refuses Asks that are not covered."""
    return settings.max_stake * settings.max_active


def find_sweep(chain: Chain, address: str, above: int, stake: int) -> Sweep:
    """The plan for how things stand on chain."""
    return plan_sweep(chain.token_balance(address), chain.account(address).free, above, stake)


def sweep_calls(chain: Chain, sweep: Sweep, to: str) -> list[tuple[str, ContractFunction]]:
    """The transactions of a sweep, each with what it does."""
    found = []
    if amount := sweep.from_escrow:
        found.append((f"withdraw {chain.format_amount(amount)} from the escrow to {to}", chain.withdraw(to, amount)))
    if amount := sweep.from_wallet:
        found.append((f"send {chain.format_amount(amount)} from the wallet to {to}", chain.transfer(to, amount)))
    return found


@contextmanager
def one_mover(chain: Chain, address: str) -> Iterator[None]:
    """From a plan to its last transaction, for one at a time: two that plan at once would send the same tokens twice.

    Raises UserError while another process of this home does so.
    """
    lock = FileLock(lane_path(chain, address).with_suffix(".moves"))
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock.acquire(timeout=ALONE_SECONDS)
    except Timeout as error:
        raise UserError(f"another process is just moving tokens of {address}", "wait for it, and try again") from error
    try:
        yield
    finally:
        lock.release()


class Sweeper(threading.Thread):
    """Sweeps now and then while the agent runs, beside it: money that moves must not keep leases waiting."""

    def __init__(self, settings: ProviderSettings, sender: Sender) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._settings, self._sender = settings, sender
        self._closed = threading.Event()
        self._trouble = Trouble(log.bind(provider=sender.address))

    def close(self) -> None:
        """Ends the thread after what it is at."""
        self._closed.set()

    def run(self) -> None:
        while not self._closed.is_set():
            try:
                self._sweep()
                self._trouble.over("sweep")
            except NODE_AWAY as error:
                self._trouble.at("sweep", f"{type(error).__name__}: {error}"[:300])
            except (UserError, EscrowError) as error:
                self._trouble.at("sweep", error.message)
            except Exception:
                log.exception("sweep.crashed")
            self._closed.wait(self._settings.money.sweep_seconds)

    def _sweep(self) -> None:
        money, chain = self._settings.money, self._sender.chain
        assert money.sweep_above is not None and money.sweep_to is not None
        with one_mover(chain, self._sender.address):
            self._sender.settle()  # what a former process has sent must not be sent again
            sweep = find_sweep(chain, self._sender.address, money.sweep_above, stake_needed(self._settings))
            for what, call in sweep_calls(chain, sweep, money.sweep_to):
                receipt = self._sender.send(call)
                log.info("sweep.sent", what=what, transaction=receipt["transactionHash"].to_0x_hex())

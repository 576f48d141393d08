"""`gpumarket approver start`."""

import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.errors import UserError
from contracts.program.logs import configure_logs
from contracts.settings import load_settings
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from market.approver.auditing.own_replays import is_able
from market.approver.memory import Memory
from market.approver.metrics import ApproverMetrics
from market.approver.service import Approver
from market.approver.settings import load_approver_settings
from market.approver.state_checks import StateChecks

app = typer.Typer(
    help="Check reported checkpoints for clients, and sign for those that are right.", no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Check reported checkpoints for clients, and sign for those that are right."""


@app.command()
def start(
    key: Annotated[
        list[str] | None,
        typer.Option(help="Name of the key that signs; needs a little gas money. Several may be given"),
    ] = None,
    market: Annotated[str | None, typer.Option(help="URL of the market")] = None,
    poll: Annotated[float | None, typer.Option(help="Seconds between looks at the market [default: 1]")] = None,
) -> None:
    """Run until SIGTERM. Approvals already signed are remembered in the home folder, and never contradicted.

    Settings are in the section [approver] of market.toml, too.
    """
    own = load_approver_settings(keys=tuple(key) if key else None, poll_seconds=poll)
    configure_logs(own.log_level, own.log_format)
    settings = load_settings(market_url=market)
    names = dict.fromkeys(own.keys or [keys.choose(settings.key)])  # each once
    unlocked = {name: unlock(name) for name in names}
    chain, metrics, stop = connect(settings), ApproverMetrics(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    checks = StateChecks(own.checks_at_once, own.check_seconds)
    with ExitStack() as stack:
        stack.callback(checks.close)
        approvers = []
        for name, (account, encryption) in unlocked.items():
            client = stack.enter_context(
                MarketClient(settings.require("market_url"), signer=Signer(account, chain.domain))
            )
            client.lists.on_skipped = metrics.unreadable.labels(account.address).inc
            typer.echo(
                f"Approver {account.address} (key '{name}') for the market at {client.url}, "
                f"escrow {chain.domain.verifying_contract}"
            )
            memory = Memory(own.memory_dir / name)
            stack.enter_context(_alone(memory.folder, name))
            approvers.append(
                Approver(
                    client, chain, account, encryption, memory,
                    metrics=metrics, check_state=checks.problem, at_once=own.checks_at_once,
                    replays_here=own.replays_here and is_able(), nobody_seconds=own.nobody_seconds,
                    replay_price_most=own.replay_price_most,
                )
            )  # fmt: skip
        if own.metrics_port is not None:
            metrics.serve(own.metrics_host, own.metrics_port)
        threads = [threading.Thread(target=one.run, args=(stop, own.poll_seconds)) for one in approvers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    typer.echo("Approver stopped; what it signed is on disk.")


def _alone(folder: Path, name: str) -> FileLock:
    """Held while the key's approver runs: two would draw from different blocks. Raises UserError."""
    lock = FileLock(folder / "approver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"an approver of the key '{name}' runs already, with {folder}",
            "stop it first; one on another machine must not have this key at all",
        ) from error
    return lock

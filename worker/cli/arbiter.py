"""`gpumarket arbiter`: rule on disputes by training again."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import structlog
import typer
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.arbiter import OperatorArbiter
from contracts.chain.client import Chain, connect
from contracts.chain.devnet import devnet
from contracts.chain.sending.sender import Sender
from contracts.cli.jobs import MarketUrl, checker
from contracts.cli.output import PlainConsole, say
from contracts.errors import UserError
from contracts.program.logs import configure_logs
from contracts.program.progress_bar import LINE_SECONDS, Watch, watching
from contracts.settings import load_settings
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from worker.arbiter.judge import Judge
from worker.arbiter.metrics import ArbiterMetrics
from worker.arbiter.service import Arbiter, Hearing, Stopping
from worker.arbiter.settings import load_arbiter_settings
from worker.replay.stretch import ReplayOptions

app = typer.Typer(help="Rule on disputes by training the questioned stretch again.", no_args_is_help=True)

SILENT = 4

log = structlog.get_logger()


@app.callback()
def _group() -> None:
    """Rule on disputes by training the questioned stretch again."""


@app.command()
def start(
    key: Annotated[str | None, typer.Option(help="Name of the operator's key; needs a little gas money")] = None,
    contract: Annotated[
        str | None, typer.Option(help="Address of the arbiter's contract [default: that of config.toml]")
    ] = None,
    market: MarketUrl = None,
    poll: Annotated[float | None, typer.Option(help="Seconds between looks at the chain [default: 5]")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look at each dispute once, and end")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the verdicts, and send none")] = False,
    on_devnet: Annotated[
        bool, typer.Option("--devnet", help="With the key of a devnet's arbiter, which everybody knows")
    ] = False,
) -> None:
    """Run until SIGTERM. What can't be told it leaves unanswered, says why, and tries again until its time is over.

    Settings are in the section "arbiter" of market.toml, too. The exit code with --once: 0 all were ruled on; 4 it was
    silent on some; 1 an error.
    """
    own = load_arbiter_settings(key=key, contract=contract, poll_seconds=poll)
    configure_logs(own.log_level, own.log_format)
    settings = load_settings(market_url=market)
    chain = connect(settings)
    account, encryption = _devnet_key(chain) if on_devnet else unlock(keys.choose(own.key or settings.key))
    arbiter = _operated(chain, own.contract or settings.require("arbiter"), account.address)
    metrics, stop = ArbiterMetrics(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        MarketClient(settings.require("market_url"), signer=Signer(account, chain.domain)) as client,
        _watch() as watch,
    ):
        say(f"Arbiter {arbiter.address}, by its operator {account.address}, for the market at {client.url}")
        options = ReplayOptions(
            gpus=own.gpus, sandbox=own.sandbox, image=own.image, disk_mb=own.disk_mb, hosts=own.hosts, watch=watch
        )
        judge = Judge(client, chain, account, encryption, checker(settings), options, own.runs)
        service = Arbiter(arbiter, judge, Sender(chain, account), metrics, dry_run=dry_run, stop=stop)
        if own.metrics_port is not None:
            metrics.serve(own.metrics_host, own.metrics_port)
        if once:
            _look_once(service, dry_run)
        else:
            service.run(own.poll_seconds)
    say("Arbiter stopped.")


def _look_once(service: Arbiter, dry_run: bool) -> None:
    silent = False
    try:
        for outcome in service.look():
            silent = silent or outcome.verdict is None
            _show(outcome, dry_run)
    except Stopping:
        raise typer.Exit(130) from None
    if silent:
        raise typer.Exit(SILENT)


def _show(outcome: Hearing, dry_run: bool) -> None:
    question, verdict = outcome.dispute.question, outcome.verdict
    said = "silent" if verdict is None else f"{'would rule ' if dry_run else ''}{verdict} {verdict.said}"
    say(f"dispute {question.id}: checkpoint {question.k} of lease {question.lease}: {said}: {outcome.why}")
    if outcome.hint:
        say(f"hint: {outcome.hint}")


def _operated(chain: Chain, address: str, operator: str) -> OperatorArbiter:
    """The contract, if this key may rule there. Raises UserError."""
    found = OperatorArbiter(chain, address)
    if (there := found.operator()) is None:
        raise UserError(
            f"the contract at {found.address} is no OperatorArbiter",
            "give its address by --contract, or in config.toml",
        )
    if there != operator:
        raise UserError(
            f"the operator of the arbiter {found.address} is {there}, and the key is {operator}'s",
            "give the operator's key by --key; a devnet's has --devnet",
        )
    if (escrow := found.escrow()) != chain.domain.verifying_contract:
        raise UserError(
            f"the arbiter {found.address} takes questions of the escrow {escrow}, and the settings name "
            f"{chain.domain.verifying_contract}",
            "give the arbiter of this escrow by --contract",
        )
    return found


def _devnet_key(chain: Chain) -> tuple[LocalAccount, PrivateKey]:
    """Of anvil's first account. It has no encryption key of its own, so sealed jobs stay closed to it."""
    if not (version := chain.w3.client_version).startswith("anvil/"):
        raise UserError(f"the node is {version}, not a devnet's anvil", "give the operator's key by --key")
    return devnet.accounts()[0], PrivateKey.generate()


@contextmanager
def _watch() -> Iterator[Watch]:
    """A bar on a terminal; else what goes on is logged now and then."""
    if sys.stderr.isatty():
        with watching(PlainConsole(stderr=True)) as watch:
            yield watch
    else:
        yield _Logged()


class _Logged:
    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        if time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            log.info("arbiter.progress", what=what, done=done, total=total)

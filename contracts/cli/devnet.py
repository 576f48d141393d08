"""`gpumarket devnet`: a local chain until Ctrl-C."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from contracts.chain.devnet.devnet import FAST, MNEMONIC, Devnet, DevnetTiming, start_devnet
from contracts.errors import UserError
from contracts.settings import CONFIG_NAME, home

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def devnet(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.", min=0, max=65535)] = 8545,
    block_time: Annotated[
        float, typer.Option(help="Seconds between empty blocks; a transaction makes its own at once.", min=0.1)
    ] = 1,
    fast: Annotated[bool, typer.Option("--fast", help="Windows and timeouts of seconds, to watch them pass.")] = False,
    window: Annotated[int | None, typer.Option(help="Acceptance window of the rule-sets, seconds.", min=1)] = None,
    checkpoint_timeout: Annotated[
        int | None, typer.Option(help="Longest silence, but for 'interruptible', seconds.", min=1)
    ] = None,
    interruptible_timeout: Annotated[
        int | None, typer.Option(help="Longest silence under 'interruptible', seconds.", min=1)
    ] = None,
    arbiter_timeout: Annotated[
        int | None, typer.Option(help="When an arbiter counts as silent, seconds.", min=1)
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Read the chain from this file, if it exists, and write it at the end.")
    ] = None,
) -> None:
    """Run a local chain with the contracts on it, until Ctrl-C. For development: its keys are public."""
    chosen = {
        "window": window,
        "checkpoint_timeout": checkpoint_timeout,
        "interruptible_timeout": interruptible_timeout,
        "arbiter_timeout": arbiter_timeout,
    }
    timing = replace(
        FAST if fast else DevnetTiming(), **{name: value for name, value in chosen.items() if value is not None}
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with start_devnet(home(), port, block_time=block_time, timing=timing, state=state) as running:
            _announce(running, state)
            _wait(running)
    except KeyboardInterrupt:
        typer.echo("\nstopped" + (f"; the chain is in {state}" if state else ""))


def _announce(running: Devnet, state: Path | None) -> None:
    settings, deployment = running.settings, running.deployment
    came = f"came with {state}" if running.reused else "deployed"
    typer.echo(f"chain     {settings.rpc_url} (id {settings.chain_id}, process {running.process.pid})")
    typer.echo(f"escrow    {deployment.escrow} ({came})")
    typer.echo(f"token     {deployment.token}")
    typer.echo(f"epoch log {deployment.epoch_log}")
    typer.echo(f"arbiter   {deployment.arbiter} (operator {running.operator.address})")
    for name, rules in settings.rules.items():
        typer.echo(
            f"rules     {name}: window {rules.window} s, silence at most {rules.checkpoint_timeout} s, "
            f"arbiter {rules.arbiter_timeout} s"
        )
    typer.echo(f"config    {running.home / CONFIG_NAME} (every gpumarket command on this machine reads it)")
    typer.echo(f"keys      anvil's, known to all: {MNEMONIC}")
    typer.echo("\nNext, in another terminal:")
    typer.echo("  gpumarket wallet new alice")
    typer.echo("  gpumarket wallet faucet --key alice")
    typer.echo("  gpumarket wallet deposit 100 --key alice")
    typer.echo(
        "\nCtrl-C stops it" + (f" and writes {state}." if state else "; nothing is kept (--state FILE keeps it).")
    )


def _wait(running: Devnet) -> None:
    while True:
        try:
            code = running.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            continue
        raise UserError(f"anvil stopped with code {code}", f"see {running.home / 'devnet.log'}")

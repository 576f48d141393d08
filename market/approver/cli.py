"""`gpumarket approver start`."""

import signal
import threading
from typing import Annotated

import typer

from contracts import keys
from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.sealing_keys import unlock
from contracts.settings import home, load_settings
from market.approver.memory import Memory
from market.approver.service import Approver

app = typer.Typer(
    help="Check reported checkpoints for clients, and sign for those that are right.", no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Check reported checkpoints for clients, and sign for those that are right."""


@app.command()
def start(
    key: Annotated[str | None, typer.Option(help="Name of the key that signs; needs a little gas money")] = None,
    market: Annotated[str | None, typer.Option(help="URL of the market")] = None,
    poll: Annotated[float, typer.Option(help="Seconds between looks at the market", min=0.05)] = 1.0,
) -> None:
    """Run until SIGTERM. Approvals already signed are remembered in the home folder, and never contradicted."""
    settings = load_settings(market_url=market)
    name = keys.choose(key or settings.key)
    account, own = unlock(name)
    chain = connect(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with MarketClient(settings.require("market_url"), signer=Signer(account, chain.domain)) as client:
        info = client.info()
        typer.echo(f"Approver {account.address} (key '{name}') for the market at {client.url}, escrow {info.escrow}")
        Approver(client, chain, account, own, Memory(home() / "approver" / name)).run(stop, poll)
    typer.echo("Approver stopped; what it signed is on disk.")

"""`gpumarket job auditor`: let somebody read a job."""

import time
from typing import Annotated

import typer
from pydantic import ValidationError

from contracts.api.bodies import AuditorIn
from contracts.api.client import MarketClient
from contracts.cli.jobs import JobId, MarketUrl, chosen_job
from contracts.cli.output import Output, OutputOption, console
from contracts.errors import UserError
from contracts.orders import AuditorGrant, Domain
from contracts.settings import load_settings
from contracts.wallet import keys

app = typer.Typer()


@app.command()
def auditor(
    job: JobId,
    address: Annotated[str, typer.Argument(help="Address of who may read it", show_default=False)],
    days: Annotated[float, typer.Option(help="For how long. It can't be taken back", min=0.001, max=3650)] = 7,
    key: Annotated[str | None, typer.Option(help="Name of the key of the job's client")] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let somebody read a job's files, checkpoints and logs for a while, such as a person who re-runs it."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        try:
            grant = AuditorGrant(job=found.id, auditor=address, valid_until=int(time.time() + days * 86_400))
        except ValidationError as error:
            raise UserError(f"{address!r} is not an address: {error.errors()[0]['msg']}") from error
        own = next((name for name, mine in keys.list_keys().items() if mine == found.bid.client), None)
        account = keys.load(keys.choose(key or own or settings.key))
        domain = Domain(chain_id=settings.require("chain_id"), verifying_contract=settings.require("escrow"))
        named = client.name_auditor(AuditorIn(grant=grant, signature=grant.sign(domain, account)))
    if output is Output.JSON:
        typer.echo(named.model_dump_json(indent=2))
    else:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(named.valid_until))
        console.print(f"{named.auditor} may read job {found.id[:12]} until {until}", soft_wrap=True)
        if found.spec.sealed:
            console.print(
                f"The job is sealed, so it needs the job's key, too: gpumarket job grant {found.id[:12]} "
                f"{named.auditor}   (when it has registered an encryption key, as its first `job pull` does)",
                soft_wrap=True,
            )

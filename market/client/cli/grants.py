"""`gpumarket job grant`: give somebody the key of a sealed job."""

from typing import Annotated

import typer
from eth_utils.address import is_address, to_checksum_address

from contracts.api.client import MarketClient
from contracts.api.grants import fresh_key, granted_job_key, make_grant
from contracts.cli.jobs import JobId, MarketUrl, checker, chosen_job, domain_of, own_key
from contracts.cli.output import Output, OutputOption, console
from contracts.errors import UserError
from contracts.settings import load_settings
from contracts.wallet.encryption_keys import unlock

app = typer.Typer()


@app.command()
def grant(
    job: JobId,
    address: Annotated[str, typer.Argument(help="Address of who gets the key", show_default=False)],
    key: Annotated[str | None, typer.Option(help="Name of the key of the job's client or approver")] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give somebody the key of a sealed job, such as an auditor. It can't be taken back.

    The approver gives it to providers by itself while `gpumarket approver start` runs.
    """
    if not is_address(address):
        raise UserError(f"{address!r} is not an address", "0x and 40 hex digits")
    reader = to_checksum_address(address)
    settings = load_settings(market_url=market)
    domain, is_signed = domain_of(settings), checker(settings)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        if not found.spec.sealed:
            raise UserError(f"job {found.id[:12]} is not sealed: whoever may read it needs no key")
        reader_key = fresh_key(client, reader, is_signed)
        if reader_key is None:
            raise UserError(
                f"{reader} has registered no encryption key at {client.url} within a day",
                f"It does by `gpumarket job pull {found.id[:12]}`; a provider by starting on the job, or by an Ask "
                "under audited rules.",
            )
        account, own = unlock(own_key(settings, found, key))
        job_key = granted_job_key(client, domain, found, account, own, is_signed)
        body = client.post_grant(make_grant(domain, account, found.id, reader, reader_key, job_key))
    if output is Output.JSON:
        typer.echo(body.model_dump_json(by_alias=True, indent=2))
    else:
        console.print(f"{reader} has the key of job {found.id[:12]} now", soft_wrap=True)

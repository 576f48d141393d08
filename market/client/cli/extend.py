"""`gpumarket job extend`: a follow-up job with the files of one that is over."""

from typing import Annotated

import typer

from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.cli.output import Output, OutputOption
from contracts.errors import UserError
from contracts.settings import load_settings
from market.client import submit as submitting
from market.client.cli.common import (
    ENDED,
    ClientKey,
    DryRun,
    JobId,
    MarketUrl,
    Yes,
    check_is_ours,
    chosen_job,
    client_key,
    same_time,
    status_of,
)
from market.client.cli.hand_in import hand_in
from market.client.download import accepted_chain, check_against_chain

app = typer.Typer()


@app.command()
def extend(
    job: JobId,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps after the last accepted checkpoint; default: the rest of the job")
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(help="Tokens per checkpoint at most, fee included; default: as before")
    ] = None,
    deadline: Annotated[str | None, typer.Option(help="When it must be done, such as 2030-01-31T12:00:00Z")] = None,
    valid_for: Annotated[int | None, typer.Option(min=1, help="Seconds in which leases may be opened")] = None,
    key: ClientKey = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Go on from the last accepted checkpoint of a job that is over: a follow-up job with the same files."""
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        if found.status not in ENDED:
            raise UserError(
                f"job {found.id[:12]} is not over ({status_of(found)}), so two would go on from its checkpoints",
                "Wait for it (gpumarket job wait), or cancel it first (gpumarket job cancel).",
            )
        check_is_ours(chain, found)
        same_time(client, chain)
        name = client_key(found, key)
        records = accepted_chain(client, found)
        check_against_chain(chain, found, records)
        offer = submitting.prepare_follow_up(
            client,
            chain.domain,
            found,
            records[-1].checkpoint.tip if records else found.bid.start_tip,
            steps=steps,
            max_price=max_price,
            deadline=deadline,
            valid_for=valid_for,
        )
        hand_in(client, chain, name, offer, yes=yes, dry_run=dry_run, output=output)

"""`gpumarket job extend`: a follow-up job with the files of one that is over."""

from typing import Annotated

import typer

from contracts.cli.jobs import JobId, MarketUrl
from contracts.cli.output import Output, OutputOption
from contracts.errors import UserError
from market.client import submit as submitting
from market.client.cli.common import (
    ENDED,
    ClientKey,
    DryRun,
    NewPrice,
    Yes,
    own_job,
    reached_on_chain,
    same_time,
    status_of,
)
from market.client.cli.hand_in import hand_in
from market.client.replacing import OldBid

app = typer.Typer()


@app.command()
def extend(
    job: JobId,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps after the last accepted checkpoint; default: the rest of the job")
    ] = None,
    max_price: NewPrice = None,
    deadline: Annotated[str | None, typer.Option(help="When it must be done, such as 2030-01-31T12:00:00Z")] = None,
    valid_for: Annotated[int | None, typer.Option(min=1, help="Seconds in which leases may be opened")] = None,
    key: ClientKey = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Go on from the last accepted checkpoint of a job that is over: a follow-up job with the same files."""
    with own_job(job, key, market) as (client, chain, found, name):
        same_time(client, chain)
        if found.status not in ENDED:
            raise UserError(
                f"job {found.id[:12]} is not over ({status_of(found)}), so two would go on from its checkpoints",
                "Wait for it (gpumarket job wait), or cancel it first (gpumarket job cancel).",
            )
        reached = reached_on_chain(client, chain, found, OldBid(chain, found))
        offer = submitting.prepare_follow_up(
            client,
            chain.domain,
            found,
            reached.tip,
            steps=steps,
            max_price=max_price,
            deadline=deadline,
            valid_for=valid_for,
        )
        hand_in(client, chain, name, offer, yes=yes, dry_run=dry_run, output=output)

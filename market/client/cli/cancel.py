"""`gpumarket job cancel`: one transaction, shown before it is sent."""

from typing import Any

import typer

from contracts.api.info import Info
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.jobs import JobId, MarketUrl
from contracts.cli.output import Output, OutputOption, PlainConsole, marked, tokens
from contracts.clocks import utc_text
from contracts.strict_json import write_json
from contracts.wallet import keys
from market.client.cancellation import Cancellation, plan_cancellation
from market.client.cli.common import ClientKey, DryRun, Yes, beside_json, confirm, own_job

app = typer.Typer()


@app.command()
def cancel(
    job: JobId,
    key: ClientKey = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop a job for good. What is accepted is paid; the rest of its money comes back."""
    with own_job(job, key, market) as (client, chain, found, name):
        info, chosen = client.info(), plan_cancellation(client, chain, found)
    say = beside_json(output)
    # Not even what an earlier command has left to send leaves in a dry run.
    sender = Sender(chain, keys.load(name), allowed=lambda: not dry_run)
    most = sender.cost(chosen.call)
    explain_cancellation(say, chosen, info, most)
    result: dict[str, Any] = {
        "job": found.id,
        "what": chosen.what,
        "refund": str(chosen.refund),
        "free_at": chosen.free_at,
        "also_cancelled": [other.id for other in chosen.others],
        "max_cost_wei": str(most),
        "dry_run": dry_run,
    }
    if dry_run:
        say.print("Dry run: nothing was sent.")
    else:
        confirm("Cancel the job?", yes, say)
        receipt = sender.send(chosen.call, key=chosen.key)
        gas = receipt["gasUsed"] * receipt["effectiveGasPrice"]
        result |= {"transaction": receipt["transactionHash"].to_0x_hex(), "cost_wei": str(gas)}
        say.print(f"Done in block {receipt['blockNumber']}, for {format_ether(gas)} ETH of gas.", highlight=False)
    if output is Output.JSON:
        typer.echo(write_json(result, indent=2))


def explain_cancellation(say: PlainConsole, chosen: Cancellation, info: Info, most: int) -> None:
    """`most`: wei of gas."""
    gas = f"Gas: at most {format_ether(most)} ETH."
    say.print(f"To cancel it: {chosen.what}. {gas}", highlight=False, soft_wrap=True)
    if chosen.free_at is not None:
        say.print(
            f"Free again: {tokens(chosen.refund, info)}, at {utc_text(chosen.free_at)}, when the window has passed.",
            highlight=False,
        )
    elif not chosen.refund:
        say.print("No money is locked for it: all of it is free already.")
    if chosen.warning:
        say.print(marked("[yellow]Note:[/] {}.", chosen.warning), highlight=False, soft_wrap=True)
    for other in chosen.others:
        say.print(
            marked("[yellow]Also cancelled:[/] {} {}, which waits too", other.id[:12], other.name), highlight=False
        )

"""`gpumarket job cost`, `cancel` and `extend`: a job's money, and what changes it."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contracts.api.bodies import Info, JobOut
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.output import Output, OutputOption, console, print_whole, tokens
from contracts.errors import UserError
from contracts.settings import load_settings
from contracts.wallet import keys
from market.client import submit as submitting
from market.client.cli.common import (
    ENDED,
    JobId,
    MarketUrl,
    Yes,
    confirm,
    find_job_by_prefix,
    hand_in,
    local,
    status_of,
)
from market.client.download import accepted_chain, check_against_chain
from market.client.spending import MONEY, Cancellation, plan_cancellation, row_of

app = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; sign and send nothing")]
ClientKey = Annotated[str | None, typer.Option("--key", help="The client's key, if it has another name here")]


@app.command()
def cost(job: JobId, market: MarketUrl = None, output: OutputOption = Output.TABLE) -> None:
    """Show what a job has cost, lease by lease: paid, fees, refunds, penalties, and what is still locked."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        info, found = client.info(), find_job_by_prefix(client, job)
    rows = [row_of(lease) for lease in found.leases]
    total = {name: sum(row[name] for row in rows) for name in MONEY}
    spent = total["paid"] + total["fees"] - total["penalty"]
    if output is Output.JSON:
        leases = [{"lease": lease.id, "provider": lease.provider} | _texts(row_of(lease)) for lease in found.leases]
        answer = {"job": found.id, "leases": leases, "total": _texts(total | {"spent": spent})}
        typer.echo(json.dumps(answer, indent=2))
        return
    table = Table(
        "lease", "provider", "paid for", "price", *MONEY, "state",
        title=f"{found.name}  {found.id}  {status_of(found)}", box=None, pad_edge=False, title_justify="left",
    )  # fmt: skip
    for lease, row in zip(found.leases, rows, strict=True):
        amounts = [tokens(row[name], info) for name in ("price", *MONEY)]
        state = lease.finished or lease.state.phase
        table.add_row(lease.id[:12], lease.provider[:12], str(row["checkpoints"]), *amounts, state)
    print_whole(console, table)
    console.print(
        f"spent {tokens(spent, info)} for {found.accepted} of {found.bid.checkpoints} checkpoints, "
        f"{tokens(total['locked'], info)} locked; at most {tokens(found.bid.max_price, info)} per checkpoint",
        highlight=False,
    )


def _texts(row: dict[str, int]) -> dict[str, int | str]:
    """As everywhere in JSON: amounts are decimal text, in the token's smallest unit."""
    return {name: value if name == "checkpoints" else str(value) for name, value in row.items()}


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
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        info, found = client.info(), find_job_by_prefix(client, job)
        _check_is_ours(chain, found)
        chosen = plan_cancellation(client, chain, found)
    sender_name = _client_key(found, key)
    say = console if output is Output.TABLE else Console(stderr=True)
    # Not even what an earlier command has left to send leaves in a dry run.
    sender = Sender(chain, keys.load(sender_name), allowed=lambda: not dry_run)
    most = sender.cost(chosen.call)
    _explain(say, chosen, info, most)
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
        typer.echo(json.dumps(result, indent=2))


def _explain(say: Console, chosen: Cancellation, info: Info, most: int) -> None:
    """`most`: wei of gas."""
    gas = f"Gas: at most {format_ether(most)} ETH."
    say.print(f"To cancel it: {chosen.what}. {gas}", highlight=False, soft_wrap=True)
    if chosen.free_at is not None:
        say.print(
            f"Free again: {tokens(chosen.refund, info)}, at {local(chosen.free_at)}, when the window has passed.",
            highlight=False,
        )
    else:
        say.print("No money is locked for it: all of it is free already.")
    if chosen.warning:
        say.print(f"[yellow]Note:[/] {chosen.warning}.", highlight=False, soft_wrap=True)
    for other in chosen.others:
        say.print(f"[yellow]Also cancelled:[/] {other.id[:12]} {other.name}, which waits too", highlight=False)


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
        found = find_job_by_prefix(client, job)
        if found.status not in ENDED:
            raise UserError(
                f"job {found.id[:12]} is not over ({status_of(found)}), so two would go on from its checkpoints",
                "Wait for it (gpumarket job wait), or cancel it first (gpumarket job cancel).",
            )
        _check_is_ours(chain, found)
        name = _client_key(found, key)
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


def _check_is_ours(chain: Chain, job: JobOut) -> None:
    """A market could show another Bid under this id."""
    if job.bid.digest(chain.domain) != job.id:
        raise UserError(f"the market's Bid is not that of job {job.id}", "Nothing is signed or sent.")


def _client_key(job: JobOut, key: str | None) -> str:
    """The name of the key that is the job's client. Raises UserError if it is not here."""
    known = keys.list_keys()
    own = next((name for name, address in known.items() if address == job.bid.client), None)
    if key is not None and keys.address(key) != job.bid.client:
        raise UserError(
            f"only its client {job.bid.client} can do that; the key '{key}' is {keys.address(key)}",
            f"--key {own}" if own else "Its key is not here. Another home: GPUMARKET_HOME=...",
        )
    if own is None:
        raise UserError(
            f"only its client {job.bid.client} can do that, and its key is not here",
            f"Keys here: {', '.join(known) or 'none'}. Another home: GPUMARKET_HOME=...",
        )
    return key or own

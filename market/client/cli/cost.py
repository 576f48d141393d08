"""`gpumarket job cost`: where a job's money is, lease by lease."""

import typer
from rich.table import Table

from contracts.api.bodies import LeaseSummary
from contracts.api.client import MarketClient
from contracts.cli.jobs import JobId, MarketUrl, chosen_job
from contracts.cli.output import Output, OutputOption, console, print_whole, tokens
from contracts.settings import load_settings
from contracts.strict_json import write_json
from market.client.cli.common import status_of

app = typer.Typer()

MONEY = ("paid", "fees", "refunded", "penalty", "locked")


@app.command()
def cost(job: JobId, market: MarketUrl = None, output: OutputOption = Output.TABLE) -> None:
    """Show what a job has cost, lease by lease: paid, fees, refunds, penalties, and what is still locked."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        info, found = client.info(), chosen_job(client, job)
    rows = [_row(lease) for lease in found.leases]
    total = {name: sum(row[name] for row in rows) for name in MONEY}
    spent = total["paid"] + total["fees"] - total["penalty"]
    if output is Output.JSON:
        leases = [{"lease": lease.id, "provider": lease.provider} | _texts(_row(lease)) for lease in found.leases]
        answer = {"job": found.id, "leases": leases, "total": _texts(total | {"spent": spent})}
        typer.echo(write_json(answer, indent=2))
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


def _row(lease: LeaseSummary) -> dict[str, int]:
    """What a lease has cost its client, in token units; `checkpoints` are those paid for, `locked` is held still."""
    settled = lease.paid // lease.price
    unsettled = lease.end - lease.start - settled if lease.finished is None else 0
    return {
        "checkpoints": settled,
        "price": lease.price,
        "paid": lease.paid,
        "fees": lease.fee * settled,
        "refunded": lease.refunded,
        "penalty": lease.penalty,
        "locked": (lease.price + lease.fee) * unsettled,
    }

"""`gpumarket audit`: what was drawn, replayed and found of a job, and whether that is as its rules promise."""

from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.api.bodies import JobOut
from contracts.api.client import MarketClient
from contracts.audits.levels import BY_HASH
from contracts.audits.verification import Verification
from contracts.chain.client import connect
from contracts.cli.jobs import ID, JobId, MarketUrl, chosen_job
from contracts.cli.output import Output, OutputOption, console, print_whole, say
from contracts.settings import load_settings
from contracts.strict_json import write_json
from market.client.audit_check import AuditCheck, LeaseNotes, read_notes

app = typer.Typer(no_args_is_help=True, add_completion=False, help="See and check what was replayed of a job.")


@app.command("list")
def list_audits(
    approver: Annotated[str | None, typer.Option(help="Address of an approver; default: all")] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Leases under audit, the newest last: what was drawn of them, and what that came to."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        found: dict[str, dict[str, Any]] = {}
        for out in client.audit_notes(approver=approver):
            row = found.setdefault(
                out.lease, {"lease": out.lease, "job": out.job, "batches": 0, "drawn": [], "rulings": {}, "over": False}
            )
            content = out.content.model_dump(mode="json")
            if content["kind"] == "batch":
                row["batches"] += 1
                row["drawn"] += content["drawn"]
            elif content["kind"] == "ruling":
                row["rulings"][str(content["n"])] = content["ruling"]
            elif content["kind"] == "secret":
                row["over"] = True
    rows = list(found.values())
    if output is Output.JSON:
        typer.echo(write_json(rows, indent=2))
        return
    table = Table("lease", "job", "batches", "drawn", "found", "secret", box=None)
    for row in rows:
        rulings = ", ".join(f"{n} {ruling}" for n, ruling in row["rulings"].items())
        drawn = ", ".join(map(str, sorted(row["drawn"])))
        shown = "shown" if row["over"] else ""
        table.add_row(row["lease"][:ID], row["job"][:ID], str(row["batches"]), drawn or "-", rulings or "-", shown)
    print_whole(console, table) if rows else say("no approver has told of an audit here yet")


@app.command()
def show(job: JobId, market: MarketUrl = None, output: OutputOption = Output.TABLE) -> None:
    """Each checkpoint of a job: whether it was drawn, who replayed it, and what that came to."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        chain = connect(settings)
        approver = found.bid.effective_approver
        notes = [read_notes(client, chain, lease.id, approver) for lease in found.leases]
    rows = [row for one in notes for row in _rows(one)]
    if output is Output.JSON:
        typer.echo(write_json(rows, indent=2))
        return
    table = Table("checkpoint", "lease", "drawn", "replayed by", "found", box=None)
    for row in rows:
        by = ", ".join(f"{one['auditor'] or 'the approver'} ({one['outcome']})" for one in row["replays"])
        table.add_row(
            str(row["n"]), row["lease"][:ID], "yes" if row["drawn"] else "no", by or "-", row["ruling"] or "-"
        )
    print_whole(console, table) if rows else say(f"nothing was drawn of job {found.id[:ID]} yet")
    for one in notes:
        for strange in one.strange:
            say(f"not counted: {strange}")


def _rows(notes: LeaseNotes) -> list[dict[str, Any]]:
    return [
        {
            "n": claim.n,
            "lease": notes.lease,
            "tip": claim.tip,
            "drawn": claim.n in batch.drawn,
            "replays": [one.model_dump(mode="json") for one in notes.replays if one.n == claim.n],
            "ruling": notes.rulings.get(claim.n),
        }
        for batch in notes.batches
        for claim in batch.claims
    ]


@app.command()
def verify(job: JobId, market: MarketUrl = None, output: OutputOption = Output.TABLE) -> None:
    """Check that exactly what the approver's secret draws was replayed, and that replays came to what it says.

    The exit code is 3 if something is not as the rules promise.
    """
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        shown = {rule_set.rules.struct_hash(): rule_set.verification for rule_set in client.info().rules}
        checked = list(AuditCheck(client, connect(settings), found, lambda rules: _of(found, rules, shown)).leases())
    if output is Output.JSON:
        typer.echo(write_json([vars(one) for one in checked], indent=2))
    else:
        for one in checked:
            drawn = ", ".join(map(str, one.drawn)) or "nothing"
            say(f"lease {one.lease[:ID]} ({one.level}): drawn: {drawn}; {one.judged} judged")
            for problem in one.problems:
                say(f"  NO  {problem}")
            for remark in one.remarks:
                say(f"  ?   {remark}")
            if not one.problems:
                say("  ok  what is shown is as its rules promise")
        if not checked:
            say(f"job {found.id[:ID]} has had no lease yet")
    if any(one.problems for one in checked):
        raise typer.Exit(3)


def _of(job: JobOut, rules: str, shown: dict[str, Verification | None]) -> Verification | None:
    found = shown.get(rules)
    return BY_HASH.get(found.hash(), found) if found is not None else None

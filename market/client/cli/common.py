"""What the `gpumarket job` commands share: options, finding a job, tables, and the way from a quote to a job."""

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from contracts.amounts import format_amount
from contracts.api import receipts
from contracts.api.access import Signer
from contracts.api.bodies import Info, JobOut, JobStatus
from contracts.api.client import MarketClient, Unreachable
from contracts.api.grants import Check
from contracts.chain.client import Chain, connect
from contracts.chain.signatures import is_signed_by
from contracts.cli.output import Output, console, print_whole, tokens
from contracts.errors import UserError
from contracts.orders import Domain, SignedType
from contracts.settings import Settings
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from market.client import job_keys
from market.client import submit as submitting
from market.client.job_keys import Reading

ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)

JobId = Annotated[str, typer.Argument(help="The job's id, or its first hex digits", show_default=False)]
MarketUrl = Annotated[str | None, typer.Option("--market", help="URL of the market")]
ReadingKey = Annotated[str | None, typer.Option("--key", help="Key that may read the job; default: its client's")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask")]


def hand_in(
    client: MarketClient,
    chain: Chain,
    name: str,
    offer: submitting.Submission,
    *,
    yes: bool,
    dry_run: bool,
    output: Output,
) -> None:
    """Shows an offer; after a yes signs its Bid with the key `name` and hands the job in."""
    say = console if output is Output.TABLE else Console(stderr=True)
    if output is Output.TABLE or not yes:
        print_whole(say, quote_table(offer))
    for warning in offer.quote.warnings:
        say.print(f"[yellow]Note:[/] {warning}", highlight=False)
    for twin in submitting.same_again(client, offer):
        say.print(
            f"[yellow]Note:[/] this very job is in already: {twin.id[:12]}, {twin.status}. This would be one more.",
            highlight=False,
        )
    if dry_run:
        if output is Output.JSON:
            typer.echo(offer.quote.model_dump_json(by_alias=True, indent=2))
        else:
            say.print("Dry run: nothing was signed or sent.")
        return
    if offer.quote.missing:
        short = format_amount(offer.quote.missing, offer.info.token_decimals)
        raise UserError(
            f"the job may cost {offer.tokens(offer.quote.highest_cost)}, and {name} has "
            f"{offer.tokens(offer.quote.free)} free in the escrow: {short} are missing",
            f"gpumarket wallet deposit {short} --key {name}",
        )
    confirm("Sign the Bid and hand the job in?", yes, say)
    account, own = unlock(name) if offer.spec.sealed else (keys.load(name), None)
    client.signer = Signer(account, chain.domain)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        total = sum(ref.size for ref in offer.uploads.values())
        task = progress.add_task("uploading", total=total)
        body = submitting.sign(client, chain.domain, account, offer, lambda _, size: progress.advance(task, size), own)
    made = client.post_bid(body)
    try:
        receipts.keep_receipt(chain.domain, offer.info.matcher, body, made.receipt)
    except UserError as error:  # the job is in all the same
        say.print(f"[yellow]Note:[/] {error.message}. {error.hint}", highlight=False, soft_wrap=True)
    if output is Output.JSON:
        typer.echo(made.model_dump_json(by_alias=True, indent=2))
    else:
        console.print(
            f"Job [bold]{made.id}[/] is in. Watch it: gpumarket job show {made.id[:12]} --watch", soft_wrap=True
        )


def confirm(question: str, yes: bool, say: Console) -> None:
    """Asks, unless `yes`. Ends the program if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        say.print("--yes was not given.")
    if not typer.confirm(question, err=True):
        say.print("Nothing was signed or sent.")
        raise typer.Exit(1)


def find_job_by_prefix(client: MarketClient, prefix: str) -> JobOut:
    """The job whose id starts with `prefix`."""
    digits = prefix.lower().removeprefix("0x")
    if not re.fullmatch("[0-9a-f]{1,64}", digits):
        raise UserError(f"{prefix!r} is not a job's id, nor its first hex digits", "See `gpumarket job list`.")
    if len(digits) == 64:
        return client.job(f"0x{digits}")
    found = [job for job in client.jobs() if job.id.startswith("0x" + digits)]
    if len(found) != 1:
        hint = "Give more digits." if found else "See `gpumarket job list`."
        raise UserError(f"{len(found) or 'no'} jobs have an id that starts with {prefix!r}", hint)
    return found[0]


def reader(settings: Settings, client: MarketClient, job: JobOut, key: str | None) -> Reading:
    """For what only some may read of a job: with the key named, else its client's or approver's if it is here.

    `client` signs its requests with it from now on.
    """
    name, domain = own_key(settings, job, key), domain_of(settings)
    if not job.spec.sealed:
        reading = Reading(Signer(keys.load(name), domain), None)
    else:
        account, own = unlock(name)
        reading = Reading(
            Signer(account, domain), job_keys.job_key(client, domain, job, account, own, checker(settings))
        )
    client.signer = reading.signer
    return reading


def own_key(settings: Settings, job: JobOut, key: str | None) -> str:
    """Name of the key given, else of the job's client's or approver's if it is here, else of the settings'."""
    parties = (job.bid.client, job.bid.effective_approver)
    own = next((name for name, address in keys.list_keys().items() if address in parties), None)
    return keys.choose(key or own or settings.key)


def checker(settings: Settings) -> Check:
    """Of signatures. The chain is asked only about those that may be a contract wallet's."""
    domain, chain = domain_of(settings), cache(lambda: connect(settings))

    def is_signed(message: SignedType, signer: str, signature: str) -> bool:
        return message.signer(domain, signature) == signer or is_signed_by(chain(), message, signer, signature)

    return is_signed


def domain_of(settings: Settings) -> Domain:
    return Domain(chain_id=settings.require("chain_id"), verifying_contract=settings.require("escrow"))


def watch_job(client: MarketClient, info: Info, job: JobOut) -> JobOut:
    """Refresh once a second until the job is over."""
    with Live(job_table(job, info), console=console, auto_refresh=False) as live:
        while job.status not in ENDED:
            time.sleep(1)
            try:
                job = client.job(job.id)
            except Unreachable:
                continue  # markets restart; the job goes on without them
            live.update(job_table(job, info), refresh=True)
    return job


def status_of(job: JobOut) -> str:
    return f"{job.status} ({job.reason})" if job.reason else str(job.status)


def quote_table(offer: submitting.Submission) -> Table:
    quote, bid = offer.quote, offer.quote.bid
    deadline = f" (its deadline is {offer.spec.deadline})" if offer.spec.deadline else ""
    table = Table(title=f"Quote for {offer.name}", box=None, show_header=False, pad_edge=False, title_justify="left")
    table.add_row("job's hash", quote.job)
    table.add_row("checkpoints", f"{bid.checkpoints}, {bid.units} work units each")
    table.add_row("machines that fit now", str(quote.matching_asks))
    if quote.lowest_limit is not None:
        table.add_row("lowest max_price", f"{offer.tokens(quote.lowest_limit)} per checkpoint")
    if quote.likely_price is not None and quote.likely_cost is not None and quote.seconds_per_checkpoint is not None:
        table.add_row(
            "likely price",
            f"{offer.tokens(quote.likely_price)} per checkpoint, fee of {offer.tokens(bid.fee)} included; each "
            f"{quote.seconds_per_checkpoint:.1f} s",
        )
        table.add_row("likely cost", offer.tokens(quote.likely_cost))
        if offer.seconds is not None:
            table.add_row("done", f"in {timedelta(seconds=round(offer.seconds))} on that machine, if it starts at once")
    table.add_row("at most", f"{offer.tokens(quote.highest_cost)}, {offer.tokens(bid.max_price)} per checkpoint")
    table.add_row("leases open until", f"{local(bid.valid_until)}{deadline}")
    table.add_row("provider's stake", offer.tokens(bid.stake))
    table.add_row("approver", bid.effective_approver)
    if offer.spec.sealed:
        table.add_row("sealed", "files, checkpoints and logs; you, the approver and providers have the key")
    table.add_row("your free balance", offer.tokens(quote.free))
    if quote.missing:
        table.add_row("[yellow]missing", f"[yellow]{offer.tokens(quote.missing)}: gpumarket wallet deposit")
    return table


def job_table(job: JobOut, info: Info) -> Table:
    title = f"{job.name}  {job.id}  {status_of(job)}"
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in job.metrics.items() if value is not None)
    caption = f"{job.accepted} of {job.bid.checkpoints} checkpoints accepted, paid {tokens(job.paid, info)}"
    table = Table(
        "lease", "provider", "checkpoints", "accepted", "price", "paid", "state",
        title=title, caption=f"{caption}, fees {tokens(job.fees, info)}  {metrics}", box=None, pad_edge=False,
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for lease in job.leases:
        table.add_row(
            lease.id[:12], lease.provider[:12], f"{lease.start + 1}-{lease.end}", str(lease.state.accepted),
            tokens(lease.price, info), tokens(lease.paid, info),
            (lease.finished or lease.state.phase) + ("" if lease.final else ", not final yet"),
        )  # fmt: skip
    return table


def local(seconds: int) -> str:
    """UTC seconds as people read them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

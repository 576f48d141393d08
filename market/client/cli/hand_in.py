"""From a quote to a job that is in: shown, signed, uploaded, posted, and its receipt kept."""

from collections.abc import Callable
from functools import partial

import typer
from rich.progress import Progress
from rich.table import Table

from contracts.amounts import format_amount
from contracts.api import receipts
from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.audits.deterrence import described
from contracts.chain.client import Chain
from contracts.cli.output import Output, PlainConsole, console, marked, print_whole, tokens
from contracts.clocks import utc_text
from contracts.errors import UserError
from contracts.job.measured import SecondsBasis
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from market.client import submit as submitting
from market.client.cli.common import beside_json, confirm, short_time

BASIS = {
    SecondsBasis.RECORDED: "{}, as its checkpoints did on that machine",
    SecondsBasis.MEASURED: "{}, as measured on this kind of machine",
    SecondsBasis.ELSEWHERE: "about {}: measured on another kind of machine",
    SecondsBasis.COUNTED: "{} or longer: by `units` that nobody measured; `gpumarket recipe measure` does",
}


def hand_in(
    client: MarketClient,
    chain: Chain,
    name: str,
    offer: submitting.Submission,
    *,
    yes: bool,
    dry_run: bool,
    output: Output,
    first: Callable[[], submitting.Submission] | None = None,
) -> None:
    """Shows an offer; after a yes signs its Bid with the key `name` and hands the job in.

    `first` is done after the yes, and gives the offer as it is then.
    """
    say = beside_json(output)
    if output is Output.TABLE or not yes:
        print_whole(say, quote_table(offer))
    for warning in offer.quote.warnings:
        say.print(marked("[yellow]Note:[/] {}", warning), highlight=False)
    for twin in submitting.same_again(client, offer):
        if first is not None and offer.earlier is not None and twin.id == offer.earlier.id:
            continue  # it is replaced
        say.print(
            marked(
                "[yellow]Note:[/] this very job is in already: {}, {}. This would be one more.",
                twin.id[:12],
                twin.status,
            ),
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
        cost, free = (tokens(one, offer.info) for one in (offer.quote.highest_cost, offer.quote.free))
        raise UserError(
            f"the job may cost {cost}, and {name} has {free} free in the escrow: {short} are missing",
            f"gpumarket wallet deposit {short} --key {name}",
        )
    confirm("Sign the Bid and hand the job in?", yes, say)
    if first is not None:
        offer = first()
    account, own = unlock(name) if offer.spec.sealed else (keys.load(name), None)
    client.signer = Signer(account, chain.domain)
    with Progress(console=PlainConsole(stderr=True), transient=True) as progress:
        total = sum(ref.size for ref in offer.uploads.values())
        task = progress.add_task("uploading", total=total)
        body = submitting.sign(client, chain.domain, account, offer, lambda _, size: progress.advance(task, size), own)
    made = client.post_bid(body)
    try:
        receipts.keep_receipt(chain.domain, offer.info.matcher, body, made.receipt)
    except UserError as error:  # the job is in all the same
        say.print(marked("[yellow]Note:[/] {}. {}", error.message, error.hint), highlight=False, soft_wrap=True)
    if output is Output.JSON:
        typer.echo(made.model_dump_json(by_alias=True, indent=2))
    else:
        console.print(
            marked("Job [bold]{}[/] is in. Watch it: gpumarket job show {} --watch", made.id, made.id[:12]),
            soft_wrap=True,
        )


def _audits(offer: submitting.Submission) -> str:
    """By the rules that are signed, whatever the market says of them."""
    rules = next(one for one in offer.info.rules if one.hash == offer.quote.bid.rules)
    told, cost = described(rules.verification), tokens(offer.quote.audit.replay_cost, offer.info)
    return told if rules.level == "unchecked" else f"{told}; the approver pays replays, about {cost} at max_price"


def quote_table(offer: submitting.Submission) -> Table:
    quote, bid, amount = offer.quote, offer.quote.bid, partial(tokens, info=offer.info)
    deadline = f" (its deadline is {offer.spec.deadline})" if offer.spec.deadline else ""
    table = Table(title=f"Quote for {offer.name}", box=None, show_header=False, pad_edge=False, title_justify="left")
    table.add_row("job's hash", quote.job)
    table.add_row("checkpoints", f"{bid.checkpoints}, {bid.units} work units each")
    table.add_row("machines that fit now", str(quote.matching_asks))
    if quote.lowest_limit is not None:
        table.add_row("lowest max_price", f"{amount(quote.lowest_limit)} per checkpoint")
    if quote.likely_price is not None and quote.likely_cost is not None and quote.seconds_per_checkpoint is not None:
        table.add_row(
            "likely price",
            f"{amount(quote.likely_price)} per checkpoint, fee of {amount(bid.fee)} included",
        )
        basis = BASIS[quote.seconds_basis or SecondsBasis.COUNTED]
        table.add_row("a checkpoint takes", basis.format(short_time(quote.seconds_per_checkpoint)))
        if quote.likely_per_hour is not None:
            table.add_row("an hour costs", amount(quote.likely_per_hour))
        table.add_row("likely cost", amount(quote.likely_cost))
        if offer.seconds is not None:
            table.add_row("done", f"in {short_time(offer.seconds)} on that machine, if it starts at once")
    table.add_row("at most", f"{amount(quote.highest_cost)}, {amount(bid.max_price)} per checkpoint")
    table.add_row("leases open until", f"{utc_text(bid.valid_until)}{deadline}")
    table.add_row("provider's stake", amount(bid.stake))
    table.add_row("audits", _audits(offer))
    table.add_row("approver", bid.effective_approver)
    if offer.spec.sealed:
        table.add_row("sealed", "files, checkpoints and logs; you, the approver and providers have the key")
    table.add_row("your free balance", amount(quote.free))
    if quote.missing:
        table.add_row(marked("[yellow]missing"), marked("[yellow]{}: gpumarket wallet deposit", amount(quote.missing)))
    return table

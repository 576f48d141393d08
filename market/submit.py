"""From job.yaml to a signed Bid: ask the market what it would cost, check what it wants signed, upload, sign, post."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eth_account.signers.local import LocalAccount

from contracts.amounts import format_amount, parse_amount
from contracts.api.bodies import BidIn, Info, JobOut, JobStatus, QuoteIn, QuoteOut
from contracts.api.client import MarketClient
from contracts.errors import UserError
from contracts.jobfile import JobFile, read_job
from contracts.jobspec import JobSpec
from contracts.orders import Bid, Domain
from contracts.types import ZERO_ADDRESS, to_hex


@dataclass(frozen=True)
class Offer:
    """A job that is ready to be signed for."""

    job: JobFile
    spec: JobSpec
    folder: Path
    info: Info
    quote: QuoteOut

    def tokens(self, amount: int) -> str:
        return f"{format_amount(amount, self.info.token_decimals)} {self.info.token_symbol}"


def prepare(market: MarketClient, domain: Domain, client: str, path: Path, approver: str | None) -> Offer:
    """Read a job, get its quote, and check that the Bid in it is the one that was asked for. Raises UserError."""
    job, spec = read_job(path)
    if job.units is None:
        raise UserError(f"{path} has no `units` (work per checkpoint)", f"count them: gpumarket recipe measure {path}")
    info = market.info()
    if (info.chain_id, info.escrow) != (domain.chain_id, domain.verifying_contract):
        raise UserError(
            f"the market at {market.url} uses the escrow {info.escrow} on chain {info.chain_id}, your settings say "
            f"{domain.verifying_contract} on chain {domain.chain_id}",
            "Signing for another escrow would bind other money: use that market's settings, or another market.",
        )
    asked = QuoteIn(
        client=client,
        spec=spec,
        units=job.units,
        rules=job.rules,
        max_price=_tokens(job.max_price, info),
        stake=_tokens(job.stake, info),
        approver=approver or info.approver,
        valid_for=job.valid_for,
    )
    quote = market.quote(asked)
    _check(quote.bid, asked, info)
    return Offer(job, spec, path if path.is_dir() else path.parent, info, quote)


def _tokens(text: str | None, info: Info) -> int | None:
    return None if text is None else parse_amount(text, info.token_decimals)


def _check(bid: Bid, asked: QuoteIn, info: Info) -> None:
    """A market could write anything into the Bid that it offers for signing."""
    rules = {rule_set.hash: rule_set.name for rule_set in info.rules}
    expected = {
        "client": (bid.client, asked.client),
        "matcher": (bid.matcher, info.matcher),
        "approver": (bid.approver, asked.approver or ZERO_ADDRESS),
        "job": (bid.job, to_hex(asked.spec.job_hash())),
        "checkpoints": (bid.checkpoints, asked.spec.checkpoints),
        "units": (bid.units, asked.units),
        "fee": (bid.fee, info.fee),
        "rules": (rules.get(bid.rules), asked.rules or info.rules[0].name),
        "max_price": (bid.max_price, asked.max_price if asked.max_price is not None else bid.max_price),
        "stake": (bid.stake, asked.stake if asked.stake is not None else bid.stake),
    }
    for field, (given, wanted) in expected.items():
        if given != wanted:
            raise UserError(
                f"the market's quote has {field} {given} in the Bid, asked for was {wanted}; nothing is signed",
                "Ask the market's operator, or use another market.",
            )


def same_again(market: MarketClient, offer: Offer) -> list[JobOut]:
    """Jobs of this client with the same JobSpec that are not over."""
    alive = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CLOSING)
    bid = offer.quote.bid
    return [job for job in market.jobs(client=bid.client) if job.bid.job == bid.job and job.status in alive]


def submit(
    market: MarketClient, domain: Domain, key: LocalAccount, offer: Offer, uploaded: Callable[[str, int], None]
) -> JobOut:
    """Upload the files, sign the Bid, post it. `uploaded(path, bytes)` is called after each file."""
    for path, ref in offer.spec.files.items():
        sent = market.put_blob(offer.folder / path)
        if sent != ref:
            raise UserError(f"{path} changed while the job was being submitted", "Submit it again.")
        uploaded(path, ref.size)
    bid = offer.quote.bid
    return market.post_bid(BidIn(bid=bid, signature=bid.sign(domain, key), spec=offer.spec, name=offer.job.name))

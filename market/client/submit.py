"""From job.yaml to a signed Bid: ask the market what it would cost, check what it wants signed, upload, sign."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from pydantic import ValidationError

from contracts.amounts import format_amount, parse_amount
from contracts.api.bodies import BidIn, JobOut, JobStatus, JobSummary
from contracts.api.client import MarketClient
from contracts.api.grants import by_key, granted_job_key, make_grant, public_key, publish_key
from contracts.api.info import Info
from contracts.api.quotes import QuoteIn, QuoteOut
from contracts.clocks import CHAIN_SECONDS
from contracts.errors import UserError
from contracts.job.file import JobFile, check_units, plain_price, read_job
from contracts.job.sealing import new_job_key
from contracts.job.spec import FileRef, JobSpec, first_problem
from contracts.orders import Bid, Domain
from contracts.types import ZERO_ADDRESS, to_hex
from market.client import job_keys


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be signed for."""

    name: str
    spec: JobSpec
    folder: Path | None  # of the files to upload; None if the market has them
    info: Info
    quote: QuoteOut
    approver_key: str | None = None  # of a sealed job: its approver's encryption key, if that is not the client
    earlier: JobOut | None = None  # whose files and states this one goes on with

    @property
    def uploads(self) -> dict[str, FileRef]:
        """Those with a url are fetched from there, by the providers."""
        return {path: ref for path, ref in self.spec.files.items() if self.folder and not ref.url}

    @property
    def seconds(self) -> float | None:
        """How long all checkpoints take on the machine that the job would likely get."""
        each = self.quote.seconds_per_checkpoint
        return None if each is None else each * self.quote.checkpoints


def prepare(market: MarketClient, domain: Domain, client: str, path: Path, approver: str | None) -> Submission:
    """Read a job, get its quote, and check that the Bid in it is the one that was asked for. Raises UserError."""
    info = _info(market, domain)
    job, asked = question(info, client, path, approver or info.approver)
    return _quoted(market, asked, info, job.name, path if path.is_dir() else path.parent, None)


def question(
    info: Info, client: str, path: Path, approver: str | None = None, units: int | None = None
) -> tuple[JobFile, QuoteIn]:
    """Reads a job, and makes of it what a market is asked about its price. `units` go before the job's.

    Raises UserError.
    """
    job, spec = read_job(path)
    if units is None and job.units is None:
        raise UserError(f"{path} has no `units` (work per checkpoint)", f"count them: gpumarket recipe measure {path}")
    if units is None:
        check_units(job, spec, path)
    return job, _question(
        str(path),
        client=client,
        spec=spec,
        units=job.units if units is None else units,
        measured_on=job.measured_on if units is None else None,
        rules=job.rules,
        max_price=_max_price(job, info),
        stake=_tokens("stake", job.stake, info),
        approver=approver,
        valid_for=job.valid_for,
    )


def prepare_follow_up(
    market: MarketClient,
    domain: Domain,
    earlier: JobOut,
    tip: str,
    *,
    steps: int | None = None,
    max_price: str | None = None,
    deadline: str | None = None,
    valid_for: int | None = None,
) -> Submission:
    """The quote for a job that goes on from the last accepted checkpoint of one that is over, whose tip is `tip`.

    What is not given is as it was; `steps` by default the rest of the earlier job's. Raises UserError.
    """
    spec = follow_up(earlier.spec, earlier.accepted, steps, deadline)
    return _prepare_after(market, domain, earlier, spec, tip, max_price=max_price, valid_for=valid_for)


def prepare_again(
    market: MarketClient,
    domain: Domain,
    earlier: JobOut,
    tip: str,
    *,
    units: int | None,
    max_price: str | None,
    rules: str | None,
) -> Submission:
    """The quote for the rest of a job under another Bid, from its last accepted checkpoint, whose tip is `tip`; from
    where it began if there is none. What is not given is as it was. Raises UserError.
    """
    spec = earlier.spec
    if earlier.accepted:
        spec = follow_up(spec, earlier.accepted, None, spec.deadline)
    return _prepare_after(market, domain, earlier, spec, tip, units=units, max_price=max_price, rules=rules)


def _prepare_after(
    market: MarketClient,
    domain: Domain,
    earlier: JobOut,
    spec: JobSpec,
    tip: str,
    *,
    units: int | None = None,
    max_price: str | None = None,
    rules: str | None = None,
    valid_for: int | None = None,
) -> Submission:
    """The quote for a job with the files of an earlier one; what is not given is as it was there."""
    info = _info(market, domain)
    bid = earlier.bid
    names = {rule_set.hash: rule_set.name for rule_set in info.rules}
    if rules is None and bid.rules not in names:
        raise UserError(
            f"the market no longer has the rules {bid.rules} of that job",
            f"It has: {', '.join(names.values())}. Submit a job that starts from a pulled checkpoint (`start`).",
        )
    asked = _question(
        "the new Bid",
        client=bid.client,
        spec=spec,
        units=bid.units if units is None else units,
        rules=names[bid.rules] if rules is None else rules,
        max_price=bid.max_price if max_price is None else _price(max_price, info),
        stake=bid.stake,
        approver=None if bid.approver == ZERO_ADDRESS else bid.approver,
        start_tip=tip,
        **({} if valid_for is None else {"valid_for": valid_for}),
    )
    return _quoted(market, asked, info, earlier.name, None, earlier)


def follow_up(spec: JobSpec, accepted: int, steps: int | None, deadline: str | None) -> JobSpec:
    """A job's JobSpec for the steps after its checkpoint `accepted`. Raises UserError."""
    rest = spec.steps - accepted * spec.checkpoint_every
    if accepted == 0:
        raise UserError("no checkpoint of that job was accepted: there is nothing to go on from", "Submit it again.")
    if steps is None and rest == 0:
        raise UserError("that job is done", "Say how many steps more: --steps N")
    changes = {"steps": steps or rest, "start_step": spec.step_of(accepted), "start": None, "deadline": deadline}
    try:
        return JobSpec.model_validate(spec.model_dump(mode="json") | changes)
    except ValidationError as error:
        raise first_problem(error, JobSpec.model_fields, "follow-up") from error


def _info(market: MarketClient, domain: Domain) -> Info:
    info = market.info()
    if (info.chain_id, info.escrow) != (domain.chain_id, domain.verifying_contract):
        raise UserError(
            f"the market at {market.url} uses the escrow {info.escrow} on chain {info.chain_id}, your settings say "
            f"{domain.verifying_contract} on chain {domain.chain_id}",
            "Signing for another escrow would bind other money: use that market's settings, or another market.",
        )
    for rule_set in info.rules:
        rule_set.check()
    return info


def _quoted(
    market: MarketClient, asked: QuoteIn, info: Info, name: str, folder: Path | None, earlier: JobOut | None
) -> Submission:
    quote = market.quote(asked)
    _check(quote.bid, asked, info)
    approver_key = None
    if asked.spec.sealed and quote.bid.effective_approver != asked.client:
        domain = Domain(chain_id=info.chain_id, verifying_contract=info.escrow)
        approver_key = job_keys.key_of_approver(market, domain, quote.bid.effective_approver)
    return Submission(name, asked.spec, folder, info, quote, approver_key, earlier)


def _question(what: str, **fields: Any) -> QuoteIn:
    """Raises UserError for a value that no market takes."""
    try:
        return QuoteIn.model_validate(fields)
    except ValidationError as error:
        raise first_problem(error, QuoteIn.model_fields, what) from error


def _tokens(field: str, text: str | None, info: Info) -> int | None:
    """An amount of job.yaml. Raises UserError that names the field."""
    try:
        return None if text is None else parse_amount(text, info.token_decimals)
    except UserError as error:
        raise UserError(f"{field}: {error.message}", error.hint) from error


def _price(text: str, info: Info) -> int | None:
    """A price per checkpoint, as job.yaml has it. Raises UserError."""
    try:
        return _tokens("max_price", plain_price(text), info)
    except ValueError as error:
        raise UserError(f"max_price: {error}") from error


def _max_price(job: JobFile, info: Info) -> int | None:
    """The limit per checkpoint that a Bid signs: a budget is kept by it, whoever trains. Raises UserError."""
    max_price, budget = _tokens("max_price", job.max_price, info), _tokens("budget", job.budget, info)
    if budget is None:
        return max_price
    checkpoints = job.steps // job.checkpoint_every
    per_checkpoint = budget // checkpoints
    limit = f"{format_amount(per_checkpoint, info.token_decimals)} {info.token_symbol} per checkpoint"
    if max_price is not None and max_price > per_checkpoint:
        raise UserError(
            f"max_price is {job.max_price} per checkpoint; with {checkpoints} checkpoints the budget of {job.budget} "
            f"is {limit}",
            "Lower max_price, raise the budget, or leave one of them out.",
        )
    if per_checkpoint == 0:
        raise UserError(
            f"budget: {job.budget} is nothing per checkpoint, of which there are {checkpoints}",
            f"{format_amount(checkpoints, info.token_decimals)} is the least that can be divided among them.",
        )
    return max_price if max_price is not None else per_checkpoint


def _check(bid: Bid, asked: QuoteIn, info: Info) -> None:
    """A market could write anything into the Bid that it offers for signing."""
    rules = {rule_set.hash: rule_set.name for rule_set in info.rules}
    expected = {
        "client": (bid.client, asked.client),
        "matcher": (bid.matcher, info.matcher),
        "approver": (bid.approver, asked.approver or ZERO_ADDRESS),
        "job": (bid.job, to_hex(asked.spec.job_hash())),
        "checkpoints": (bid.checkpoints, asked.spec.checkpoints),
        "start_tip": (bid.start_tip, asked.start_tip),
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
    deadline = asked.spec.deadline_time
    latest = min(int(time.time()) + asked.valid_for + CHAIN_SECONDS, deadline or bid.valid_until)
    if bid.valid_until > latest:
        raise UserError(
            f"the market's quote has a Bid valid until {bid.valid_until}, asked for was {latest} at most",
            f"By this machine's clock it is {int(time.time())} now (UTC seconds). Is that right?",
        )


def same_again(market: MarketClient, offer: Submission) -> list[JobSummary]:
    """Jobs of this client with the same JobSpec that are not over."""
    alive = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CLOSING)
    bid = offer.quote.bid
    return [job for job in market.jobs(client=bid.client) if job.bid.job == bid.job and job.status in alive]


def sign(
    market: MarketClient,
    domain: Domain,
    key: LocalAccount,
    offer: Submission,
    uploaded: Callable[[str, int], None],
    own: PrivateKey | None = None,
) -> BidIn:
    """Upload the files and sign the Bid: what is to be posted. `uploaded(path, bytes)` is called after each file.

    A sealed job takes the client's encryption key `own`.
    """
    bid = offer.quote.bid
    body = BidIn(bid=bid, signature=bid.sign(domain, key), spec=offer.spec, name=offer.name)
    if own is None:
        if offer.spec.sealed:
            raise UserError("a sealed job takes the client's encryption key")
        for path, ref in offer.uploads.items():
            assert offer.folder is not None
            _check_same(market.put_blob(offer.folder / path), ref, path)
            uploaded(path, ref.size)
        return body
    publish_key(market, domain, key, own)
    job_key, files = new_job_key(), dict[str, FileRef]()
    if offer.earlier is not None:  # the state that it goes on from is sealed with that job's key
        job_key, files = (
            granted_job_key(market, domain, offer.earlier, key, own, by_key(domain)),
            dict(offer.earlier.sealed_files),
        )
    for path, ref in offer.uploads.items():
        assert offer.folder is not None
        plain, files[ref.sha256] = job_keys.put_sealed(market, offer.folder / path, job_key)
        _check_same(plain, ref, path)
        uploaded(path, ref.size)
    readers = {bid.effective_approver: offer.approver_key} if offer.approver_key else {}
    readers |= {key.address: public_key(own)}
    job = bid.digest(domain)
    grants = [make_grant(domain, key, job, reader, its_key, job_key) for reader, its_key in readers.items()]
    return body.model_copy(update={"sealed_files": files, "grants": grants})


def _check_same(sent: FileRef, hashed: FileRef, path: str) -> None:
    if sent != hashed:
        raise UserError(f"{path} changed while the job was being submitted", "Submit it again.")

"""What commands about one job share: how it is named, and with which key it is read."""

import re
from functools import cache
from typing import Annotated

import typer

from contracts.api.access import Signer
from contracts.api.bodies import JobOut, JobSummary
from contracts.api.client import MarketClient
from contracts.api.grants import Check, Reading, granted_job_key
from contracts.chain.client import connect
from contracts.chain.signatures import is_signed_by
from contracts.cli.output import one_line
from contracts.errors import UserError
from contracts.orders import Domain, SignedType
from contracts.settings import Settings
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock

ID = 12  # characters of an id that a line shows: enough to name it by; -o json has all
MOST_SHOWN = 10  # candidates

JobId = Annotated[str, typer.Argument(help="The job's id, its first hex digits, or its name", show_default=False)]
MarketUrl = Annotated[str | None, typer.Option("--market", help="URL of the market")]
ReadingKey = Annotated[str | None, typer.Option("--key", help="Key that may read the job; default: its client's")]


def chosen_job(client: MarketClient, wanted: str) -> JobOut:
    """The job that `wanted` is the id of, or the first digits of that, or the name. Raises UserError.

    Of several with one name those of the keys here go before others.
    """
    if re.fullmatch("0x[0-9a-f]{1,64}", wanted.lower()) or re.fullmatch("[0-9a-f]{64}", wanted.lower()):
        return find_job_by_prefix(client, wanted)
    found = [job for job in client.jobs(name=wanted) if job.name == wanted]
    found = [job for job in found if job.bid.client in keys.list_keys().values()] or found
    if re.fullmatch("[0-9a-f]{1,64}", wanted.lower()):
        by_id = _with_prefix(client, wanted.lower())
        found += [job for job in by_id if job.id not in {one.id for one in found}]
    if not found:
        raise UserError(
            f"no job has the name {wanted!r}, nor an id that starts so", "See `gpumarket job list`, or with --all."
        )
    return _only(client, found, f"have the name {wanted!r}, or an id that starts so")


def find_job_by_prefix(client: MarketClient, prefix: str) -> JobOut:
    """The job whose id starts with `prefix`. Raises UserError."""
    digits = prefix.lower().removeprefix("0x")
    if not re.fullmatch("[0-9a-f]{1,64}", digits):
        raise UserError(f"{prefix!r} is not a job's id, nor its first hex digits", "See `gpumarket job list`.")
    if len(digits) == 64:
        return _job(client, f"0x{digits}")
    found = _with_prefix(client, digits)
    if not found:
        raise UserError(f"no job has an id that starts with {prefix!r}", "See `gpumarket job list`, or with --all.")
    return _only(client, found, f"have an id that starts with {prefix!r}")


def _job(client: MarketClient, id: str) -> JobOut:
    found = client.job(id)
    if found.id != id:
        raise UserError(
            f"{client.url} was asked for the job {id}, and gives {found.id}",
            "The market lies, or is broken: ask another.",
        )
    return found


def _with_prefix(client: MarketClient, digits: str) -> list[JobSummary]:
    return [job for job in client.jobs(prefix=f"0x{digits}") if job.id.startswith(f"0x{digits}")]


def _only(client: MarketClient, found: list[JobSummary], what: str) -> JobOut:
    if len(found) == 1:
        return _job(client, found[0].id)
    shown = [f"{job.id[:ID]} ({one_line(job.name)}, {job.status}, {job.received:%Y-%m-%d %H:%M})" for job in found]
    more = f", and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    raise UserError(f"{len(found)} jobs {what}", f"Which one? {', '.join(shown[:MOST_SHOWN])}{more}")


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
            Signer(account, domain), granted_job_key(client, domain, job, account, own, checker(settings))
        )
    client.signer = reading.signer
    return reading


def own_key(settings: Settings, job: JobOut, key: str | None) -> str:
    """Name of the key given, else of the job's client's or approver's if it is here, or of one of its providers'; else
    of the settings'.
    """
    known = {address: name for name, address in keys.list_keys().items()}
    parties = (job.bid.client, job.bid.effective_approver, *(lease.provider for lease in job.leases))
    own = next((known[address] for address in parties if address in known), None)
    return keys.choose(key or own or settings.key)


def checker(settings: Settings) -> Check:
    """Of signatures. The chain is asked only about those that may be a contract wallet's."""
    domain, chain = domain_of(settings), cache(lambda: connect(settings))

    def is_signed(message: SignedType, signer: str, signature: str) -> bool:
        return message.signer(domain, signature) == signer or is_signed_by(chain(), message, signer, signature)

    return is_signed


def domain_of(settings: Settings) -> Domain:
    return Domain(chain_id=settings.require("chain_id"), verifying_contract=settings.require("escrow"))

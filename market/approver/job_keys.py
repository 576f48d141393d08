"""The keys of sealed jobs, as their approver holds them and gives them to providers."""

import tempfile
import time
from functools import partial
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.bodies import KeyGrantIn
from contracts.api.client import MarketClient
from contracts.api.grants import (
    find_grant,
    get_sealed,
    is_fresh,
    make_grant,
    public_key,
    publish_key,
    registered_key,
)
from contracts.chain.client import Chain
from contracts.chain.events import Opened
from contracts.chain.signatures import is_signed_by
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.sealing import NotOpened
from contracts.terms import Parties

LOOK_SECONDS = 60.0  # between two looks at what is in order: a provider may have lost its key and made another

log = structlog.get_logger()


class JobKeys:
    """Terms are those that the chain proves. What the market gives counts with a party's signature only."""

    def __init__(self, market: MarketClient, chain: Chain, key: LocalAccount, own: PrivateKey) -> None:
        self._market, self._chain, self._key, self._own = market, chain, key, own
        self._is_signed = partial(is_signed_by, chain)
        self._opened: dict[str, bytes] = {}  # by job
        self._let: set[tuple[str, str]] = set()  # job and provider
        self._looked: dict[str, float] = {}  # monotonic, by lease; and of our own key's registration, by ""

    def publish(self) -> None:
        """Registers our encryption key: clients of sealed jobs need it."""
        if self.is_due(""):
            self._looked[""] = time.monotonic()
            publish_key(self._market, self._chain.domain, self._key, self._own)

    def is_due(self, lease: str) -> bool:
        """Whether it is time to look if its provider has the key."""
        return time.monotonic() >= self._looked.get(lease, float("-inf")) + LOOK_SECONDS

    def of(self, parties: Parties) -> bytes:
        """A job's key. Raises UserError if its client has not granted it to us."""
        job = parties.bid
        if job not in self._opened:
            signers = [parties.client, self._key.address]
            found = find_grant(self._market, job, self._key.address, self._own, signers, self._is_signed)
            if found is None:
                raise UserError(
                    f"the sealed job {job} has no grant of its key to {self._key.address} and this encryption key",
                    f"Its client can: gpumarket job grant {job[:12]} {self._key.address}",
                )
            self._check(job, found[1])
            self._opened[job] = found[1]
        return self._opened[job]

    def _check(self, job: str, key: bytes) -> None:
        """Raises UserError for a key that does not open the job's smallest file: with it honest work would look like
        bytes that nobody can read, and be challenged.
        """
        out = self._market.job(job)
        plain = min(out.spec.stored_files.values(), key=lambda ref: ref.size, default=None)
        sealed = None if plain is None else out.sealed_files.get(plain.sha256)
        if plain is None or sealed is None:
            return  # all of it is fetched elsewhere, or the market shows nothing to try it on
        with tempfile.TemporaryDirectory(prefix="gpumarket-approver-") as folder:
            target = Path(folder) / "file"
            try:
                get_sealed(self._market, sealed, target, job=job, job_key=key)
                is_it = hash_file(target).same_bytes(plain)
            except NotOpened:
                is_it = False
        if not is_it:
            raise UserError(
                f"the key that was granted for the sealed job {job} does not open its files",
                "the first grant stays: its client hands the job in again (gpumarket job submit), with the right key",
            )

    def has_let(self, parties: Parties, provider: str) -> bool:
        """Whether the client itself has given the job's key to a provider, which may replay it then."""
        job, client = parties.bid, parties.client
        if (job, provider) not in self._let and any(
            (one.grant.job, one.grant.reader) == (job, provider) and self._is_signed(one.grant, client, one.signature)
            for one in self._market.grants(job, provider)
        ):
            self._let.add((job, provider))
        return (job, provider) in self._let

    def own_grant(self, job: str, of: Parties) -> KeyGrantIn:
        """To ourselves, of the key of another job for a `job` of ours that has its files."""
        return make_grant(self._chain.domain, self._key, job, self._key.address, public_key(self._own), self.of(of))

    def grant(self, lease: Opened) -> None:
        """Gives a lease's provider the job's key, if it has registered a key lately and has no grant for that."""
        job, provider = lease.terms.parties.bid, lease.terms.provider
        key = registered_key(self._market, provider, self._is_signed)
        if key is None:
            return  # it registers one when it looks at the job
        # One that stands may be by somebody else only if the market lies, and then it could keep back ours as well.
        if not any(one.grant.reader_key == key.key for one in self._market.grants(job, provider)):
            if not is_fresh(key):
                return  # as above
            body = make_grant(self._chain.domain, self._key, job, provider, key.key, self.of(lease.terms.parties))
            self._market.post_grant(body)
            log.info("approver.granted", lease=lease.lease, job=job, provider=provider)
        self._looked[lease.lease] = time.monotonic()

"""The key of a lease's sealed job: asked for, checked, kept (sealed to this provider) in lease.json, never in plain."""

from functools import partial

from contracts.api.client import MarketClient
from contracts.api.grants import find_grant, public_key, publish_key
from contracts.chain.signatures import is_signed_by
from contracts.errors import UserError
from contracts.job.sealing import open_key
from contracts.types import from_hex
from worker.lease.folder import LeaseFolder
from worker.lease.tools import LeaseTools


class NoKey(UserError):
    """The job is sealed, and its key is not here. Then nothing of it may leave this machine."""


class JobKey:
    """Whether a job is sealed is said by its JobSpec, which the chain proves; who may grant its key, by the terms.

    So a market can neither make a sealed job a plain one, nor have it sealed with a key of its own.
    """

    def __init__(self, folder: LeaseFolder, tools: LeaseTools) -> None:
        self._folder, self._tools, self._own = folder, tools, tools.encryption_key
        self._opened: bytes | None = None
        parties = folder.file.parties
        self._signers = (parties.client, parties.approver)

    def get(self) -> bytes | None:
        """None if the job is not sealed. Raises NoKey."""
        file = self._folder.file
        if file.job is None:
            raise NoKey("it is not known yet whether the job is sealed")
        if not file.job.spec.sealed:
            return None
        # Its signature was checked before it was kept. A wallet may have got another owner since then.
        if self._opened is None and file.grant is not None and file.grant.grant.reader_key == public_key(self._own):
            self._opened = open_key(from_hex(file.grant.sealed_key), self._own)
        if self._opened is None:
            raise NoKey(
                "the job is sealed, and neither its client nor its approver has given its key to this provider",
                "its approver does while `gpumarket approver start` runs",
            )
        return self._opened

    def ask(self, market: MarketClient) -> bytes | None:
        """As `get`, after a look for the grant; for that, the market gets to know our encryption key.

        Raises as requests does: what no key has signed may be a contract wallet's, and the chain is asked.
        """
        try:
            return self.get()
        except NoKey:
            account = self._tools.account
            publish_key(market, self._tools.domain, account, self._own)
            is_signed = partial(is_signed_by, self._tools.chain)
            found = find_grant(
                market, self._folder.file.parties.bid, account.address, self._own, self._signers, is_signed
            )
            if found is None:
                raise
            body, self._opened = found
            self._folder.update(grant=body)
            return self._opened

"""The key of a lease's sealed job: asked for, checked, kept (sealed to this provider) in lease.json, never in plain."""

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.client import MarketClient
from contracts.api.grants import by_key, find_grant, open_grant, publish_key
from contracts.errors import UserError
from contracts.orders import Domain
from worker.store import LeaseFolder


class NoKey(UserError):
    """The job is sealed, and its key is not here. Then nothing of it may leave this machine."""


class JobKey:
    """Whether a job is sealed is said by its JobSpec, which the chain proves; who may grant its key, by the terms.

    So a market can neither make a sealed job a plain one, nor have it sealed with a key of its own.
    """

    def __init__(self, folder: LeaseFolder, account: LocalAccount, own: PrivateKey, domain: Domain) -> None:
        self._folder, self._account, self._own, self._domain = folder, account, own, domain
        self._opened: bytes | None = None
        parties = folder.file.parties
        self._signers = (parties.client, parties.approver)

    def get(self) -> bytes | None:
        """None if the job is not sealed. Raises NoKey; NotOpened if the grant is for an encryption key that is gone."""
        file = self._folder.file
        if file.job is None:
            raise NoKey("it is not known yet whether the job is sealed")
        if not file.job.spec.sealed:
            return None
        if self._opened is None and file.grant is not None:
            self._opened = open_grant(
                file.grant, file.parties.bid, self._account.address, self._own, self._signers, by_key(self._domain)
            )
        if self._opened is None:
            raise NoKey(
                "the job is sealed, and neither its client nor its approver has given its key to this provider",
                "its approver does while `gpumarket approver start` runs",
            )
        return self._opened

    def ask(self, market: MarketClient) -> bytes | None:
        """As `get`, after a look for the grant; for that, the market gets to know our encryption key."""
        try:
            return self.get()
        except NoKey:
            publish_key(market, self._domain, self._account, self._own)
            job, reader = self._folder.file.parties.bid, self._account.address
            found = find_grant(market, job, reader, self._own, self._signers, by_key(self._domain))
            if found is None:
                raise
            body, self._opened = found
            self._folder.update(grant=body)
            return self._opened

"""What all parts of a lease work with: chain, keys, settings, lines to the market. Comes from the agent."""

from collections.abc import Callable
from dataclasses import dataclass, field

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.api.throttle import Throttle
from contracts.chain.client import Chain
from contracts.chain.clock import ChainClock
from contracts.chain.sending.sender import Sender
from contracts.job.provider_wants import UNKNOWN, Standing, Wants
from contracts.orders import Domain
from worker.driver.xids import XidListener
from worker.lease.schedule import LeaseTiming
from worker.machine.troubles import MachineTrouble
from worker.settings import ProviderSettings


@dataclass(frozen=True)
class LeaseTools:
    """One agent's, for all its leases and their threads."""

    settings: ProviderSettings
    chain: Chain
    clock: ChainClock
    sender: Sender
    account: LocalAccount
    encryption_key: PrivateKey  # that sealed jobs' keys are granted to
    wake: Callable[[], None]  # tells the agent that there is something to look at
    uploads: Throttle | None = None
    downloads: Throttle | None = None
    machine_trouble: Callable[[], MachineTrouble | None] = lambda: None  # what is known to be wrong with the GPUs
    standing: Callable[[str, Wants], Standing] = lambda client, wants: UNKNOWN  # of a client, by the chain
    xids: XidListener = field(default_factory=lambda: XidListener(()))

    @property
    def domain(self) -> Domain:
        return self.chain.domain

    def market(self) -> MarketClient:
        """A line of one thread's own, for what is large: it waits for the market, and for other leases' bytes."""
        signer = Signer(self.account, self.domain)
        return MarketClient(self.settings.market_url, signer=signer, uploads=self.uploads, downloads=self.downloads)

    def quick_market(self, timeout: float) -> MarketClient:
        """Another, for questions: it asks once, and waits no longer than `timeout` seconds."""
        return MarketClient(self.settings.market_url, timeout=timeout, attempts=1)


def lease_timing(settings: ProviderSettings, timeout: int) -> LeaseTiming:
    """When to do what in a lease whose checkpoints have `timeout` seconds."""
    return LeaseTiming.of(
        timeout,
        redeem_every=settings.redeem_every,
        patience=settings.patience,
        margin=settings.margin,
        release_wait=settings.release_wait,
    )

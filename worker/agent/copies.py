"""Notices that another agent works with the same key, as when a home was copied to a second machine.

Two agents of one key take each other's leases and nonces. What gives the other away is signed by the key, and not by
this home: an Ask, a Claim; or the page of orders, which whoever notices first raises, so that the other notices, too.
"""

import threading
import time
from collections.abc import Callable

import structlog

from contracts.api.bodies import AskOut
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from worker.lease.folder import LeaseFolder, Store

STOP_ONE = "stop the other one (or give it a key of its own), then start this one again"
POSTED_SECONDS = 7 * 86_400  # for which an Ask's id is kept after its end: leases under it come before

log = structlog.get_logger()


class PostedAsks:
    """The ids of the Asks that this home has signed, on disk before they are sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        state = store.read_state()
        self._ends: dict[str, float] = dict(state.get("posted", {}))
        self._since = float(state.get("posted_since", time.time()))  # what was signed before is not on record
        if "posted_since" not in state:
            store.write_state(posted_since=self._since)

    def note(self, ask: str, valid_until: int) -> None:
        now = time.time()
        kept = {id: end for id, end in self._ends.items() if end + POSTED_SECONDS > now}
        self._ends = kept | {ask: valid_until}
        self._store.write_state(posted=self._ends)

    def is_foreign(self, ask: AskOut) -> bool:
        """Whether another agent has signed it."""
        return ask.id not in self._ends and ask.received.timestamp() > self._since

    def knows(self, ask: str) -> bool:
        return ask in self._ends


class CopyWatch(threading.Thread):
    """Looks at market and chain every `poll` seconds. Neither can make it end. At its end it closes `market`."""

    def __init__(
        self, market: MarketClient, chain: Chain, sender: Sender, posted: PostedAsks, poll: float,
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`changed` is called in this thread when there is evidence, or a lease to leave."""
        super().__init__(name="copies", daemon=True)
        self._market, self._chain, self._sender, self._posted = market, chain, sender, posted
        self._poll, self._changed = max(poll, 0.2), changed
        self._closed = threading.Event()
        self._page: int | None = None  # known to be ours, or from before
        self._made_before: dict[str, int] = {}  # by lease: what others had made of it when it was first looked at
        self._judged: dict[str, bool] = {}  # Asks that leases came by: whether they are ours
        self.looked = False  # once, at least: there may be no answer
        self.evidence: str | None = None  # it stays until the agent ends: somebody has to stop one of the two
        self.other_knows = False  # as it was the other one that has raised the page
        self.left: set[str] = set()  # leases that the other works on
        self.leases: dict[str, LeaseFolder] = {}  # that this agent trains; replaced as a whole

    def close(self) -> None:
        self._closed.set()

    def run(self) -> None:
        with self._market:
            while not self._closed.is_set():
                try:
                    self._look()
                except (UserError, *NODE_AWAY):  # the agent tells of their troubles
                    pass
                except Exception:  # nothing that they answer may end this thread
                    log.exception("copies.crashed")
                self.looked = True
                self._closed.wait(self._poll)

    def is_ours(self, ask: str) -> bool:
        """Whether a lease that was opened under this Ask is this home's. Raises UserError if nobody can say."""
        if ask not in self._judged:
            self._judged[ask] = self._posted.knows(ask) or not self._posted.is_foreign(self._market.ask(ask))
            if not self._judged[ask]:
                log.error("lease.left", ask=ask, problem="it came by an Ask that another agent of this key has posted")
        return self._judged[ask]

    def _look(self) -> None:
        for folder in self.leases.values():
            self._look_at_lease(folder)
        address = self._sender.address
        page = self._chain.account(address).page
        if self._page is not None and page > self._page and not self._sender.has_sent(self._chain.raise_page(page)):
            self.other_knows = self.evidence is None
            self._found(f"the page of orders was raised to {page}, and not from here")
        self._page = max(page, self._page or 0)
        if self.evidence is None:
            for ask in self._market.asks(provider=address, status="open"):
                if self._posted.is_foreign(ask):
                    return self._found(f"the Ask {ask.id[:12]} is signed by this key, and was not posted from here")
        return None

    def _look_at_lease(self, folder: LeaseFolder) -> None:
        """Whether checkpoints appear that this agent has not made."""
        file, newest = folder.file, 0
        if given := self._market.lease(folder.lease).approval:
            signer = given.approval.signer(self._chain.domain, given.signature)
            if (given.approval.lease, signer) == (folder.lease, file.parties.approver):
                newest = given.approval.n
        for one in self._market.pending_progress(file.parties.approver):
            if one.lease == folder.lease and one.claim.signer(self._chain.domain, one.signature) == file.provider:
                newest = max(newest, one.claim.n)
        before = self._made_before.setdefault(folder.lease, newest)
        if newest > max(before, folder.file.made) and folder.lease not in self.left:
            self.left.add(folder.lease)
            self._found(f"checkpoint {newest} of lease {folder.lease[:12]} was made with this key, and not here")

    def _found(self, what: str) -> None:
        if self.evidence is None:
            self.evidence = f"another agent works with this key: {what}. No Ask from here: {STOP_ONE}"
            log.error("provider.copied", provider=self._sender.address, problem=self.evidence)
        self._changed()

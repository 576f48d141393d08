"""Notices that another agent works with the same key, as when a home was copied to a second machine.

Two agents of one key take each other's leases and nonces. What gives the other away is signed by the key, and not by
this home: an Ask, a Claim; or the page of orders, which whoever notices first raises, so that the other notices, too.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import structlog

from contracts.api.bodies import AskOut
from contracts.api.client import MarketClient
from contracts.api.problems import Problem
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.sender import Sender
from contracts.clocks import REPORT_SECONDS
from contracts.errors import UserError
from contracts.orders import Domain
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
        # By the market's clock, as `received` is. What was signed before is not on record; None: nothing is yet.
        self._since: float | None = state.get("posted_since")

    def begin(self, standing: Iterable[AskOut], now: float | None) -> None:
        """Takes what is in force at this home's first look at the market, whose clock says `now`, for its own."""
        if self._since is None:
            for ask in standing:
                self.note(ask.id, ask.ask.valid_until)
            self._since = time.time() + REPORT_SECONDS if now is None else now
            self._store.write_state(posted_since=self._since)

    def note(self, ask: str, valid_until: int) -> None:
        now = time.time()
        kept = {id: end for id, end in self._ends.items() if end + POSTED_SECONDS > now}
        self._ends = kept | {ask: valid_until}
        self._store.write_state(posted=self._ends)

    def is_foreign(self, ask: AskOut, domain: Domain, provider: str) -> bool:
        """Whether another agent has signed it with the key of `provider`: whatever a market says, it can't do that."""
        if self._since is None or ask.id in self._ends or ask.received.timestamp() <= self._since:
            return False
        signed = ask.ask.provider == provider == ask.ask.signer(domain, ask.signature)
        return signed and ask.ask.digest(domain) == ask.id

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
        self.evidence: str | None = None  # it stays while it holds: somebody has to stop one of the two
        self._holds_until: float | None = None  # UTC seconds; None: until the agent ends
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
            self._judged[ask] = self._posted.knows(ask) or not self._is_shown_foreign(ask)
            if not self._judged[ask]:
                log.error("lease.left", ask=ask, problem="it came by an Ask that another agent of this key has posted")
        return self._judged[ask]

    def _is_shown_foreign(self, ask: str) -> bool:
        try:
            said = self._market.ask(ask)
        except Problem as problem:
            if problem.status != 404:
                raise
            return False  # nothing shows that another has posted it
        return said.id == ask and self._posted.is_foreign(said, self._chain.domain, self._sender.address)

    def _look(self) -> None:
        self._forget_what_is_over()
        for folder in self.leases.values():
            self._look_at_lease(folder)
        address = self._sender.address
        page = self._chain.account(address).page
        if self._page is not None and page > self._page and not self._sender.has_sent(self._chain.raise_page(page)):
            self.other_knows = self.evidence is None
            self._found(f"the page of orders was raised to {page}, and not from here")
        self._page = max(page, self._page or 0)
        # At each look, whatever this agent has done: a copy may start at any time, and its Asks are all that shows it
        # before it has a lease. It raises the page only if it notices first.
        asks = list(self._market.asks(provider=address, status="open"))
        self._posted.begin(asks, self._market.clock)
        for one in asks:
            if one.ask.page == page and self._posted.is_foreign(one, self._chain.domain, address):
                what = f"the Ask {one.id[:12]} is signed by this key, and was not posted from here"
                self._found(what, until=one.ask.valid_until)

    def _forget_what_is_over(self) -> None:
        """An Ask that is out of force says nothing of an agent that still works."""
        if self.evidence is not None and self._holds_until is not None and time.time() > self._holds_until:
            self.evidence, self._holds_until, self.other_knows = None, None, False
            log.info("provider.copy_is_gone", provider=self._sender.address)
            self._changed()

    def _look_at_lease(self, folder: LeaseFolder) -> None:
        """Whether checkpoints appear that this agent has not made: by Claims of this key, which nobody else can sign.

        An Approval says nothing: an approver, who may be the client, signs it for whatever tip it likes.
        """
        reported = self._market.lease(folder.lease).reported
        made = folder.file.made  # asked for last: it grows meanwhile. It may go back, too, when files are damaged
        before = self._made_before[folder.lease] = max(self._made_before.get(folder.lease, reported), made)
        if reported <= before or folder.lease in self.left:
            return
        newest = max(self._claimed(folder), default=0)
        if newest > max(before, folder.file.made):
            self.left.add(folder.lease)
            self._found(f"checkpoint {newest} of lease {folder.lease[:12]} was made with this key, and not here")

    def _claimed(self, folder: LeaseFolder) -> Iterator[int]:
        """Of which checkpoints the market shows Claims that are signed by this key."""
        file = folder.file
        for one in self._market.checkpoints(file.parties.bid):
            if one.claim.lease == folder.lease and one.claim.signer(self._chain.domain, one.signature) == file.provider:
                yield one.claim.n

    def _found(self, what: str, until: float | None = None) -> None:
        """`until`: UTC seconds after which it says nothing any more; None: never."""
        is_new = self.evidence is None
        if is_new or (self._holds_until is not None and until is None):
            self._holds_until = until
        elif self._holds_until is not None and until is not None:
            self._holds_until = max(self._holds_until, until)
        if is_new:
            self.evidence = f"another agent works with this key: {what}. No Ask from here: {STOP_ONE}"
            log.error("provider.copied", provider=self._sender.address, problem=self.evidence)
        self._changed()

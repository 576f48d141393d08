"""How clients stand, read from the chain by somebody who keeps no books: a provider's agent."""

import threading
from collections.abc import Callable
from typing import Any, cast

from web3.types import FilterParams

from contracts.chain.client import Chain
from contracts.chain.events import Approved, Closed, Opened, Resolved, Settled, decode, topic_of
from contracts.chain.lookup import events_by_lease, opened, opened_for
from contracts.chain.reliability import ClientRecord, standing
from contracts.finality import KEPT_BLOCKS
from contracts.job.provider_wants import Standing, Wants
from contracts.terms import Verdict


class ClientStandings:
    """Voids are few: all are followed. A client's leases are read only where they matter. Threads may share it."""

    def __init__(
        self, chain: Chain, read: Callable[[], dict[str, Any]], write: Callable[[dict[str, Any]], None]
    ) -> None:
        """`read` and `write` keep what was found from one run of the program to the next, as JSON."""
        self._chain, self._read, self._write = chain, read, write
        self._lock = threading.Lock()

    def of(self, client: str, wants: Wants) -> Standing:
        """As far as `wants` can tell a difference. Raises what an unreachable node raises."""
        with self._lock:
            void = self._voids().count(client)
        if void <= wants.client_voids_at_most and wants.new_clients:
            return Standing(void, new=False)
        first, newest = self._chain.settings.deploy_block, int(self._chain.w3.eth.block_number)
        leases = opened_for(self._chain, client, first, newest)
        paid = 0 if wants.new_clients else self._paid(leases)
        return standing(ClientRecord(paid, len(leases), void))

    def _voids(self) -> list[str]:
        """The client of each void lease; what lies deep in the chain is read once."""
        kept, newest = self._read(), int(self._chain.w3.eth.block_number)
        first = max(self._chain.settings.deploy_block, min(int(kept.get("until", 0)), newest) - KEPT_BLOCKS)
        found = [one for one in kept.get("voids", []) if one["block"] < first]
        which = cast(FilterParams, {"address": self._chain.escrow.address, "topics": [topic_of(Resolved)]})
        for log in self._chain.logs.logs(which, first, newest):
            event = decode(log, 0)
            if isinstance(event, Resolved) and event.verdict == Verdict.VOID:
                client = opened(self._chain, event.lease).client
                found.append({"block": event.at.block, "client": client})
        changed = {"until": newest, "voids": found}
        if changed != kept:
            self._write(changed)
        return [one["client"] for one in found]

    def _paid(self, leases: list[Opened]) -> int:
        paid = 0
        for event in leases:
            settled = event.terms.nums.start
            for later in events_by_lease(self._chain, {event.lease: event.at.block})[event.lease]:
                match later:
                    case Approved(n=n) | Settled(n=n) | Closed(accepted=n):
                        settled = max(settled, n)
            paid += settled - event.terms.nums.start
        return paid

"""What the operator has to know at once: an error in the log, and a count."""

import time

import structlog

from market.approver.auditing.disputes import Disputes
from market.approver.metrics import ApproverMetrics
from market.approver.signing import KnownLease

AGAIN = 600.0

log = structlog.get_logger()


class Alarms:
    def __init__(self, disputes: Disputes, metrics: ApproverMetrics, address: str) -> None:
        self._disputes, self._metrics, self._address = disputes, metrics, address
        self._told: dict[tuple[str, str], float] = {}  # monotonic, by lease and text

    def give(self, lease: str, text: str) -> None:
        """Told again only after AGAIN seconds: what it is of is tried in each round, and a lease may have several."""
        now = time.monotonic()
        if self._told.get((lease, text), -AGAIN) + AGAIN > now:
            return
        self._told = {one: at for one, at in self._told.items() if at + AGAIN > now} | {(lease, text): now}
        self._metrics.alarms.labels(self._address).inc()
        log.error("approver.alarm", lease=lease, problem=text)

    def give_if_paid(self, lease: KnownLease, n: int, tip: str) -> bool:
        """Whether that was refused, and is accepted on chain all the same: then it is paid, for ever."""
        if not self._disputes.is_paid(lease, n, tip):
            return False
        self.give(
            lease.id,
            f"checkpoint {n} ({tip}) was refused, and is accepted on chain: its window passed unchallenged, or the "
            "arbiter was silent; look for why this approver was away, or had no bond",
        )
        return True

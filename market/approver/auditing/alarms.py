"""What the operator has to know at once: an error in the log, and a count."""

import structlog

from market.approver.auditing.disputes import Disputes
from market.approver.metrics import ApproverMetrics
from market.approver.signing import KnownLease

log = structlog.get_logger()


class Alarms:
    def __init__(self, disputes: Disputes, metrics: ApproverMetrics, address: str) -> None:
        self._disputes, self._metrics, self._address = disputes, metrics, address
        self._told: dict[str, str] = {}  # by lease, the last one

    def give(self, lease: str, text: str) -> None:
        """Told once while it stays the same."""
        if self._told.get(lease) == text:
            return
        self._told[lease] = text
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

"""What an approver can tell Prometheus. docs/operations.md lists each; a test sees to that."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from contracts.errors import UserError


class ApproverMetrics:
    """Each by the approver's address: one process may serve several keys."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str) -> Counter:
            return Counter(f"gpumarket_approver_{name}_total", what, ["approver"], registry=self.registry)

        self.approved = counter("approvals", "Approvals that were signed")
        self.rejected = counter("rejections", "Rejections that were signed")
        self.redeemed = counter("redemptions", "Approvals that were redeemed for providers that were gone")
        self.troubles = counter("troubles", "Rounds, or leases in a round, that failed and are tried again")
        self.slow = counter("slow_checks", "Checkpoints that could not be checked in time, and wait behind the others")
        self.unreadable = counter("unreadable", "Items of the market's lists that were skipped: they can't be read")
        self.replays = counter("replays", "Replays that were asked for, the own ones too")
        self.challenged = counter("challenges", "Claims that were questioned on chain")
        self.unaudited = counter("unaudited", "Drawn checkpoints that nobody could replay in time, and were approved")
        self.alarms = counter("alarms", "Audits that can't go on by themselves: the log says why")
        self.bond_missing = Gauge(
            "gpumarket_approver_bond_missing",
            "What the escrow account lacks (token's smallest units) to challenge in each live audited lease",
            ["approver"],
            registry=self.registry,
        )
        self.looked = Gauge(
            "gpumarket_approver_last_round_timestamp_seconds",
            "When the market was last looked at without trouble",
            ["approver"],
            registry=self.registry,
        )

    def serve(self, host: str, port: int) -> None:
        """In a thread that ends with the process. Raises UserError."""
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise UserError(
                f"can't tell metrics on {host} port {port}: {error.strerror}", "look at metrics_port of [approver]"
            ) from error

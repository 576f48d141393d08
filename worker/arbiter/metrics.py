"""What an arbiter can tell Prometheus. docs/operations.md lists each; a test sees to that."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from contracts.errors import UserError


class ArbiterMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"gpumarket_arbiter_{name}_total", what, labels, registry=self.registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"gpumarket_arbiter_{name}", what, registry=self.registry)

        self.ruled = counter("verdicts", "Verdicts that were sent", "verdict")
        self.troubles = counter("troubles", "Disputes that could not be ruled on, and are tried again; failed rounds")
        self.missed = counter("missed", "Disputes whose time was over without a verdict: that counts as silence")
        self.differing = counter("control_differs", "Disputes in which no control stretch came out as it was claimed")
        self.waiting = gauge("waiting", "Disputes that wait for a verdict")
        self.looked = gauge("last_round_timestamp_seconds", "When the chain was last looked at without trouble")

    def serve(self, host: str, port: int) -> None:
        """In a thread that ends with the process. Raises UserError."""
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise UserError(
                f"can't tell metrics on {host} port {port}: {error.strerror}", "look at metrics_port of [arbiter]"
            ) from error

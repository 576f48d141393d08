"""What a market's process can tell Prometheus. docs/operations.md lists each; a test sees to that."""

from prometheus_client import CollectorRegistry, Counter, Histogram


class Metrics:
    """What is counted while it happens, in this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "gpumarket_request_seconds",
            "Time to answer requests, by operation of the API and status",
            ["operation", "status"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
            registry=self.registry,
        )
        self.limited = Counter(
            "gpumarket_limited_requests_total",
            "Requests that came too often, by what was counted: account or address",
            ["by"],
            registry=self.registry,
        )
        self.clearing = Histogram(
            "gpumarket_clearing_seconds",
            "Time of a clearing, its transactions among it",
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=self.registry,
        )
        self.unreadable = Counter(
            "gpumarket_unreadable_rows_total",
            "Times that a row was skipped which can't be read, by table",
            ["table"],
            registry=self.registry,
        )
        self.gas_used = Counter(
            "gpumarket_gas_used_total", "Gas of epochs and of openings", ["what"], registry=self.registry
        )
        self.epochs_delayed = Counter(
            "gpumarket_epochs_delayed_total", "Epochs that waited for the gas budget", registry=self.registry
        )
        self.collected = Counter(
            "gpumarket_collected_bytes_total", "Bytes of blobs that nobody needed any more", registry=self.registry
        )

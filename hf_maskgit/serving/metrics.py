"""What a server counts, in the words of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .engine import Engine

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counts of one server, in a registry of their own.

    Args:
        engine: whose passes and rows are counted.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "maskgit_requests", "Requests, by where and how they ended.", ("path", "status"),
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "maskgit_request_seconds", "From the request to the end of its answer.", ("path",),
            registry=registry,
        )  # fmt: skip
        self.texts = Counter("maskgit_texts", "Texts that were written.", registry=registry)
        self.left = Counter(
            "maskgit_clients_left", "Requests whose client left before the end.", registry=registry
        )
        rows = Histogram(
            "maskgit_rows_per_pass", "Rows that shared a pass.", buckets=_ROWS, registry=registry
        )
        engine.counts.watch = rows.observe
        for name, help, read in (
            ("decoding", "Rows in work.", lambda: engine.counts.decoding),
            ("waiting", "Rows that wait.", lambda: engine.counts.waiting),
        ):
            Gauge(f"maskgit_rows_{name}", help, registry=registry).set_function(read)

    def page(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        return generate_latest(self._registry)

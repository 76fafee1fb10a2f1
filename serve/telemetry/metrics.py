"""Count for Prometheus. Label values are bounded: none is taken from a request as it is.

Each replica of the ingress counts its own requests; where there are several, each reports the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from engine.storage.bundle import Manifest
from serve.messages import StageStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUERIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one process, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.in_flight = Gauge(
            "seedset_requests_in_flight", "HTTP requests that are being answered", registry=own
        )
        self._requests = Counter(
            "seedset_requests",
            "HTTP requests answered, by route and status",
            ["route", "status"],
            registry=own,
        )
        self._request_seconds = Histogram(
            "seedset_request_seconds",
            "From a request's first byte to its answer's last, by expansion method (empty: none)",
            ["route", "method"],
            buckets=SECONDS,
            registry=own,
        )
        self._stage_seconds = Histogram(
            "seedset_stage_seconds", "Computing of one batch", ["stage"], buckets=SECONDS, registry=own
        )
        self._batch_queries = Histogram(
            "seedset_stage_batch_queries", "Queries in one batch", ["stage"], buckets=QUERIES, registry=own
        )
        self._candidates = Counter(
            "seedset_stage_candidates", "Entities ranked after a stage", ["stage"], registry=own
        )
        self._events = Counter(
            "seedset_stage_events",
            "What stages count: decode steps, cache hits and misses",
            ["stage", "event"],
            registry=own,
        )
        self._degraded = Counter(
            "seedset_degraded", "Answers in which something was left out, by stage", ["stage"], registry=own
        )
        self._shed = Counter(
            "seedset_shed", "Queries refused so that others are answered", ["reason"], registry=own
        )
        self._retries = Counter(
            "seedset_retries", "Calls repeated because a replica was lost", ["stage"], registry=own
        )
        self._swaps = Counter(
            "seedset_bundle_swaps", "Changes of the served bundle, by their result", ["result"], registry=own
        )
        self._bundle = Gauge(
            "seedset_bundle_info", "The bundle that is served", ["bundle", "created"], registry=own
        )

        self._tokens = Gauge(
            "seedset_tokens_unusable", "Replicas whose file of tokens cannot be used as it is", registry=own
        )

    def answered(self, route: str, status: int, method: str, seconds: float) -> None:
        """Count a request: its route's template, and the expansion method if it asked for one."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route, method).observe(seconds)

    def observe(self, stats: StageStats) -> None:
        """Count a batch of a stage."""
        self._stage_seconds.labels(stats.stage).observe(stats.seconds)
        self._batch_queries.labels(stats.stage).observe(stats.queries)
        self._candidates.labels(stats.stage).inc(stats.candidates)
        for event, count in stats.counts.items():
            self._events.labels(stats.stage, event).inc(count)

    def degraded(self, stage: str) -> None:
        """Count an answer in which a stage left something out."""
        self._degraded.labels(stage).inc()

    def shed(self, reason: str) -> None:
        """Count a refused query; the reason is an error's code."""
        self._shed.labels(reason).inc()

    def retried(self, stage: str) -> None:
        """Count a call that was repeated."""
        self._retries.labels(stage).inc()

    def bundle_changed(self, result: str) -> None:
        """Count a change of the served bundle: ``served`` or ``refused``."""
        self._swaps.labels(result).inc()

    def serving(self, manifest: Manifest) -> None:
        """Note which bundle is served from now on."""
        self._bundle.clear()
        self._bundle.labels(manifest.id, manifest.created).set(1)

    def tokens_unusable(self, unusable: bool) -> None:
        """Note whether the file of tokens cannot be used as it is now."""
        self._tokens.set(unusable)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format. Milliseconds: call it off the event loop."""
        return generate_latest(self.registry)


def merge_replica_metrics(texts: Sequence[bytes]) -> bytes:
    """Return the metrics of several replicas as one text: sums; of times and the bundle the latest."""

    class Summed(Collector):
        def collect(self) -> Iterator[Metric]:
            families: dict[str, Metric] = {}
            values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
            for text in texts:
                for family in text_string_to_metric_families(text.decode()):
                    families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    found = values.setdefault(family.name, {})
                    for sample in family.samples:
                        key = sample.name, tuple(sorted(sample.labels.items()))
                        latest = sample.name.endswith(("_created", "_info"))
                        known = found.get(key, 0.0)
                        found[key] = max(known, sample.value) if latest else known + sample.value
            for name, family in families.items():
                for (sample_name, labels), value in values[name].items():
                    family.add_sample(sample_name, dict(labels), value)
                yield family

    registry = CollectorRegistry()
    registry.register(Summed())
    return generate_latest(registry)

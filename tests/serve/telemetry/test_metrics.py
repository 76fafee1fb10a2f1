"""Test what is counted, and that the dashboard shows nothing that is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import serve
from engine.storage.bundle import Manifest
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.messages import StageStats
from serve.telemetry.metrics import Metrics, merge_replica_metrics
from tests.support.services import MakeClient

DASHBOARD = Path(serve.__file__).parent / "telemetry" / "dashboard.json"


def lines(metrics: Metrics) -> set[str]:
    return set(metrics.render().decode().splitlines())


def test_a_batch_of_a_stage_is_counted() -> None:
    metrics = Metrics()
    metrics.observe(StageStats("Generate", 0.3, 4, 800, {"decode_steps": 7}))
    metrics.observe(StageStats("Generate", 0.2, 1, 200, {"decode_steps": 3, "cache_hits": 1}))
    assert lines(metrics) >= {
        'seedset_stage_seconds_sum{stage="Generate"} 0.5',
        'seedset_stage_seconds_count{stage="Generate"} 2.0',
        'seedset_stage_batch_queries_bucket{le="2.0",stage="Generate"} 1.0',
        'seedset_stage_candidates_total{stage="Generate"} 1000.0',
        'seedset_stage_events_total{event="decode_steps",stage="Generate"} 10.0',
        'seedset_stage_events_total{event="cache_hits",stage="Generate"} 1.0',
    }


def test_one_bundle_is_served_at_a_time(snapshot: BundleSnapshot) -> None:
    metrics = Metrics()
    for name in ("first", "second"):
        metrics.serving(snapshot.manifest.model_copy(update={"id": name}))
    (line,) = (line for line in lines(metrics) if line.startswith("seedset_bundle_info{"))
    assert 'bundle="second"' in line


def test_requests_are_counted_by_what_is_known_of_them_only(make_client: MakeClient) -> None:
    client = make_client()
    client.post("/v1/expand", json={"positive": [1], "top_k": 1})
    client.post("/v1/expand", json={"positive": [1], "method": "anything"})
    batch = [{"positive": [1]}, {"positive": [1], "method": "retexpan+cds"}]
    client.post("/v1/expand/batch", json={"queries": batch})
    for path in ("/a/b/c", "/v1/entities/entity 1", "/v1/entities/nobody"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'seedset_requests_total{route="/v1/expand",status="200"} 1.0' in text
    assert 'seedset_requests_total{route="/v1/expand",status="404"} 1.0' in text
    assert 'seedset_requests_total{route="other",status="404"} 1.0' in text
    assert 'seedset_requests_total{route="/v1/entities/{given:path}",status="404"} 1.0' in text
    assert 'seedset_request_seconds_count{method="retexpan",route="/v1/expand"} 1.0' in text
    assert 'seedset_request_seconds_count{method="several",route="/v1/expand/batch"} 1.0' in text
    assert "anything" not in text
    assert "seedset_requests_in_flight 1.0" in text, "the request for the metrics itself"


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_shown() -> None:
    names = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    known = {family.name for family in Metrics().registry.collect()}
    metrics = Metrics()
    metrics.observe(StageStats("s", 1, 1, 1, {"e": 1}))
    metrics.answered("r", 200, "m", 1)
    for count in (metrics.degraded, metrics.shed, metrics.retried, metrics.bundle_changed):
        count("x")
    names |= {sample.name for family in metrics.registry.collect() for sample in family.samples}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    shown = re.findall(r"seedset_\w+", json.dumps(board["panels"]))
    assert set(shown) <= names | {"seedset_bundle_info"}
    assert all(any(one.startswith(name) for one in shown) for name in known)
    assert [v["type"] for v in board["templating"]["list"]] == ["datasource"]
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])


def test_what_several_replicas_count_is_told_as_one() -> None:
    stats = StageStats("Retrieve", 0.02, 3, 600, {"cache_hits": 5})
    replicas = [Metrics(), Metrics()]
    manifest = Manifest(id="a" * 16, created="2026-01-01T00:00:00", files={})
    for times, metrics in enumerate(replicas, 1):
        metrics.serving(manifest)
        for _ in range(times):
            metrics.observe(stats)
    text = merge_replica_metrics([metrics.render() for metrics in replicas]).decode()
    lines = text.splitlines()
    assert 'seedset_stage_seconds_count{stage="Retrieve"} 3.0' in lines
    assert 'seedset_stage_seconds_bucket{le="0.025",stage="Retrieve"} 3.0' in lines
    assert 'seedset_stage_events_total{event="cache_hits",stage="Retrieve"} 15.0' in lines
    assert f'seedset_bundle_info{{bundle="{"a" * 16}",created="2026-01-01T00:00:00"}} 1.0' in lines
    alone = replicas[0].render().decode().splitlines()
    kinds = [line for line in alone if line.startswith("# ")]
    assert [line for line in lines if line.startswith("# ")] == kinds

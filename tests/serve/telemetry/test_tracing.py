"""A request's spans hang together from the caller to the stage, and hold nothing private.

The in-memory exporter takes what is made here; one test sends it over HTTP to a stand-in of a collector.
"""

from __future__ import annotations

import asyncio
import gzip
import http.server
import itertools
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from engine.errors import UserError
from engine.methods import METHODS
from engine.query import Expansion, Query
from engine.storage.bundle import Bundle
from serve.graph.admission import Admission
from serve.graph.dispatch import HandleDispatch
from serve.graph.plan import plan
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.messages import Progress, Reply, Task
from serve.settings import ServeSettings
from serve.telemetry import tracing
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import call_span, check_exporter, configure_tracing, current_trace, stage_spans
from tests.support.services import MakeClient

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    yield
    configure_tracing(None)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    configure_tracing(None, "test", exporter)
    return exporter


class Here:
    """A deployment's handle whose replica is a thread of this process; tasks go through pickle."""

    def __init__(self, runner: StageRunner, opened: OpenedBundle) -> None:
        self._runner, self._opened = runner, opened
        self.run = self
        self.tasks: list[Task] = []

    async def remote(self, task: Task) -> Reply:
        job = Job(pickle.loads(pickle.dumps(task)), self._opened)
        self.tasks.append(job.task)
        self._runner.submit(job)
        await asyncio.wrap_future(job.done)
        return job.reply()

    def options(self, stream: bool) -> Any:
        return HereStream(self)


class HereStream:
    def __init__(self, handle: Here) -> None:
        self.stream, self._handle = self, handle

    def remote(self, task: Task) -> Any:
        return HereReplies(self._handle, task)


class HereReplies:
    def __init__(self, handle: Here, task: Task) -> None:
        self._handle, self._task = handle, task

    async def __aiter__(self) -> Any:
        progress: Progress | Reply = await self._handle.remote(self._task)
        yield progress

    def cancel(self) -> None:
        pass


@pytest.fixture
def handle(bundle: Bundle) -> Iterator[Here]:
    made = plan(bundle, {"retexpan": METHODS["retexpan"]}, ServeSettings(workspace="w"))
    (spec,) = made.deployments
    runner = StageRunner(spec.stages, [stage.budget for stage in spec.stages])
    yield Here(runner, OpenedBundle.open(bundle, spec.stages))
    runner.close()


@pytest.fixture
def client(bundle: Bundle, handle: Here, make_client: MakeClient) -> TestClient:
    made = plan(bundle, {"retexpan": METHODS["retexpan"]}, ServeSettings(workspace="w"))
    handles: Any = {made.deployments[0].name: handle}
    return make_client(HandleDispatch(made, handles, Admission(100, 5), Metrics()))


def finished(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = exporter.get_finished_spans()
    names = {span.name: span for span in found}
    assert len(names) == len(found)
    return names


def test_a_request_is_one_trace_from_the_caller_to_the_stage(
    client: TestClient, spans: InMemorySpanExporter, bundle: Bundle
) -> None:
    asked = {"positive": [1, 2], "negative": [3], "method": "retexpan", "top_k": 5}
    assert (
        client.post("/v1/expand", json=asked, headers={**CALLER, "x-request-id": "mine"}).status_code == 200
    )
    found = finished(spans)
    assert set(found) == {"POST /v1/expand", "call Pipeline", "stage Retrieve", "stage SegmentRerank"}
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    request, call = found["POST /v1/expand"], found["call Pipeline"]
    assert (request.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    parents = {name: f"{span.parent.span_id:016x}" for name, span in found.items() if span.parent}
    assert parents == {
        "POST /v1/expand": PARENT,
        "call Pipeline": f"{request.context.span_id:016x}",
        "stage Retrieve": f"{call.context.span_id:016x}",
        "stage SegmentRerank": f"{call.context.span_id:016x}",
    }
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/expand",
        "http.response.status_code": 200,
        "seedset.request_id": "mine",
        "seedset.method": "retexpan",
        "seedset.bundle": bundle.id,
        "seedset.queries": 1,
        "seedset.degraded": 0,
    }
    stage = found["stage Retrieve"]
    assert (stage.attributes or {})["seedset.queries"] == 1
    assert (stage.attributes or {})["seedset.candidates"]


def test_a_stage_lies_within_the_call_that_waited_for_it(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    client.post("/v1/expand", json={"positive": [1], "method": "retexpan"})
    found = finished(spans)
    call, first, last = (found[name] for name in ("call Pipeline", "stage Retrieve", "stage SegmentRerank"))
    times = [call.start_time, first.start_time, first.end_time, last.end_time, call.end_time]
    # The stages' times are of another clock's steps: a tenth of a millisecond is let go.
    slack = 100_000
    assert all(a is not None and b is not None and a <= b + slack for a, b in itertools.pairwise(times))


def test_a_stream_s_stages_are_of_its_request(client: TestClient, spans: InMemorySpanExporter) -> None:
    asked = {"positive": [1], "method": "retexpan"}
    assert client.post("/v1/expand/stream", json=asked).status_code == 200
    found = finished(spans)
    assert set(found) == {"POST /v1/expand/stream", "stage Retrieve", "stage SegmentRerank"}
    parent = found["stage Retrieve"].parent
    assert parent is not None
    assert parent.span_id == found["POST /v1/expand/stream"].context.span_id


def test_no_span_holds_what_was_asked(client: TestClient, spans: InMemorySpanExporter) -> None:
    asked = {"positive": ["entity 1"], "negative": ["entity 2"], "method": "retexpan"}
    headers = {"authorization": "Bearer secret-of-mine"}
    assert client.post("/v1/expand", json=asked, headers=headers).status_code == 200
    client.get("/v1/entities/nobody-of-ours")
    shown = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "POST /v1/expand" in shown
    for private in ("entity 1", "entity 2", "secret-of-mine", "nobody-of-ours"):
        assert private not in shown


def test_an_error_of_ours_marks_its_span(make_client: MakeClient, spans: InMemorySpanExporter) -> None:
    class Broken:
        async def __call__(self, *_: object) -> None:
            raise ZeroDivisionError

    answer = make_client(Broken()).post("/v1/expand", json={"positive": [1]})
    assert answer.status_code == 500
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    refused = make_client().post("/v1/expand", json={"positive": []})
    assert refused.status_code == 422
    assert spans.get_finished_spans()[-1].status.status_code is StatusCode.UNSET


def test_a_batch_that_callers_share_is_in_the_trace_of_each(spans: InMemorySpanExporter) -> None:
    with call_span("A", 1) as first:
        pass
    with call_span("A", 1) as second:
        pass
    spans.clear()
    stage_spans("Retrieve", [first, second, second, {}], 0.25, 0.05, queries=3, cache_hits=2)
    one, other = spans.get_finished_spans()
    assert one.context.trace_id != other.context.trace_id
    for span in (one, other):
        assert span.name == "stage Retrieve"
        assert dict(span.attributes or {}) == {
            "seedset.queries": 3,
            "seedset.cache_hits": 2,
            "seedset.waited_ms": 50.0,
        }
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time == 250_000_000


def test_off_nothing_is_made_and_nothing_is_carried(client: TestClient, handle: Here) -> None:
    exporter = InMemorySpanExporter()
    configure_tracing(None, "test", exporter)
    configure_tracing(None)
    client.post("/v1/expand", json={"positive": [1], "method": "retexpan"}, headers=CALLER)
    assert [task.trace for task in handle.tasks] == [{}]
    assert current_trace() == {}
    assert exporter.get_finished_spans() == ()


def test_an_old_caller_s_task_needs_no_trace() -> None:
    assert Task("b", (0,), [Expansion(Query("q", (1,)))]).trace == {}


def test_spans_are_sent_to_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    received: list[ExportTraceServiceRequest] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            received.append(ExportTraceServiceRequest.FromString(plain))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configure_tracing(f"http://127.0.0.1:{server.server_port}/v1/traces", "Ingress")
        with call_span("Pipeline", 1):
            pass
        tracer: Any = tracing._tracer
        assert tracer.span_processor.force_flush()
        tracer.span_processor.shutdown()
        server.shutdown()
    (sent,) = received
    resource = sent.resource_spans[0].resource
    about = {one.key: one.value.string_value for one in resource.attributes}
    assert about["service.name"] == "seedset"
    assert about["seedset.component"] == "Ingress"
    assert [span.name for span in sent.resource_spans[0].scope_spans[0].spans] == ["call Pipeline"]


def test_without_what_sends_spans_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_exporter()
    monkeypatch.setattr(tracing, "_EXPORTER", "opentelemetry.exporter.nowhere.at.all")
    with pytest.raises(UserError, match=r"pip install 'seedset\[tracing\]'"):
        check_exporter()
    with pytest.raises(UserError, match="trace_endpoint"):
        configure_tracing("http://collector:4318/v1/traces")


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "http://a b"])
def test_an_endpoint_is_an_address_of_http(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="trace_endpoint"):
        ServeSettings(workspace="w", trace_endpoint=endpoint)
    assert ServeSettings(workspace="w", trace_endpoint="http://collector:4318/v1/traces").trace_endpoint

"""Trace requests with OpenTelemetry: a span for each request, call of a deployment and stage.

The setting ``trace_endpoint`` switches it on. A caller's ``traceparent`` is gone on with, and the trace goes
with each task to the replica that computes it. Spans name routes, methods, stages and counts: no seed, no
name, no text.

A process has one tracer, as it has one log. Without one nothing here costs more than a look at a variable.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.errors import UserError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

SERVICE = "seedset"

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_CONTEXT = TraceContextTextMapPropagator()

_tracer: Tracer | None = None


def check_exporter() -> None:
    """Check that spans can be sent.

    Raises:
        UserError: the package that sends them is not installed.
    """
    try:
        found = find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UserError("trace_endpoint: what sends spans is not installed; pip install 'seedset[tracing]'")


def configure_tracing(
    endpoint: str | None, component: str = "", exporter: SpanExporter | None = None
) -> None:
    """Make spans in this process from now on, and send them; or make none.

    Args:
        endpoint: of an OTLP/HTTP collector, such as ``http://collector:4318/v1/traces``; None: no spans. How
            many requests are traced, and headers for the collector, the environment says
            (``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS``).
        component: of the application, such as a deployment's name.
        exporter: takes each span at once, in place of a collector.
    """
    global _tracer  # noqa: PLW0603  one a process, as the log is
    if endpoint is None and exporter is None:
        _tracer = None
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(
        resource=Resource.create({"service.name": SERVICE, "seedset.component": component})
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        check_exporter()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    # Not the process' own provider: what Ray sets up for itself is let alone.
    _tracer = provider.get_tracer(SERVICE)


@contextmanager
def request_span(method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span | None]:
    """Trace a request while it is answered; what is called meanwhile becomes part of its trace.

    Args:
        method: of HTTP.
        headers: as ASGI has them; ``traceparent`` says whose part this is.
    """
    if _tracer is None:
        yield None
        return
    given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    with _tracer.start_as_current_span(method, _CONTEXT.extract(given), SpanKind.SERVER) as span:
        yield span


def name_request(span: Span | None, http_method: str, route: str, status: int, /, **about: str | int) -> None:
    """Say what a request was, once that is known.

    Args:
        span: of the request; None: nothing is traced.
        http_method: GET or another.
        route: its template.
        status: of the answer.
        about: attributes of our own; those that are empty are left out.
    """
    if span is None:
        return
    span.update_name(f"{http_method} {route}")
    own = {f"seedset.{name}": value for name, value in about.items() if value != ""}
    span.set_attributes(
        {"http.request.method": http_method, "http.route": route, "http.response.status_code": status, **own}
    )
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def call_span(deployment: str, queries: int) -> Iterator[dict[str, str]]:
    """Trace a call of a deployment; yields what its task must carry, nothing where nothing is traced."""
    carrier: dict[str, str] = {}
    if _tracer is None:
        yield carrier
        return
    with _tracer.start_as_current_span(
        f"call {deployment}", kind=SpanKind.CLIENT, attributes={"seedset.queries": queries}
    ) as span:
        _CONTEXT.inject(carrier, set_span_in_context(span))
        yield carrier


def current_trace() -> dict[str, str]:
    """Return what a task must carry for its stages to be part of the request's own span."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        _CONTEXT.inject(carrier)
    return carrier


def stage_spans(
    stage: str, carriers: Iterable[Mapping[str, str]], seconds: float, waited: float, **about: Any
) -> None:
    """Note a stage's batch, which ends now, in the trace of each caller that shared it.

    Args:
        stage: its name.
        carriers: of the tasks in the batch, as :func:`call_span` gave them; a trace is noted once.
        seconds: of computing.
        waited: seconds that the oldest query of the batch had waited before.
        about: attributes: queries, candidates, and what the stage counts.
    """
    if _tracer is None:
        return
    end = time.time_ns()
    attributes = {f"seedset.{name}": value for name, value in about.items()}
    for parent in dict.fromkeys(carrier.get("traceparent", "") for carrier in carriers):
        if parent:
            span = _tracer.start_span(
                f"stage {stage}",
                _CONTEXT.extract({"traceparent": parent}),
                SpanKind.INTERNAL,
                attributes={**attributes, "seedset.waited_ms": round(1e3 * waited, 2)},
                start_time=end - round(seconds * 1e9),
            )
            span.end(end)

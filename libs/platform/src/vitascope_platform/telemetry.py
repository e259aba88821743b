"""Metrics and traces of the workers; what each metric means is listed in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Counter, Gauge, Histogram, Info

from vitascope_core.ports import Delivery
from vitascope_core.task import Task

STAGE_SECONDS = Histogram(
    "vitascope_stage_duration_seconds",
    "Time from taking a task to settling it, storage included.",
    ["stage"],
    # From one small chunk, well under a second, to a long video denoise, many minutes.
    buckets=(0.1, 0.5, 1, 5, 15, 60, 180, 600, 1800),
)
STAGE_TASKS = Counter(
    "vitascope_stage_tasks_total",
    "Tasks settled, by outcome: done, discarded, stopped, handed_back, retried, failed.",
    ["stage", "outcome"],
)
TASKS_IN_FLIGHT = Gauge("vitascope_stage_tasks_in_flight", "Tasks being worked on.", ["stage"])
REDELIVERIES = Counter("vitascope_stage_redeliveries_total", "Tasks taken that had been handed out before.", ["stage"])
CHUNKS = Counter("vitascope_stage_chunks_total", "Chunks recorded.", ["stage"])
CHUNK_BYTES = Counter("vitascope_stage_chunk_bytes_total", "Bytes of the chunks recorded.", ["stage"])
CHECKPOINTS = Counter("vitascope_checkpoints_total", "Checkpoints that a job may go on from.")
RESUMES = Counter("vitascope_resumes_total", "Attempts that went on from a checkpoint.")
RESUME_SECONDS = Counter("vitascope_resume_saved_seconds_total", "Denoising time that resumes saved.")
JOBS_ENDED = Counter("vitascope_jobs_ended_total", "Jobs that this process ended.", ["kind", "state"])
JOBS_REFUSED = Counter("vitascope_jobs_refused_total", "Jobs refused because their pool's queue was full.", ["pool"])
BACKLOG_PAUSES = Counter(
    "vitascope_stage_backlog_pauses_total",
    "Times that a stage waited because those behind it were full.",
    ["stage"],
)
BUILD = Info("vitascope_build", "The version that runs.")

_TRACER = "vitascope"


def announce_build() -> None:
    """Publish the version as a metric."""
    BUILD.info({"version": version("vitascope-platform")})


def export_traces(service: str, endpoint: str | None) -> None:
    """Send spans to an OTLP endpoint over HTTP; without one, trace context is passed on and nothing is recorded.

    Args:
        service: Name of the service in the traces.
        endpoint: Base URL of the collector, for example http://collector:4318.
    """
    if not endpoint:
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)


def trace_headers() -> dict[str, str]:
    """Return the headers that carry the current trace context; none outside a trace."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def headers_of(traceparent: str) -> dict[str, str]:
    """Return the headers that carry a stored trace context."""
    return {"traceparent": traceparent} if traceparent else {}


@contextmanager
def request_span(name: str, headers: Mapping[str, str]) -> Iterator[str]:
    """Begin or continue the trace of a request and yield its traceparent, "" where nothing is traced."""
    with trace.get_tracer(_TRACER).start_as_current_span(name, context=propagate.extract(headers)):
        yield trace_headers().get("traceparent", "")


@contextmanager
def task_span(delivery: Delivery) -> Iterator[None]:
    """Continue the trace of a delivery's job while its task is worked on, and count it."""
    task = delivery.task
    if delivery.count > 1:
        REDELIVERIES.labels(task.stage).inc()
    attributes = {**_attributes(task), "vitascope.delivery": delivery.count}
    context = propagate.extract(delivery.headers)
    with (
        TASKS_IN_FLIGHT.labels(task.stage).track_inprogress(),
        STAGE_SECONDS.labels(task.stage).time(),
        trace.get_tracer(_TRACER).start_as_current_span(task.stage, context=context, attributes=attributes),
    ):
        yield


def _attributes(task: Task) -> dict[str, str | int]:
    return {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "vitascope.job": task.job_id,
        "vitascope.attempt": task.attempt,
        "vitascope.output": task.output,
        "vitascope.chunk": task.index,
    }

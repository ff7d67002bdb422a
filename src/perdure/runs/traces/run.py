"""The trace of a run: found from its id, so that all its processes and months add to one.

Spans are made only where the program has set a tracer provider and it samples the run; who
decides is its own sampler, asked once for a run and with the same answer everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perdure.runs.traces.ids import choosing, root_span_id, sampling_id

__all__ = ["RunTrace", "accepted", "called_by", "ended", "trace_of"]

_ENDS = frozenset(("completed", "failed", "cancelled"))
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class RunTrace:
    """Where spans of a run are started."""

    run_id: UUID
    tracer: Tracer
    chooses: bool
    """Whether spans may be given the ids they have in every process."""

    @property
    def root(self) -> Context:
        """The context whose span is that of the run itself, which ends with the run."""
        context = SpanContext(
            self.run_id.int,
            root_span_id(self.run_id),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        return set_span_in_context(NonRecordingSpan(context), Context())

    def start(
        self,
        name: str,
        parent: Context | None = None,
        *,
        span_id: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, Any] | None = None,
        links: Sequence[Link] = (),
        start_time: int | None = None,
    ) -> Span:
        """Start a span beneath ``parent``, by default that of the run; times are nanoseconds."""
        given: dict[str, Any] = {
            "context": self.root if parent is None else parent,
            "kind": kind,
            "attributes": {"perdure.run.id": str(self.run_id), **(attributes or {})},
            "links": links,
            "start_time": start_time,
        }
        if span_id is None or not self.chooses:
            return self.tracer.start_span(name, **given)
        with choosing(self.run_id, span_id):
            return self.tracer.start_span(name, **given)


def trace_of(run_id: UUID) -> RunTrace | None:
    """Return the trace of a run; None where nobody records it."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    sampler = getattr(provider, "sampler", None)
    if sampler is not None:
        sampled = sampler.should_sample(Context(), sampling_id(run_id), "run")
        if not sampled.decision.is_sampled():
            return None
    chooses = getattr(getattr(provider, "id_generator", None), "chooses_run_ids", False)
    return RunTrace(run_id, provider.get_tracer("perdure"), bool(chooses))


@contextmanager
def called_by(headers: Mapping[str, str]) -> Iterator[None]:
    """Let the span of a request's ``traceparent`` be the current one, where there is no other."""
    if "traceparent" not in headers or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    token = otel_context.attach(_PROPAGATOR.extract(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


def accepted(run_id: UUID, agent: str) -> None:
    """Tell that a run was accepted, with a link to the span that asked for it: the current one."""
    run = trace_of(run_id)
    if run is None:
        return
    caller = trace.get_current_span().get_span_context()
    links = [Link(caller)] if caller.is_valid else []
    attributes = {"gen_ai.agent.name": agent}
    run.start(f"accept {agent}", kind=SpanKind.PRODUCER, attributes=attributes, links=links).end()


def ended(run_id: UUID, agent: str, status: str, error_type: str | None = None) -> None:
    """Tell that a run has ended: the span it is itself, from when it was accepted till now."""
    run = trace_of(run_id) if status in _ENDS else None
    if run is None:
        return
    span = run.start(
        f"run {agent}",
        # Nothing is above it, if its own id can be given to it; else it is beside its segments.
        Context() if run.chooses else None,
        span_id=root_span_id(run_id),
        attributes={"gen_ai.agent.name": agent, "perdure.status": status},
        start_time=_accepted_at(run_id),
    )
    if status == "failed":
        span.set_attribute("error.type", error_type or "_OTHER")
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _accepted_at(run_id: UUID) -> int:
    """Return when a run was accepted, in nanoseconds: its id begins with the milliseconds."""
    return min((run_id.int >> 80) * 1_000_000, time.time_ns())

"""OpenTelemetry for programs that have no tracer provider of their own: ``perdure[otel]``.

``configure()`` sets one up. Who has one gives it ``id_generator=RunIdGenerator()``, and
``RunSampler`` if it samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

try:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
except ImportError as error:
    from perdure.errors import ConfigurationError

    raise ConfigurationError(
        "perdure.otel needs OpenTelemetry's SDK. Install it with: pip install 'perdure[otel]'"
    ) from error

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, ProxyTracerProvider, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from perdure.errors import ConfigurationError
from perdure.runs.traces.ids import chosen

__all__ = ["RunIdGenerator", "RunSampler", "configure"]


class RunIdGenerator(IdGenerator):
    """Gives the spans of runs the ids each process tells from the run's id, others random ones.

    Without it the spans of a run are still of one trace, but the run itself, and executions that
    died with their process, have none.
    """

    chooses_run_ids = True

    def __init__(self, others: IdGenerator | None = None) -> None:
        """Take the generator of all other ids."""
        self._others = others or RandomIdGenerator()

    def generate_span_id(self) -> int:
        """Return the id of the span that is started."""
        ids = chosen.get()
        return self._others.generate_span_id() if ids is None else ids.span_id

    def generate_trace_id(self) -> int:
        """Return the id of the trace that is started."""
        ids = chosen.get()
        return self._others.generate_trace_id() if ids is None else ids.trace_id

    def is_trace_id_random(self) -> bool:
        """Return whether the id of a trace that is started is random: that of a run is not."""
        return chosen.get() is None and self._others.is_trace_id_random()


class RunSampler(Sampler):
    """Lets ``inner`` decide on runs by a number that is spread evenly, as run ids are not.

    Run ids have their version among the bits a ratio is taken of.
    """

    def __init__(self, inner: Sampler) -> None:
        """Take who decides."""
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision of ``inner``."""
        ids = chosen.get()
        if ids is not None and ids.trace_id == trace_id:
            trace_id = ids.sampling_id
        return self._inner.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Return what it is called."""
        return f"RunSampler{{{self._inner.get_description()}}}"


def configure(
    *processors: SpanProcessor, service_name: str | None = None, sampler: Sampler | None = None
) -> TracerProvider:
    """Set the process's tracer provider and return it.

    Without ``processors`` spans go in batches to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, by
    OTLP over HTTP. The service is ``service_name``, else ``OTEL_SERVICE_NAME``, else ``perdure``;
    without a ``sampler`` the one of ``OTEL_TRACES_SAMPLER``, or all runs.

    Raises:
        ConfigurationError: there is a tracer provider already, or no exporter.
    """
    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        raise ConfigurationError(
            "This process has a tracer provider already: give that one "
            "id_generator=perdure.otel.RunIdGenerator() where it is made."
        )
    name = service_name or os.environ.get("OTEL_SERVICE_NAME") or "perdure"
    provider = TracerProvider(
        sampler=sampler,
        resource=Resource.create({SERVICE_NAME: name}),
        id_generator=RunIdGenerator(),
    )
    provider.sampler = RunSampler(provider.sampler)
    for processor in processors or (_over_http(),):
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return provider


def _over_http() -> SpanProcessor:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            "There is no OTLP exporter. Install it with: pip install 'perdure[otel]'"
        ) from error
    return BatchSpanProcessor(OTLPSpanExporter())

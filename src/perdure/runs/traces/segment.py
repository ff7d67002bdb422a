"""The spans of one execution of a segment: itself, its agents, models and tools.

What is answered from the ledger is counted and makes no span: it has one, of when it happened.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agents import ModelSettings
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from perdure.errors import Fenced, StopSegment
from perdure.ledger.effects import Effect
from perdure.runs.execution import scope_text
from perdure.runs.outcomes import Call, Outcome
from perdure.runs.segment import Begun
from perdure.runs.traces import attributes, content
from perdure.runs.traces.ids import nested_span_id, segment_span_id
from perdure.runs.traces.run import RunTrace, ended, trace_of

_LOST = "process_died"
_GOES_ON = frozenset(("handover", "trouble", "again", "fenced"))
"""Outcomes of executions whose segment is executed again."""


@dataclass(frozen=True, slots=True)
class _AgentSpan:
    agent: str
    span: Span
    context: Context


@dataclass(slots=True)
class End:
    """How an execution ended; None: it is to begin again."""

    outcome: str | None = None


class SegmentTrace:
    """The spans of an execution; ``end`` ends what is left of them."""

    def __init__(
        self, run: RunTrace, *, segment: int, epoch: int, with_content: bool, **told: Any
    ) -> None:
        """Start the execution's span; ``told`` are attributes, of which those None are left out."""
        self._run = run
        self._with_content = with_content
        self.segment = segment
        self.error_type: str | None = None
        """Of what kind the error is the segment rests with."""
        self.elsewhere = False
        """Whether a process of its own has run the segment, and told of its end."""
        self.replies_replayed = 0
        self.calls_replayed = 0
        named = {f"perdure.{name}": value for name, value in told.items() if value is not None}
        self.span = run.start(
            f"segment {segment}",
            span_id=segment_span_id(run.run_id, segment, epoch),
            attributes={"perdure.segment": segment, "perdure.epoch": epoch, **named},
        )
        self.context = set_span_in_context(self.span, Context())
        self._agents: dict[str, _AgentSpan] = {}
        self._turns: dict[str, str] = {}
        self._open: list[Span] = []
        """Those of nested calls that the next execution of the segment enters again."""

    def attach(self) -> None:
        """Let spans that are started in this context be beneath the execution's, for good."""
        otel_context.attach(set_span_in_context(self.span))

    def replayed(self, scope: str, agent: str) -> None:
        """Count a reply that was answered from the ledger."""
        self.replies_replayed += 1
        self._turn(scope, agent)

    @contextmanager
    def chat(
        self, scope: str, agent: str, model: str, provider: str, settings: ModelSettings
    ) -> Iterator[Span]:
        """Be the span of a request to a model inside the block."""
        told = attributes.of_request(model, provider, agent, settings)
        with self._living(
            f"chat {model}", self._agent(scope, agent), SpanKind.CLIENT, told
        ) as span:
            yield span

    def asked(self, span: Span, system: str | None, model_input: str | list[Any]) -> None:
        """Note what a model is told, if that is wanted."""
        if self._with_content:
            span.set_attributes(content.of_request(system, model_input))

    def replied(self, span: Span, entry: dict[str, Any]) -> None:
        """Note a reply, from its ledger entry."""
        span.set_attributes(attributes.of_reply(entry))
        if self._with_content:
            span.set_attributes(content.of_reply(entry["output"]))

    @contextmanager
    def tool(self, scope: str, agent: str, call: Call) -> Iterator[Span]:
        """Be the span of a tool call inside the block."""
        told = attributes.of_tool(call.tool, call.call_id, call.kind, call.effect.value, agent)
        name, parent = f"execute_tool {call.tool}", self._agent(scope, agent)
        inner = scope_text((*filter(None, (scope,)), call.call_id))
        nested = call.effect is Effect.NESTED
        span_id = nested_span_id(self._run.run_id, self.segment, inner) if nested else None
        with self._living(name, parent, SpanKind.INTERNAL, told, span_id=span_id) as span:
            if self._with_content:
                span.set_attributes(content.of_arguments(call.arguments_raw, call.arguments))
            yield span
            if span not in self._open:
                self._end_agent(inner)

    def came_to(self, span: Span, outcome: Outcome) -> None:
        """Note what a tool call came to; a nested one that waits for people to nothing yet."""
        if not outcome.final:
            self._open.append(span)
        if outcome.error is not None:
            self._failed(span, outcome.error_type or "_OTHER", outcome.cause)
        if self._with_content and outcome.final:
            span.set_attributes(content.of_result(outcome.stored, outcome.error))

    @contextmanager
    def to_its_end(self, begun: Begun) -> Iterator[End]:
        """Be the execution's span inside the block, and end the run's with it where it is over."""
        end = End()
        try:
            yield end
        except Fenced:
            self._end("fenced", taken_over=True)
            raise
        except (CancelledError, StopSegment):
            self._end("handover")
            raise
        except BaseException:
            self._end("trouble")
            raise
        self._end(end.outcome or "again")
        if end.outcome is not None and not self.elsewhere:
            ended(self._run.run_id, begun.agent, end.outcome, self.error_type)

    def _end(self, outcome: str, *, taken_over: bool = False) -> None:
        if outcome not in _GOES_ON or not self._run.chooses:
            for scope in list(self._agents):
                self._end_agent(scope)
            for span in self._open:
                span.end()
        if taken_over and self._run.chooses:
            # Whoever took it over has told that it was lost.
            return
        self.span.set_attributes(
            {
                "perdure.outcome": outcome,
                "perdure.replayed.replies": self.replies_replayed,
                "perdure.replayed.calls": self.calls_replayed,
            }
        )
        if outcome in ("failed", "trouble"):
            self.span.set_attribute("error.type", self.error_type or "_OTHER")
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()

    @contextmanager
    def _living(
        self,
        name: str,
        parent: Context,
        kind: SpanKind,
        told: dict[str, Any],
        *,
        span_id: int | None = None,
    ) -> Iterator[Span]:
        span = self._run.start(name, parent, span_id=span_id, kind=kind, attributes=told)
        token = otel_context.attach(set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            if isinstance(error, CancelledError | StopSegment):
                span.set_attribute("perdure.cut_short", True)
                if span_id is not None:
                    # The next execution enters it again, under the same id.
                    self._open.append(span)
                    raise
            else:
                self._failed(span, type(error).__qualname__, error)
            span.end()
            raise
        else:
            if span not in self._open:
                span.end()
        finally:
            otel_context.detach(token)

    def _failed(self, span: Span, kind: str, error: BaseException | None) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR))
        # Its words may repeat what the model or the tool was told.
        if self._with_content and error is not None:
            span.record_exception(error)

    def _agent(self, scope: str, agent: str) -> Context:
        """Return the context of what an agent does in a scope: of a nested one, its span's.

        What must be whole although a process dies has ended by then, or has the same id in each
        execution: the run's own agents need no spans between the execution's and what they do.
        """
        self._turn(scope, agent)
        if not scope:
            return self.context
        known = self._agents.get(scope)
        if known is not None and known.agent == agent:
            return known.context
        if known is not None:
            known.span.end()
        span = self._run.start(
            f"invoke_agent {agent}",
            # It is called by a tool, whose span is the current one.
            otel_context.get_current(),
            span_id=nested_span_id(self._run.run_id, self.segment, scope, agent),
            attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent},
        )
        context = set_span_in_context(span, Context())
        self._agents[scope] = _AgentSpan(agent, span, context)
        return context

    def _turn(self, scope: str, agent: str) -> None:
        before = self._turns.get(scope)
        self._turns[scope] = agent
        if before is not None and before != agent:
            self.span.add_event("handoff", {"perdure.from": before, "perdure.to": agent})

    def _end_agent(self, scope: str) -> None:
        self._turns.pop(scope, None)
        known = self._agents.pop(scope, None)
        if known is not None:
            known.span.end()


def traced(
    run_id: UUID, seq: int, begun: Begun, executor: str, *, with_content: bool
) -> SegmentTrace | None:
    """Return the trace of an execution that has begun; None where nobody records it."""
    run = trace_of(run_id)
    if run is None:
        return None
    if begun.after == "death":
        _tell_lost(run, seq, begun.epoch - 1, begun.started_at)
    spans = SegmentTrace(
        run,
        segment=seq,
        epoch=begun.epoch,
        with_content=with_content,
        execution=begun.executions,
        executor=executor,
        recovered=begun.executions > 1,
        after=begun.after,
        **{"tenant.id": str(begun.tenant_id)},
    )
    spans.span.set_attribute("gen_ai.operation.name", "invoke_agent")
    spans.span.set_attribute("gen_ai.agent.name", begun.agent)
    if begun.session_id is not None:
        spans.span.set_attribute("gen_ai.conversation.id", str(begun.session_id))
    return spans


def _tell_lost(run: RunTrace, segment: int, epoch: int, since: datetime) -> None:
    """Tell of an execution that died with its process: its own span died with it.

    ``since`` is when the segment was first executed; when it was this time nobody has written down.
    """
    if not run.chooses:
        return
    span = run.start(
        f"segment {segment}",
        span_id=segment_span_id(run.run_id, segment, epoch),
        attributes={
            "perdure.segment": segment,
            "perdure.epoch": epoch,
            "perdure.outcome": _LOST,
            "error.type": _LOST,
        },
        start_time=int(since.timestamp() * 1_000_000_000),
    )
    span.set_status(Status(StatusCode.ERROR))
    span.end()

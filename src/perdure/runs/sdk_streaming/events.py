"""The log of a run told in the Agents SDK's own stream events: what ``Run.stream`` gives. Pure.

What is above tool calls only, as in the SDK: what an agent that serves as a tool says stays out.
Texts come of the deltas, everything else of what is recorded, so a reader that comes late, or back,
is told the same as one that was there all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from agents import (
    Agent,
    AgentUpdatedStreamEvent,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
)

from perdure.events import TERMINAL, Event
from perdure.ledger.journal import RecordedReply
from perdure.runs.interruption import Interruption
from perdure.runs.reply_rows import recorded_event
from perdure.runs.sdk_streaming.items import (
    answered,
    calls_in,
    handoff_item,
    items_of,
    output_item,
    stored_item,
    told,
)
from perdure.runs.sdk_streaming.replies import Reply


@dataclass(frozen=True, slots=True)
class Superseded:
    """What was streamed of a reply is void: forget its deltas. What comes next begins anew.

    ``reason``: ``death`` (its worker died), ``handover`` (its worker stopped), ``trouble``,
    ``retry`` (the provider failed), ``cancelled``, ``failed``, ``interrupted``; or ``thinned``:
    who went on in the middle of a reply comes back too late for its deltas, and gets it whole.
    """

    model_response_id: str
    attempt: int
    agent: str
    reason: str
    type: Literal["superseded"] = "superseded"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run waits for people, and the stream with it. ``interruptions`` are the questions.

    Decide them and the stream goes on; or leave it. What is decided by the time this is read is
    not asked again.
    """

    interruptions: list[Interruption]
    type: Literal["interrupted"] = "interrupted"


StreamEvent: TypeAlias = (
    RawResponsesStreamEvent
    | RunItemStreamEvent
    | AgentUpdatedStreamEvent
    | Superseded
    | Interrupted
)
"""What ``Run.stream`` gives: the SDK's stream events, and two of ours."""

RESTS: Final = TERMINAL | {"run.interrupted"}
STORED: Final = RESTS | {"checkpoint.saved", "handoff"}
"""Events with which items are stored."""


@dataclass
class Recorded:
    """The rows events speak of, as far as they are needed to tell them."""

    replies: dict[str, RecordedReply] = field(default_factory=dict)
    """By id."""
    calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Those that came to an end, by id."""
    outputs: Sequence[Mapping[str, Any]] = ()
    """Items tools gave, stored with checkpoints, in their order."""
    pending: Sequence[Mapping[str, Any]] = ()
    """Questions that are open now."""


@dataclass
class Telling:
    """Tells a run's events, one after the other from its first one on."""

    agents: Mapping[str, Agent[Any]]
    after: int = 0
    """Of what comes up to this number the reader has been told."""
    _last: int = 0
    _reply: Reply | None = None
    _agent: str = ""
    _open: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)

    @property
    def open(self) -> frozenset[str]:
        """Calls, handoffs among them, whose outcome has not been told yet."""
        return frozenset(self._open)

    def tell(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        """Return what an event is in the SDK's words, in order; often nothing."""
        if self._reply is not None and self._misses(event):
            self._reply.gap = True
        self._last = event.id
        if event.event in RESTS:
            return self._outputs(event, rows) + self._waits(event, rows)
        if event.event == "interruption.created":
            # Whoever asks, also beneath a tool: people answer.
            self._asked.add(event.data["interruption_id"])
        if event.data.get("scope"):
            return []
        tell = _TOLD.get(event.event)
        return [] if tell is None else tell(self, event, rows)

    def _misses(self, event: Event) -> bool:
        # Only deltas of replies that are over are thinned away.
        return event.id > self._last + 1 and self._last < self.after

    def _agent_started(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        self._agent = event.data["agent"]
        return [AgentUpdatedStreamEvent(new_agent=self._named(self._agent))]

    def _asked_model(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        self._reply = _reply_of(event.data)
        return [self._reply.created()]

    def _delta(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        begun, reply = self._begun(event)
        return [*begun, *reply.delta(event.data)]

    def _begun(self, event: Event) -> tuple[list[StreamEvent], Reply]:
        reply = self._reply
        if reply is not None and reply.id == event.data["model_response_id"]:
            return [], reply
        self._reply = reply = _reply_of(event.data)
        return [reply.created()], reply

    def _superseded(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        self._reply = None
        return [_void(event.data, event.data["reason"])]

    def _completed(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        recorded = rows.replies.get(event.data["model_response_id"])
        begun, reply = self._begun(event)
        self._reply = None
        if recorded is None:  # the run is being deleted
            return begun
        if reply.gap and event.id > self.after:
            reply = _reply_of(event.data)
            begun = [_void(event.data, "thinned"), reply.created()]
        completed = recorded_event(recorded, event.data.get("model") or "")
        output = completed.response.output
        self._open |= calls_in(output)
        items = told(items_of(output, self._named(event.data["agent"])))
        return [*begun, *reply.completed(completed), *items]

    def _call_ended(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        call = rows.calls.get(event.data["tool_call_id"])
        if call is None or event.data["call_id"] not in self._open:
            return []
        item = output_item(call, self._named(event.data["agent"]))
        if item is None:
            return []
        self._open.discard(event.data["call_id"])
        return list(told([item]))

    def _handed_off(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        source, target = self._named(event.data["from"]), self._named(event.data["to"])
        stored = next(
            (
                one["item"]
                for one in rows.outputs
                if one["type"] == "handoff_output"
                and answered(one["item"]) in self._open
                and one["created_at"] <= event.created_at
            ),
            None,
        )
        if stored is not None:
            self._open.discard(answered(stored))
        return list(told([handoff_item(source, target, stored)]))

    def _outputs(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        """Return what the models were told of calls that had no end of their own: rejections, …"""
        found = []
        for one in rows.outputs:
            known = answered(one["item"])
            if (
                one["type"] != "handoff_output"
                and known in self._open
                and one["created_at"] <= event.created_at
            ):
                self._open.discard(known)
                found.append(stored_item(one["item"], self._named(one["agent"] or self._agent)))
        return list(told(found))

    def _waits(self, event: Event, rows: Recorded) -> list[StreamEvent]:
        if event.event != "run.interrupted":
            return []
        open_ = [Interruption(one) for one in rows.pending if one["id"] in self._asked]
        return [Interrupted(open_)] if open_ else []

    def _named(self, name: str) -> Agent[Any]:
        # This build may not have an agent that an older one ran.
        return self.agents.get(name) or Agent(name=name)


_Tell = Callable[[Telling, Event, Recorded], list[StreamEvent]]
_TOLD: Final[dict[str, _Tell]] = {
    "agent.started": Telling._agent_started,
    "model.started": Telling._asked_model,
    "model.delta": Telling._delta,
    "model.completed": Telling._completed,
    "model.superseded": Telling._superseded,
    "tool.completed": Telling._call_ended,
    "tool.failed": Telling._call_ended,
    "handoff": Telling._handed_off,
    "checkpoint.saved": Telling._outputs,
}


def _reply_of(data: Mapping[str, Any]) -> Reply:
    return Reply(data["model_response_id"], data["attempt"], data.get("model") or "")


def _void(data: Mapping[str, Any], reason: str) -> Superseded:
    return Superseded(data["model_response_id"], data["attempt"], data["agent"], reason)

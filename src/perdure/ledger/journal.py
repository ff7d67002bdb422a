"""The ledger of one segment in memory: what is recorded since its base state, by key.

A reply is matched by scope, agent and hash of its input, equal ones in the order they were
recorded. A tool call is matched by scope and call id. Pure: rows in, answers out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self
from uuid import UUID

from perdure.ledger.effects import Effect

STARTED = frozenset({"executing", "succeeded", "failed", "uncertain"})
FINISHED = frozenset({"succeeded", "failed"})


def request_id(base_seq: int, agent: str, input_hash: str) -> str:
    """Return the beginning of the ids of a model request that is a call of its own.

    It is made of what is asked; a number follows, as the same may be asked again.
    """
    asked = f"{base_seq}:{agent}:{input_hash}".encode(errors="surrogatepass")
    return f"ask_{blake2b(asked, digest_size=6).hexdigest()}_"


@dataclass(slots=True)
class RecordedReply:
    """A model reply as recorded: what the SDK needs to go on as if it had just come."""

    id: UUID
    scope: str
    agent: str
    input_hash: str
    response_id: str | None
    request_id: str | None
    output: list[dict[str, Any]]
    usage: dict[str, int]

    @property
    def call_ids(self) -> list[str]:
        """Ids of the calls this reply asked for."""
        return [item["call_id"] for item in self.output if item.get("call_id")]

    @property
    def acted(self) -> bool:
        """Whether a hosted MCP server was called while it was made."""
        return any(item.get("type") == "mcp_call" for item in self.output)


@dataclass(slots=True)
class RecordedCall:
    """A tool call as recorded; ``output`` and ``error`` in the stored shapes."""

    id: UUID
    scope: str
    call_id: str
    tool: str
    kind: str
    agent: str
    effect: Effect
    status: str
    attempt: int
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    arguments: Any = None
    arguments_raw: str | None = None
    epoch: int = 0
    """Epoch of the execution that began it, as its row says."""
    begun_here: bool = False
    """Whether this very execution's reply marked it as begun: it needs no intent of its own."""
    probe_said: str | None = None
    """What its tool's probe said in this execution, where that left it in doubt: for people."""
    served: bool = False
    """Whether this execution has matched it to what the SDK runs (patches come without an id)."""

    @property
    def finished(self) -> bool:
        """Whether its outcome is known and may be answered from the row."""
        return self.status in FINISHED

    @property
    def in_doubt(self) -> bool:
        """Whether its effect may or may not have happened and must not be repeated unasked."""
        return self.status == "uncertain" or (
            self.status == "executing" and self.effect is Effect.AT_MOST_ONCE
        )


@dataclass(slots=True)
class Journal:
    """What is recorded since the base state, less what this execution has consumed."""

    base_seq: int = 0
    calls: dict[tuple[str, str], RecordedCall] = field(default_factory=dict)
    tools: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names of the function tools that earlier executions called, by agent."""
    _replies: dict[tuple[str, str], deque[RecordedReply]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    _beyond: bool = False
    """Whether the top level has come to a request that nothing recorded answers."""

    @classmethod
    def load(
        cls,
        base_seq: int,
        replies: Iterable[Mapping[str, Any]],
        calls: Iterable[Mapping[str, Any]],
    ) -> Self:
        """Build the journal from rows (JSON): replies in the order recorded, calls in any."""
        journal = cls(base_seq=base_seq)
        for row in replies:
            reply = RecordedReply(**{**row, "id": UUID(row["id"])})
            journal._replies[reply.scope, reply.agent].append(reply)
        for row in calls:
            call = RecordedCall(**{**row, "id": UUID(row["id"]), "effect": Effect(row["effect"])})
            journal.calls[call.scope, call.call_id] = call
            if call.kind in ("function", "mcp", "agent"):
                journal.tools[call.agent].add(call.tool)
        return journal

    def take_reply(self, scope: str, agent: str, input_hash: str) -> RecordedReply | None:
        """Return and consume the first recorded reply to this input, or None."""
        queue = self._replies.get((scope, agent), ())
        for reply in queue:
            if reply.input_hash == input_hash:
                self._replies[scope, agent].remove(reply)
                return reply
        if not scope:
            self._beyond = True
        return None

    @property
    def replaying(self) -> bool:
        """Whether recorded replies to the top level may be matched yet.

        A state made before they are would leave them, and the effects they began, behind.
        """
        return not self._beyond and any(
            queue for (scope, _), queue in self._replies.items() if not scope
        )

    def unmatched_with_effects(self, scope: str, agent: str) -> list[RecordedReply]:
        """Return the recorded, unconsumed replies whose calls have started effects.

        Asking the model anew while there is one would repeat its effects under new call ids.
        """
        return [reply for reply in self._replies.get((scope, agent), ()) if self.started_by(reply)]

    def unmatchable(self, agents: Container[str]) -> list[RecordedReply]:
        """Return the recorded replies of agents not among ``agents``: nothing asks for them."""
        replies = (one for queue in self._replies.values() for one in queue)
        return [one for one in replies if one.agent not in agents]

    def started_by(self, reply: RecordedReply) -> list[RecordedCall]:
        """Return the calls of ``reply`` that have begun, its own request among them if it acted."""
        ids = list(reply.call_ids)
        if reply.acted:
            asked = request_id(self.base_seq, reply.agent, reply.input_hash)
            ids += [id for scope, id in self.calls if scope == reply.scope and id.startswith(asked)]
        calls = (self.calls.get((reply.scope, id)) for id in ids)
        return [call for call in calls if call is not None and call.status in STARTED]

    def doubts(self) -> list[RecordedCall]:
        """Return the calls whose effect is unknown, which a person has to settle first."""
        return [call for call in self.calls.values() if call.in_doubt]

    def under_way(self) -> list[RecordedCall]:
        """Return the calls that were begun and have no outcome, whatever may be repeated."""
        return [call for call in self.calls.values() if call.status == "executing"]

    def withdraw(self, epoch: int, started: Set[tuple[str, str]]) -> list[UUID]:
        """Take back what the execution of ``epoch`` marked as begun and never ``started``.

        Returns the ids of those calls: that execution was this process's, which knows.
        """
        withdrawn = [
            call
            for key, call in self.calls.items()
            if call.status == "executing" and call.epoch == epoch and key not in started
        ]
        for call in withdrawn:
            call.status = "proposed"
            call.attempt -= 1
        return [call.id for call in withdrawn]

    def settle(self, scope: str, call_id: str, status: str) -> None:
        """Note the status a call has come to in this execution."""
        call = self.calls.get((scope, call_id))
        if call is not None:
            call.status = status
            call.begun_here = False

    def rebase(self, base_seq: int) -> None:
        """Start anew after a checkpoint: what came before it is in the state."""
        self.base_seq = base_seq
        self._beyond = False
        self._replies.clear()
        self.tools.clear()
        self.calls = {
            key: call
            for key, call in self.calls.items()
            if call.status not in FINISHED and call.status != "rejected"
        }

"""What the API gives, for its description at ``/openapi.json``.

Answers are rendered from rows as they are and never pass through these models; a test reads every
answer back through them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

RunStatus = Literal["queued", "running", "interrupted", "completed", "failed", "cancelled"]
InterruptionStatus = Literal[
    "pending", "approved", "rejected", "answered", "resolved", "expired", "cancelled"
]
InterruptionType = Literal["tool_approval", "uncertain_effect", "budget", "question"]
GrantScope = Literal["run", "session", "user", "agent"]


class Answer(BaseModel):
    """An object of the API."""

    model_config = ConfigDict(extra="forbid")


class List(Answer, Generic[T]):
    """A page of a list; go on with ``after=<last_id>`` while ``has_more``."""

    object: Literal["list"]
    data: list[T]
    first_id: UUID | None
    last_id: UUID | None
    has_more: bool


class RunError(Answer):
    """Why a run failed."""

    type: Literal[
        "model_error",
        "max_turns",
        "guardrail",
        "programming_error",
        "abandoned",
        "quarantined",
        "budget",
        "infrastructure",
    ]
    message: str | None


class Tokens(Answer):
    """Requests and tokens; ``cost_usd`` is a decimal, null where the price is not known."""

    requests: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_usd: str | None


class RunBudget(Answer):
    """The most a run may spend; null: any."""

    cost_usd: str | None
    total_tokens: int | None


class TotalUsage(Tokens):
    """A sum of requests; ``cost_usd`` is of those whose price is known, null where none is."""

    unpriced_requests: int


class By(Answer):
    """Who decided: how they were recognised, their id in that, who they are."""

    type: str
    id: str | None
    subject: str | None


class Decision(Answer):
    """A recorded decision."""

    id: UUID
    object: Literal["decision"]
    by: By
    at: datetime
    decision: Literal["approve", "reject", "answer", "resolve"]
    digest: str | None
    executes: str | None
    message: str | None
    arguments: Any
    answer: Any
    outcome: Literal["done", "not_done", "abandon"] | None
    result: Any
    source: str | None
    remember: Annotated[UUID | None, Field(description="The grant given with it.")]


class Evidence(Answer):
    """What became known of a call's effect by another way than its outcome; it changed nothing.

    ``late_outcome``: what a process that had been taken over reported. ``probe``: what the tool's
    probe said. ``epoch`` is that of the execution it comes from.
    """

    kind: Literal["late_outcome", "probe"]
    status: Literal["succeeded", "failed", "done", "not_done", "unknown"]
    output: Any
    error: dict[str, Any] | None
    epoch: int
    created_at: datetime


class Deciders(Answer):
    """Who may decide: whoever has a role, is in a group, or is a subject."""

    roles: list[str]
    groups: list[str]
    subjects: list[str]


class InterruptionPolicy(Answer):
    """What the policy asks for that opened an interruption. ``id`` is null in the program's."""

    id: UUID | None
    name: str
    deciders: Deciders | None
    requester_may_decide: bool
    on_expire: Literal["reject", "approve", "escalate", "fail"] | None
    message: str | None


class Policy(Answer):
    """Which calls people are asked about, and who they are. Times are in seconds."""

    id: UUID
    object: Literal["policy"]
    position: int
    name: str
    tool: list[str]
    agent: list[str]
    when: dict[str, dict[str, Any]]
    then: Literal["allow", "ask", "deny"]
    deciders: Deciders | None
    requester_may_decide: bool
    required: int
    expires_after: float | None
    on_expire: Literal["reject", "approve", "escalate", "fail"]
    escalate_to: list[Deciders]
    remind_every: float | None
    message: str | None
    created_by: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class Interruption(Answer):
    """A question a run stopped on. ``tool`` has ``name``, ``call_id``, ``arguments``, ``schema``.

    ``tool.original_arguments`` are the model's, once a person approved others instead.
    ``reason`` says why it was closed where nobody decided, ``replaces`` which one it follows.

    What the model wrote is shown as it is: treat it as hostile text.
    """

    id: UUID
    object: Literal["interruption"]
    run_id: UUID
    type: InterruptionType
    status: InterruptionStatus
    agent: str
    tool: dict[str, Any] | None
    question: str | None
    schema_: dict[str, Any] | None = Field(alias="schema")
    budget: Annotated[
        dict[str, Any] | None, Field(description="The budget it is about, as it stood.")
    ]
    digest: str
    reason: str | None
    replaces: UUID | None
    required: int
    policy: InterruptionPolicy | None
    requested_at: datetime
    expires_at: datetime | None
    closed_at: datetime | None
    evidence: list[Evidence]
    decisions: list[Decision]
    decision: Decision | None


class Grant(Answer):
    """An approval that stands for later calls of the same tool too, until it ends or is revoked.

    It covers calls of ``tool`` by ``agent`` in its scope, as long as the tool's schema is the same:
    with exactly ``arguments`` (null when their run is deleted; the digest stays), or with such that
    fulfil ``when``. ``active``: it may be used now.
    """

    id: UUID
    object: Literal["grant"]
    active: bool
    agent: str
    tool: str
    scope: GrantScope
    scope_id: str
    arguments: Any
    arguments_digest: str | None
    when: dict[str, dict[str, Any]] | None
    schema_digest: str
    until: datetime
    granted_by: By
    run_id: UUID
    interruption_id: UUID
    decision_id: UUID
    created_at: datetime
    revoked_at: datetime | None
    revoked_by: By | None


class UsedGrant(Grant):
    """A grant with how often it was used, and when last."""

    uses: int
    last_used_at: datetime | None


class GrantUse(Answer):
    """A call a grant approved; ``arguments`` are what it was made with."""

    id: UUID
    object: Literal["grant_use"]
    grant_id: UUID
    run_id: UUID
    interruption_id: UUID
    call_id: str
    arguments: Any
    at: datetime


class ForkedFrom(Answer):
    """The checkpoint a run goes on from, 0 being the beginning; of which run, null once deleted."""

    run_id: UUID | None
    checkpoint: int


class Run(Answer):
    """One agent job from input to final output."""

    id: UUID
    object: Literal["run"]
    agent: str
    current_agent: str
    agent_version: Annotated[
        str | None, Field(description="A hash of the agent as the run began; null before.")
    ]
    status: RunStatus
    input: Any
    output: Any
    error: RunError | None
    session_id: UUID | None
    user_id: str | None
    metadata: dict[str, Any]
    task: str | None
    turn: int
    max_turns: int
    model: str | None
    instructions: Annotated[
        str | None, Field(description="What a fork's agent is told instead of its own.")
    ]
    tools: Literal["run", "ask", "ledger"]
    replays_seq: int | None
    priority: int
    interruptions: list[Interruption]
    usage: TotalUsage
    budget: RunBudget | None
    forked_from: ForkedFrom | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


class Item(Answer):
    """A message, call or other item of a run; ``item`` is it as the SDK gave it."""

    id: UUID
    object: Literal["item"]
    run_id: UUID
    session_id: UUID | None
    seq: int
    type: str
    role: str | None
    text: str | None
    item: Any
    agent: str | None
    user_id: str | None
    token_count: int | None
    metadata: dict[str, Any]
    created_at: datetime


class Input(Answer):
    """A message added to a run; ``checkpoint`` is the state it became part of, 0 the run's input.

    ``not_given``: the run ended first; ``reason`` says how.
    """

    id: UUID
    object: Literal["input"]
    run_id: UUID
    input: list[dict[str, Any]]
    status: Literal["pending", "given", "not_given"]
    reason: Literal["run_cancelled", "max_turns"] | None
    added_by: By
    added_at: datetime
    given_at: datetime | None
    checkpoint: int | None


class AnsweredFrom(Answer):
    """The call of another run whose outcome answered this one, which was not made."""

    run_id: UUID
    tool_call_id: UUID


class ToolCall(Answer):
    """A tool call. ``arguments`` is null where the model wrote no object: see ``arguments_raw``."""

    id: UUID
    object: Literal["tool_call"]
    run_id: UUID
    segment: int
    call_id: str
    scope: str
    tool: str
    kind: str
    agent: str
    arguments: dict[str, Any] | None
    arguments_raw: str | None
    approved_arguments: dict[str, Any] | None
    effect: Literal["read", "idempotent", "transactional", "at_most_once", "nested"]
    status: Literal[
        "proposed",
        "awaiting_approval",
        "approved",
        "rejected",
        "executing",
        "succeeded",
        "failed",
        "uncertain",
    ]
    attempt: int
    idempotency_key: str
    output: Any
    error: dict[str, Any] | None
    answered_from: AnsweredFrom | None
    evidence: list[Evidence]
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Checkpoint(Answer):
    """A run state that was saved."""

    id: UUID
    object: Literal["checkpoint"]
    seq: int
    run_id: UUID
    kind: Literal["interrupted", "handoff", "periodic", "final"]
    schema_version: str
    sdk_version: str
    current_agent: str
    turn: int
    size_bytes: int
    is_active: bool
    created_at: datetime
    resumed_at: datetime | None


class RunState(Checkpoint):
    """The active run state, whole: ``state`` is the SDK's."""

    object: Literal["run_state"]  # type: ignore[assignment]
    state: Any


class Event(Answer):
    """One change of a run. Beside these fields stands what it is about, by kind: see the docs."""

    model_config = ConfigDict(extra="allow")

    id: int
    object: Literal["event"]
    event: str
    run_id: UUID
    created_at: datetime


class EventList(Answer):
    """A page of a run's events, oldest first; go on with ``after=<last_id>``."""

    object: Literal["list"]
    data: list[Event]
    first_id: int | None
    last_id: int | None
    has_more: bool


class AllEventsList(Answer):
    """A page of the events of all runs, oldest first; go on with ``after=<last_id>``."""

    object: Literal["list"]
    data: list[Event]
    first_id: str | None
    last_id: str
    has_more: bool


class AuditSubject(Answer):
    """What something was done to."""

    type: str
    id: str


class AuditActor(Answer):
    """Who did it. Within a tenant the same person has the same pseudonym, erased or not."""

    type: str
    id: str | None
    subject: str | None
    pseudonym: str


class AuditEntry(Answer):
    """What somebody did, or with no ``actor`` a rule or a clock.

    ``erased`` names the parts that were deleted, ``seal`` is the number of the seal that has the
    row, null while it waits for one.
    """

    id: UUID
    object: Literal["audit_entry"]
    kind: str
    at: datetime
    subject: AuditSubject
    run_id: UUID | None
    actor: AuditActor | None
    source: str | None
    shown_digest: str | None
    executed_digest: str | None
    details_digest: str
    details: dict[str, Any] | None
    erased: list[Literal["who", "details"]]
    seal: int | None


class Webhook(Answer):
    """An address that is told what happens. ``link_subject`` decides by links that are sent."""

    id: UUID
    object: Literal["webhook"]
    url: str
    events: list[str]
    description: str
    link_subject: str | None
    link_groups: list[str]
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    old_secret_until: datetime | None
    created_at: datetime


class WebhookSecret(Webhook):
    """A webhook and, this once, what its messages are signed with."""

    secret: str


class Attempt(Answer):
    """One attempt at a delivery, and what became of it."""

    attempt: int
    at: datetime
    status_code: int | None
    error: str | None
    latency_ms: int | None


class Delivery(Answer):
    """One event for one webhook; ``id`` is the ``webhook-id`` of each attempt at it.

    ``payload`` is the text that is sent, null before the first attempt.
    """

    id: UUID
    object: Literal["delivery"]
    webhook_id: UUID
    event: str
    run_id: UUID | None
    interruption_id: UUID | None
    status: Literal["pending", "delivered", "failed"]
    attempt: int
    status_code: int | None
    error: str | None
    response: str | None
    latency_ms: int | None
    attempts: list[Attempt]
    payload: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DecisionLink(Answer):
    """A link by which ``subject`` decides a question, once; ``url`` has its token."""

    id: UUID
    object: Literal["decision_link"]
    interruption_id: UUID
    subject: str
    decisions: list[Literal["approve", "answer", "reject"]]
    expires_at: datetime
    url: str


class FieldProblem(Answer):
    """What is wrong with one field; ``pointer`` is its JSON pointer."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """A refusal (RFC 9457). ``code`` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] | None = None
    decision: Decision | None = None


class Health(Answer):
    """The server's state."""

    status: Literal["ok"]

"""Bodies the API takes. What it gives stands in ``answers``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from perdure.budgets.limits import Limits, parse_limits
from perdure.errors import InvalidRequestError, NotSupportedError
from perdure.interruptions.rules import MAX_MESSAGE, UNSET, Decision
from perdure.runs.in_session import InSession, WhenBusy
from perdure.sessions.rules import check_content

MAX_TURNS = 10_000
MAX_DELAY_SECONDS = 366 * 24 * 3600
_MAX_PRIORITY = 2**31 - 1
_ROLES = ("user", "assistant", "system", "developer")


def _check_input(value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, list) or not value:
        raise InvalidRequestError.at(
            "/input", "has to be text or a list of Responses input items, and not empty."
        )
    for index, item in enumerate(value):
        _check_item(f"/input/{index}", item)
    return value


def _check_item(pointer: str, item: Any) -> None:
    if not isinstance(item, dict):
        raise InvalidRequestError.at(pointer, "has to be an object.")
    kind = item.get("type", "message")
    if not isinstance(kind, str) or not kind:
        raise InvalidRequestError.at(f"{pointer}/type", "has to be text.")
    if kind != "message":
        return
    if item.get("role") not in _ROLES:
        raise InvalidRequestError.at(f"{pointer}/role", f"has to be one of {', '.join(_ROLES)}.")
    check_content(item.get("content"), pointer)


RunInput = Annotated[
    Any,
    # Raises errors of ours: they name the very place within the items.
    AfterValidator(_check_input),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "object"}},
            ],
            "description": "Text, or a list of Responses input items.",
        }
    ),
]
Text255 = Annotated[str, Field(min_length=1, max_length=255)]


class Body(BaseModel):
    """A body whose unknown fields are refused, and whose later ones are named as such."""

    model_config = ConfigDict(extra="forbid", strict=True)

    later: ClassVar[dict[str, str]] = {}
    """Fields of the contract this build does not keep yet, and what they would do."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_later(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, what in cls.later.items():
            if data.get(name) is not None:
                raise NotSupportedError.at(f"/{name}", f"{what} is not supported yet.")
        return {name: value for name, value in data.items() if name not in cls.later}


class Nothing(Body):
    """A body without fields, for calls that need none."""


class Budget(Body):
    """The most that may be spent: in money, in tokens (in and out), or both."""

    cost_usd: Annotated[
        str | int | float | None, Field(description="USD, as a decimal text.", examples=["2.50"])
    ] = None
    total_tokens: int | None = None

    def limits(self, pointer: str) -> Limits:
        """Return it as budgets keep it.

        Raises:
            InvalidRequestError: it limits nothing, or a limit is none.
        """
        return parse_limits(self.model_dump(include={"cost_usd", "total_tokens"}), pointer)


class StartRun(Body):
    """A run to start."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"agent": "support", "input": "Refund order 42"},
                {
                    "agent": "support",
                    "input": [{"role": "user", "content": "Refund order 42"}],
                    "user_id": "alice",
                    "metadata": {"ticket": "T-1"},
                    "max_turns": 20,
                },
            ]
        }
    )
    later: ClassVar[dict[str, str]] = {
        "timeout_seconds": "a time limit",
    }

    agent: Annotated[str, Field(min_length=1)]
    input: RunInput
    context: Annotated[
        Any, Field(description="JSON given to the tools; fits the engine's context type.")
    ] = None
    user_id: Text255 | None = None
    metadata: Annotated[dict[str, Any] | None, Field(description="Yours; only stored.")] = None
    task: Annotated[
        Text255 | None, Field(description="What it is for; one of the engine's tasks, if it has.")
    ] = None
    max_turns: Annotated[int, Field(ge=1, le=MAX_TURNS)] | None = None
    budget: Annotated[
        Budget | None, Field(description="The most it may spend before a person is asked.")
    ] = None
    model: Annotated[
        Text255 | None,
        Field(description="The model all its agents are run with, by the provider's name."),
    ] = None
    priority: Annotated[
        int, Field(ge=0, le=_MAX_PRIORITY, description="Of waiting runs the lowest goes first.")
    ] = 0
    delay_seconds: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] | None = None
    session_id: Annotated[
        UUID | None,
        Field(strict=False, description="The session it belongs to; it has to be there."),
    ] = None
    session_key: Annotated[
        Text255 | None, Field(description="The same by its key and user: found, or made.")
    ] = None
    when_busy: Annotated[
        WhenBusy, Field(description="What if another run of the session is under way.")
    ] = "queue"

    def in_session(self) -> InSession | None:
        """Return the session it is started in.

        Raises:
            InvalidRequestError: both its id and its key are given.
        """
        if self.session_id is None and self.session_key is None:
            return None
        return InSession(self.session_id, self.session_key, self.when_busy)


class AddInput(Body):
    """A message to a run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": "The customer wants an exchange instead."},
                {"input": [{"role": "user", "content": "The customer wants an exchange instead."}]},
            ]
        }
    )

    input: Annotated[
        Any,
        # Checked with the run: the place within the items is named.
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": {"type": "object"}},
                ],
                "description": "Text, or a list of Responses input messages of the role user.",
            }
        ),
    ]


MAX_DECISIONS = 100

_REMEMBER = {
    "description": "With approve: a grant for later calls of the same tool, with the same "
    "arguments or such that fulfil `when`.",
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["scope", "until"],
            "properties": {
                "scope": {"enum": ["run", "session", "user", "agent"]},
                "until": {
                    "description": "When it ends, or in how many seconds; at most a year.",
                    "anyOf": [
                        {"type": "string", "format": "date-time"},
                        {"type": "number", "exclusiveMinimum": 0},
                    ],
                },
                "when": {
                    "description": "JSON pointers into the arguments, operators, operands.",
                    "type": "object",
                    "additionalProperties": {"type": "object"},
                    "examples": [{"/cents": {"lte": 5000}, "/currency": {"in": ["EUR"]}}],
                },
            },
        },
        {"type": "null"},
    ],
}


class Decide(Body):
    """A decision on an interruption."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"decision": "approve", "digest": "sha256:" + "0f" * 32},
                {
                    "decision": "approve",
                    "digest": "sha256:" + "0f" * 32,
                    "arguments": {"order_id": "42", "cents": 500},
                },
                {
                    "decision": "approve",
                    "digest": "sha256:" + "0f" * 32,
                    "remember": {"scope": "run", "until": 3600},
                },
                {"decision": "reject", "message": "Ask the customer first."},
                {"decision": "answer", "answer": "Ship it to the old address."},
                {"decision": "resolve", "outcome": "done", "result": "refunded"},
            ]
        }
    )

    decision: Literal["approve", "reject", "answer", "resolve"]
    digest: Annotated[
        str | None, Field(description="What was shown to you; needed to approve.")
    ] = None
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] | None = None
    outcome: Literal["done", "not_done", "abandon"] | None = None
    result: Annotated[Any, Field(description="With the outcome done: what the tool returned.")] = (
        None
    )
    arguments: Annotated[
        dict[str, Any] | None,
        Field(description="Approve the call with these arguments instead of the model's."),
    ] = None
    answer: Annotated[
        Any, Field(description="With the decision answer: JSON that fits the question's schema.")
    ] = None
    remember: Annotated[
        Any,
        # Checked with the decision: the place within the conditions is named.
        WithJsonSchema(_REMEMBER),
    ] = None

    @property
    def _answers(self) -> bool:
        # Null is an answer where one is given; clients fill in null for what they do not say.
        return self.answer is not None or (
            self.decision == "answer" and "answer" in self.model_fields_set
        )

    def to_decision(self) -> Decision:
        """Return it as the rules take it; what was not sent is unset, null is null."""
        sent = self.model_fields_set
        return Decision(
            decision=self.decision,
            digest=self.digest,
            message=self.message,
            outcome=self.outcome,
            result=self.result if "result" in sent else UNSET,
            arguments=UNSET if self.arguments is None else self.arguments,
            answer=self.answer if self._answers else UNSET,
            remember=UNSET if self.remember is None else self.remember,
        )


class DecideOne(Decide):
    """A decision within a batch."""

    interruption_id: Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]


class DecideAll(Body):
    """Decisions that count all or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "decisions": [
                        {
                            "interruption_id": "01900000-0000-7000-8000-000000000001",
                            "decision": "approve",
                            "digest": "sha256:" + "0f" * 32,
                        },
                        {
                            "interruption_id": "01900000-0000-7000-8000-000000000002",
                            "decision": "reject",
                            "message": "Not before Monday.",
                        },
                    ]
                }
            ]
        }
    )

    decisions: Annotated[list[DecideOne], Field(min_length=1, max_length=MAX_DECISIONS)]

"""Asking a person in mid-run: a tool whose call is a question, and whose output is the answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents import FunctionTool, UserError
from agents.tool_context import ToolContext
from pydantic import BaseModel

from perdure.errors import ConfigurationError
from perdure.interruptions.digest import parse_object
from perdure.interruptions.forms import problem_with_schema
from perdure.interruptions.rules import UNSET
from perdure.ledger.effects import Effect, mark_effect
from perdure.runs.execution import current_execution, current_scope, scope_text

__all__ = ["AskHuman", "Asked", "ask_human", "asked_of"]

_DESCRIPTION = (
    "Ask a person something you cannot find out or decide yourself, and wait for the answer. "
    "Ask one clear question that can be answered without knowing this conversation."
)
_QUESTION = {"type": "string", "description": "The question, with all that is needed to answer it."}
_SCHEMA = {
    "type": "object",
    "description": (
        "A JSON schema the answer has to fit, for a form to be drawn from; leave it out for text."
    ),
}


class AskHuman(FunctionTool):
    """The tool itself: ``tools=[ask_human]``, or ``tools=[ask_human(schema=Address)]``.

    As it is, the model asks a question and may say by a JSON schema what the answer has to look
    like. Called, it makes such a tool of another name, description, or for answers of one shape.
    """

    answer_schema: dict[str, Any] | None = None
    """What every answer has to fit; None leaves it to the model."""

    def __call__(
        self,
        *,
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        name: str = "ask_human",
        description: str = _DESCRIPTION,
    ) -> AskHuman:
        """Return a tool that asks for answers that fit ``schema``: a pydantic model or JSON schema.

        Raises:
            ConfigurationError: it is no JSON schema.
        """
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema()
        tool = copy.copy(self)
        tool.name, tool.description = name, description
        if schema is not None:
            problem = problem_with_schema(schema)
            if problem is not None:
                raise ConfigurationError(f"The schema of {name} is no JSON schema: {problem}")
            tool.answer_schema = dict(schema)
            tool.params_json_schema = _params(with_schema=False)
        return tool


def _params(*, with_schema: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {"question": _QUESTION}
    if with_schema:
        properties["schema"] = _SCHEMA
    return {
        "type": "object",
        "properties": properties,
        "required": ["question"],
        "additionalProperties": False,
    }


async def _answer(context: ToolContext[Any], arguments: str) -> str:
    execution = current_execution.get()
    if execution is None:
        raise UserError("ask_human works in durable runs only: there is nobody to ask otherwise.")
    *path, call_id = current_scope.get()
    approval = execution.approvals.get((scope_text(tuple(path)), call_id))
    if approval is None or approval.answer is UNSET:
        raise UserError("The question was not answered.")
    answer = approval.answer
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


ask_human = AskHuman(
    name="ask_human",
    description=_DESCRIPTION,
    params_json_schema=_params(with_schema=True),
    on_invoke_tool=_answer,
    strict_json_schema=False,
    needs_approval=True,
)
mark_effect(ask_human, Effect.READ)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks: the question, and the schema its answer has to fit."""

    question: str
    schema: dict[str, Any] | None


def asked_of(tool: FunctionTool, arguments: Any) -> Asked | None:
    """Return what a call of ``tool`` with ``arguments`` asks a person, or None: it acts instead.

    A schema of the model's that is none is left out: any answer fits then.
    """
    if not isinstance(tool, AskHuman):
        return None
    given = parse_object(arguments) if isinstance(arguments, str) else arguments
    given = given or {}
    schema = tool.answer_schema
    if schema is None and isinstance(given.get("schema"), dict):
        asked_for = given["schema"]
        schema = asked_for if problem_with_schema(asked_for) is None else None
    question = given.get("question")
    return Asked(question if isinstance(question, str) else str(arguments), schema)

"""What spans say of model and tool calls: OpenTelemetry's conventions for generative AI.

Nothing in here is what anybody wrote: that is in content.py, and only if it was asked for.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agents import ModelSettings
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncAzureOpenAI

Attributes = dict[str, str | bool | int | float]

_SETTINGS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_TOKENS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cache_read.input_tokens",
    "cache_write_tokens": "cache_creation.input_tokens",
    "reasoning_tokens": "reasoning.output_tokens",
}


def provider_of(model: Any, name: str) -> str:
    """Return who answers for ``model``, in the conventions' word where they have one."""
    if isinstance(model, OpenAIResponsesModel | OpenAIChatCompletionsModel):
        azure = isinstance(getattr(model, "_client", None), AsyncAzureOpenAI)
        return "azure.ai.openai" if azure else "openai"
    # Those that speak to many providers name them before the model: anthropic/claude-….
    before, separator, _ = name.removeprefix("litellm/").partition("/")
    return before if separator and before else type(model).__module__.partition(".")[0]


def of_request(model: str, provider: str, agent: str, settings: ModelSettings) -> Attributes:
    """Return what a request to a model is."""
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.agent.name": agent,
    }
    for ours, theirs in _SETTINGS.items():
        value = getattr(settings, ours, None)
        if isinstance(value, int | float):
            attributes[f"gen_ai.request.{theirs}"] = value
    return attributes


def of_reply(entry: dict[str, Any]) -> Attributes:
    """Return what is known of a reply from its ledger entry."""
    attributes: Attributes = {"perdure.attempt": entry["attempt"]}
    if entry["response_id"]:
        attributes["gen_ai.response.id"] = entry["response_id"]
    usage = entry["usage"]
    for ours, theirs in _TOKENS.items():
        attributes[f"gen_ai.usage.{theirs}"] = sum(one[ours] for one in usage)
    costs = [Decimal(one["cost_usd"]) for one in usage if one.get("cost_usd") is not None]
    if costs:
        attributes["perdure.cost_usd"] = float(sum(costs))
    return attributes


def of_tool(tool: str, call_id: str, kind: str, effect: str, agent: str) -> Attributes:
    """Return what a tool call is."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": agent,
        "perdure.tool.kind": kind,
        "perdure.effect": effect,
    }

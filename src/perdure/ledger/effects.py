"""What repeating a tool's effect would mean.

An unmarked tool is ``at_most_once``: nobody has said that repeating it is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal, TypeVar
from uuid import UUID

from perdure.errors import ConfigurationError

_MARK = "__perdure_effect__"
_PROBE = "__perdure_probe__"
_MCP_MARKS = "__perdure_mcp_effects__"
_T = TypeVar("_T")

EffectName = Literal["read", "idempotent", "transactional", "at_most_once"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a probe returns when the effect happened; ``result`` is what the tool would return."""

    result: Any = None


Look = Callable[[str], Any]
"""A probe: an idempotency key in; ``Done``, True, False, None or an awaitable of one out."""


class Effect(StrEnum):
    """Effect classes; ``nested`` is an agent used as a tool, whose parts have their own."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    TRANSACTIONAL = "transactional"
    AT_MOST_ONCE = "at_most_once"
    NESTED = "nested"

    @property
    def repeatable(self) -> bool:
        """Whether a call whose outcome is unknown may simply run again."""
        return self is not Effect.AT_MOST_ONCE

    @property
    def may_be_in_doubt(self) -> bool:
        """Whether a call may come to an end after which nobody knows if it happened."""
        return self in (Effect.AT_MOST_ONCE, Effect.IDEMPOTENT)


def parse_effect(kind: str) -> Effect:
    """Return the effect class named ``kind``.

    Raises:
        ConfigurationError: when there is no such class a tool can be marked with.
    """
    allowed = [effect.value for effect in Effect if effect is not Effect.NESTED]
    if kind not in allowed:
        raise ConfigurationError(f"effect({kind!r}) is unknown: use one of {', '.join(allowed)}.")
    return Effect(kind)


def effect(
    kind: EffectName, *, tools: Collection[str] | None = None, probe: Look | None = None
) -> Callable[[_T], _T]:
    """Mark a tool (or the function beneath ``function_tool``) with its effect class.

    On an MCP server it marks all of its tools, or those named by ``tools`` (the server's own
    names for them); several marks add up, and win over what the server's annotations say.

    ``read`` repeats freely, ``idempotent`` repeats with the same ``idempotency_key``,
    ``transactional`` commits its effect and its record in one transaction on
    ``tool_call().connection``, ``at_most_once`` is never repeated silently.

    ``probe``, ``async`` or plain, is asked before a person is, wherever nobody knows whether a
    call happened. It gets the call's idempotency key and returns ``Done(result)`` (it happened),
    True (it happened, the result is not known), False (it did not and will not any more) or None
    (it does not know). ``tool_call()`` works inside it.

    Raises:
        ConfigurationError: when ``kind`` is none of them, or a ``probe`` is given that cannot be
            called or to a class that is never in doubt; from the mark itself, when ``tools`` are
            named for what is no MCP server, or an MCP server is to be transactional or probed.
    """
    parsed = parse_effect(kind)
    if probe is not None:
        if not parsed.may_be_in_doubt:
            raise ConfigurationError(
                f"effect({kind!r}) takes no probe, as such a call is never in doubt: "
                "at_most_once and idempotent take one."
            )
        if not callable(probe):
            raise ConfigurationError(
                f"effect({kind!r}, probe=…) has to be a function that takes an idempotency key, "
                f"not {probe!r}."
            )

    def mark(tool: _T) -> _T:
        if _is_mcp_server(tool):
            _mark_mcp_server(tool, parsed, tools, probe)
        elif tools is not None:
            raise ConfigurationError(
                f"effect({kind!r}, tools=…) names the tools of an MCP server, and "
                f"{type(tool).__name__} is none: mark each tool by itself."
            )
        else:
            mark_effect(tool, parsed)
            setattr(tool, _PROBE, probe)
        return tool

    return mark


def mark_effect(tool: Any, effect: Effect) -> None:
    """Mark ``tool`` with its class, for good."""
    setattr(tool, _MARK, effect)


def _is_mcp_server(target: Any) -> bool:
    # By what it can do: the Agents SDK takes seconds to import, and a mark should not.
    return not isinstance(target, type) and all(
        callable(getattr(target, name, None)) for name in ("list_tools", "call_tool")
    )


def _mark_mcp_server(
    server: Any, effect: Effect, tools: Collection[str] | None, probe: Look | None
) -> None:
    if probe is not None:
        raise ConfigurationError(
            f"MCP server {server.name!r} takes no probe: put the call into a function tool, which "
            "takes one."
        )
    if effect is Effect.TRANSACTIONAL:
        raise ConfigurationError(
            f"MCP server {server.name!r} cannot be transactional: what its tools do is not in the "
            'transaction of their record. Use "idempotent" or "at_most_once".'
        )
    if isinstance(tools, str) or (tools is not None and not tools):
        raise ConfigurationError(
            f"effect(…, tools={tools!r}) on MCP server {server.name!r}: give a list of the names "
            "of its tools, or leave tools out to mark them all."
        )
    marks: dict[str | None, Effect] = {**getattr(server, _MCP_MARKS, {})}
    marks.update(dict.fromkeys([None] if tools is None else tools, effect))
    setattr(server, _MCP_MARKS, marks)


def mcp_effect(server: Any, tool: str) -> Effect | None:
    """Return the class ``tool`` of an MCP server was marked with, by its name or with all."""
    marks = mcp_effects(server)
    return marks.get(tool, marks.get(None))


def mcp_effects(server: Any) -> Mapping[str | None, Effect]:
    """Return the classes an MCP server was marked with, by its tools' names; None: all of them."""
    marks: dict[str | None, Effect] = getattr(server, _MCP_MARKS, {})
    return marks


def effect_of(tool: Any, default: Effect) -> Effect:
    """Return the class ``tool`` was marked with, on itself or on its function."""
    marked = getattr(tool, _MARK, None) or getattr(getattr(tool, "__wrapped__", None), _MARK, None)
    return marked if isinstance(marked, Effect) else default


def probe_of(tool: Any) -> Look | None:
    """Return the probe ``tool`` was marked with, on itself or on its function, or None."""
    for marked in (tool, getattr(tool, "__wrapped__", None)):
        if isinstance(getattr(marked, _MARK, None), Effect):
            look: Look | None = getattr(marked, _PROBE, None)
            return look
    return None


def idempotency_key(run_id: UUID, scope: str, call_id: str) -> str:
    """The key every attempt of one call shares: 64 hex digits."""
    # A model may put lone surrogates into the id of a call.
    text = f"perdure:{run_id}:{scope}:{call_id}"
    return sha256(text.encode(errors="surrogatepass")).hexdigest()

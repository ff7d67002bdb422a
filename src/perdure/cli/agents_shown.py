"""An agent's definition, and what changed in one, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perdure.visible import one_line, to_json

__all__ = ["in_fields", "step_in_words", "steps_of_others"]

_Object = Mapping[str, Any]
_WIDEST = 100


def in_fields(shown: _Object) -> dict[str, str | None]:
    """Return an agent, or a version of one, as names and values; of what it lacks None."""
    definition = shown["definition"]
    head = {
        "agent": shown.get("name") or shown.get("agent"),
        "version": shown["version"],
        "since": shown.get("served_at") or shown.get("updated_at"),
        "gone": shown.get("deleted_at"),
    }
    if definition is None:
        return {**head, "definition": "not known: no engine has come with it, or it was pruned"}
    others = ", ".join(f"{one['name']} ({one['version']})" for one in shown["agents"])
    return {
        **head,
        "model": definition["model"],
        "settings": _json(definition["model_settings"]),
        "description": definition["handoff_description"],
        "instructions": definition["instructions"] or _by(definition["instructions_by"]),
        "prompt": _json(definition["prompt"]) or _by(definition["prompt_by"]),
        "output": definition["output_type"],
        "tools": _lines(_tool(one) for one in definition["tools"]),
        "handoffs": _lines(_handoff(one) for one in definition["handoffs"]),
        "guardrails": _lines(
            f"{one['kind']}: {one['name']} ({one['function']})" for one in definition["guardrails"]
        ),
        "mcp servers": _lines(
            f"{one['name']} ({one['transport']})" for one in definition["mcp_servers"]
        ),
        "reaches": others or None,
        "run with": _json(shown["run_config"]),
    }


def step_in_words(step: _Object) -> str:
    """Return one step of a diff in a line: ``~ /definition/model: "small" → "large"``."""
    path = one_line(step["path"])
    if step["op"] == "add":
        return f"+ {path}: {_short(step['new'])}"
    if step["op"] == "remove":
        return f"- {path}: {_short(step['previous'])}"
    return f"~ {path}: {_short(step['previous'])} → {_short(step['new'])}"


def steps_of_others(agents: Sequence[_Object]) -> Iterator[str]:
    """Give a line for each agent two versions reach that differs."""
    for one in agents:
        name = one_line(one["name"])
        if one["change"] == "added":
            yield f"+ agent {name} ({one['to']})"
        elif one["change"] == "removed":
            yield f"- agent {name} ({one['from']})"
        else:
            yield f"~ agent {name}: {one['from']} → {one['to']} ({one['change']})"


def _tool(tool: _Object) -> str:
    gate = {"never": None, "always": "needs approval", "by_tool": "some need approval"}.get(
        tool["gate"], f"approval by {tool['gate_by']}"
    )
    what = [tool["kind"], tool["effect"], gate]
    what += [f"{one['kind']} guardrail {one['name']}" for one in tool["guardrails"]]
    return f"{tool['name']} ({', '.join(str(one) for one in what if one)})"


def _handoff(handoff: _Object) -> str:
    filtered = f", through {handoff['input_filter']}" if handoff["input_filter"] else ""
    return f"{handoff['agent']} ({handoff['tool_name']}{filtered})"


def _lines(lines: Iterator[str]) -> str | None:
    return "\n".join(one_line(line) for line in lines) or None


def _by(function: str | None) -> str | None:
    return None if function is None else f"by {function}"


def _json(value: Any) -> str | None:
    return to_json(value) if value else None


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"

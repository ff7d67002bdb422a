"""A run as ``perdure runs show`` shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.cli.output import (
    ago,
    print_fields,
    print_note,
    print_table,
    print_text,
    shortened,
    to_json,
)

_Object = Mapping[str, Any]
_SHOWN_OF_EVIDENCE = 200
_SHOWN_OF_MESSAGE = 200


def call_text(item: _Object) -> str:
    """A call as an item of a conversation, on one line: the tool's name and its arguments."""
    return f"{item.get('name', item['type'])} {arguments_text(None, item.get('arguments') or '')}"


def _origin(forked_from: _Object | None) -> str | None:
    if forked_from is None:
        return None
    run = forked_from["run_id"] or "a run that is deleted"
    return f"{run}, checkpoint {forked_from['checkpoint']}"


def show_run(run: _Object, calls: Sequence[_Object], messages: Sequence[_Object] = ()) -> None:
    """Print a run, its tool calls and what was said to it, as the API gave them."""
    print_fields(
        {
            "run": run["id"],
            "status": _status(run),
            "agent": _agent(run),
            "model": run["model"],
            "forked from": _origin(run["forked_from"]),
            "instructions": run["instructions"],
            "budget": limits_text(run["budget"]) if run["budget"] else None,
            "user": run["user_id"],
            "session": run["session_id"],
            "task": run["task"],
            "metadata": to_json(run["metadata"]) if run["metadata"] else None,
            "created": f"{run['created_at']} ({ago(run['created_at'])} ago)",
            "finished": run["finished_at"],
            "turns": f"{run['turn']} of at most {run['max_turns']}",
            "usage": _usage(run["usage"]),
            "input": as_text(run["input"]),
            "output": None if run["output"] is None else as_text(run["output"]),
            "error": _error(run["error"]),
        }
    )
    if calls:
        print_text("")
        print_table(
            ["tool", "status", "attempt", "effect", "agent", "arguments"],
            [
                [
                    call["tool"],
                    call["status"] + (" (not made)" if call["answered_from"] else ""),
                    str(call["attempt"]),
                    call["effect"],
                    call["agent"],
                    arguments_text(call["arguments"], call["arguments_raw"]),
                ]
                for call in calls
            ],
        )
    if messages:
        print_text("")
        print_table(
            ["said by", "age", "status", "message"],
            [
                [
                    by["subject"] or by["type"],
                    ago(one["added_at"]),
                    one["status"] + (f" ({one['reason']})" if one["reason"] else ""),
                    shortened(message_text(one["input"]), _SHOWN_OF_MESSAGE),
                ]
                for one in messages
                for by in [one["added_by"]]
            ],
        )
    for interruption in run["interruptions"]:
        print_note(f"\nWaits for you: {hint(interruption)}")
        for known in interruption["evidence"]:
            print_note(f"  {evidence_text(known)}")


def hint(interruption: _Object) -> str:
    """Return the command a pending interruption is decided with."""
    tool = (interruption["tool"] or {}).get("name", "")
    if interruption["type"] == "uncertain_effect":
        what = f"nobody knows whether {tool} was carried out"
        return f"{what}: perdure resolve {interruption['id']} --outcome done|not_done|abandon"
    if interruption["type"] == "question":
        asked = shortened(str(interruption["question"]), _SHOWN_OF_EVIDENCE)
        return f"{asked}: perdure answer {interruption['id']} 'TEXT or JSON'"
    if interruption["type"] == "budget":
        new = new_limit_text(interruption["budget"])
        asked = shortened(str(interruption["question"]), _SHOWN_OF_EVIDENCE)
        return f"{asked}: perdure approve {interruption['id']} --arguments '{new}'"
    return f"{tool} wants to be approved: perdure approve {interruption['id']}"


def evidence_text(known: _Object) -> str:
    """Return what became known of a call in doubt, in one line."""
    who = "its probe" if known["kind"] == "probe" else "the earlier process reported later"
    line = f"{who}: {known['status'].replace('_', ' ')}"
    said = known["output"]
    if said is None:
        said = (known["error"] or {}).get("message")
    if not said:
        return line
    text = said if isinstance(said, str) else to_json(said)
    return f"{line} ({shortened(text, _SHOWN_OF_EVIDENCE)})"


def as_text(value: Any) -> str:
    """Return text as it is, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value, indent=2)


def message_text(items: Sequence[_Object]) -> str:
    """Return the words of messages; of a part that is no text, what it is."""
    words = []
    for item in items:
        content = item["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        words += [str(part.get("text", f"[{part.get('type')}]")) for part in parts]
    return " ".join(words)


def arguments_text(arguments: Any, raw: str | None = None) -> str:
    """Return a call's arguments on one line; ``raw`` is what was written where it is no object."""
    if arguments is None and raw is not None:
        return raw
    return json.dumps(arguments, ensure_ascii=False)


def _status(run: _Object) -> str:
    if run["cancel_requested_at"] and run["status"] in ("queued", "running"):
        return f"{run['status']}, asked to stop"
    return str(run["status"])


def _agent(run: _Object) -> str:
    agent, current = str(run["agent"]), str(run["current_agent"])
    return agent if agent == current else f"{agent}, now {current}"


def new_limit_text(budget: _Object) -> str:
    """Return what the arguments look like that raise a budget."""
    return '{"total_tokens": N}' if budget["cost_usd"] is None else '{"cost_usd": "USD"}'


def limits_text(budget: _Object) -> str:
    """Return the limits a budget has, in words."""
    limits = [] if budget["cost_usd"] is None else [f"{budget['cost_usd']} USD"]
    if budget["total_tokens"] is not None:
        limits.append(f"{budget['total_tokens']} tokens")
    return ", ".join(limits)


def _usage(usage: _Object) -> str | None:
    if not usage["requests"]:
        return None
    return (
        f"{usage['requests']} requests, {usage['total_tokens']} tokens "
        f"({usage['input_tokens']} in, {usage['output_tokens']} out), {_cost(usage)}"
    )


def _cost(usage: _Object) -> str:
    unpriced = usage["unpriced_requests"]
    if usage["cost_usd"] is None:
        return "price not known"
    cost = f"{usage['cost_usd']} USD"
    return f"{cost} and {unpriced} requests without a price" if unpriced else cost


def _error(error: _Object | None) -> str | None:
    return None if error is None else f"{error['type']}: {error['message']}"

"""What an event of a run says in one line. Pure.

Every part that a model, a tool or a person wrote is one line and short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perdure.cli.output import shortened
from perdure.cli.runs_shown import hint

__all__ = ["STYLES", "elapsed", "short", "void", "words"]

_SHOWN: Final = 120
_AFTER: Final = {
    "death": "its worker died; another took it up",
    "handover": "its worker stopped; another took it up",
    "trouble": "its worker met trouble and began again",
}
_VOID: Final = {
    "death": "its worker died; the reply begins anew",
    "handover": "its worker stopped; the reply begins anew",
    "trouble": "its worker met trouble; the reply begins anew",
    "retry": "the provider failed; the reply begins anew",
    "cancelled": "the reply is cut off: the run is cancelled",
    "failed": "the reply is cut off: the run failed",
    "interrupted": "the reply is cut off: the run waits for people",
}
STYLES: Final = {
    "run.completed": "green",
    "run.failed": "red",
    "run.cancelled": "yellow",
    "run.recovered": "yellow",
    "model.superseded": "yellow",
    "tool.started": "cyan",
    "tool.failed": "red",
    "tool.uncertain": "yellow",
    "interruption.created": "bold yellow",
}
"""Of lines, by event."""

_Event = Mapping[str, Any]


def words(event: _Event) -> str:
    """Return what an event says; nothing for those that are for programs, or shown otherwise."""
    match event["event"].partition("."):
        case ("run", _, change):
            return _of_run(change, event)
        case ("tool", _, change):
            return _of_tool(change, event)
        case ("interruption", _, "created"):
            tool = {"name": short(event["tool"])}
            asked = {"id": event["interruption_id"], "type": event["type"], "tool": tool}
            return "waits for you: " + hint({**asked, "question": event["question"]})
        case ("interruption", _, "decided"):
            return _of_decision(event)
        case ("handoff", _, _):
            return f"{short(event['from'])} hands off to {short(event['to'])}"
        case ("input", _, "added"):
            by = event.get("by")
            return f"{short(who(by)) or 'somebody'} adds: {short(event.get('text'))}"
        case ("input", _, "given"):
            return "what was added is given to the model"
    return ""


def _of_run(change: str, event: _Event) -> str:
    match change:
        case "queued" if event.get("due_at"):
            return f"queued, due at {event['due_at']}"
        case "recovered":
            return _AFTER.get(event.get("after", ""), "taken up again")
        case "resumed":
            return "goes on"
        case "interrupted":  # what it waits for has been said
            return ""
        case "failed" if event.get("error"):
            error = event["error"]
            return f"failed: {error['type']}: {short(error['message'])}"
    return change


def _of_tool(change: str, event: _Event) -> str:
    tool = short(event["tool"])
    match change:
        case "started":
            again = f", attempt {event['attempt']}" if event["attempt"] > 1 else ""
            return f"{tool}({short(event.get('arguments'))}){again}"
        case "completed":
            return f"{tool} gave {short(event.get('output'))}"
        case "failed":
            return f"{tool} failed: {short(event.get('error'))}"
    return f"{tool}: nobody knows whether it was carried out"


def _of_decision(event: _Event) -> str:
    about = short(event["tool"] or event["type"])
    by = f" by {short(who(event.get('by')))}" if event.get("by") else ""
    if event["status"] == "pending":
        return f"{about}: {event['decision']}{by}, others have to decide too"
    return f"{about}: {event['status']}{by}"


def who(by: Any) -> str:
    """Return how a person or a program is called."""
    if isinstance(by, Mapping):
        return str(by.get("subject") or by.get("type") or "")
    return str(by or "")


def void(event: _Event) -> str:
    """Return what is said where text that was shown of a reply is void."""
    return _VOID.get(event["reason"], "the reply begins anew")


def elapsed(seconds: float) -> str:
    """Return a time as people read it: ``4 s``, ``2 min 5 s``, ``3 h 0 min``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def short(value: Any) -> str:
    """Return what somebody wrote as one line of a bearable length."""
    return "" if value is None else shortened(str(value), _SHOWN)

"""``perdure runs tail``: what happens in a run, a line each, from its first event to its end.

A connection that breaks is made anew with the number of the last event that was shown, so nothing
is missed and nothing shown twice. Lines are added and none is drawn over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from perdure.cli.client import Client, ServerError
from perdure.cli.output import print_json_line, print_note, print_styled, print_text, shortened
from perdure.cli.runs_shown import as_text, hint

__all__ = ["follow"]

_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_SHOWN = 120
_ENDS: Final = {"run.completed", "run.failed", "run.cancelled"}
_AFTER: Final = {
    "death": "its worker died; another took it up",
    "handover": "its worker stopped; another took it up",
    "trouble": "its worker met trouble and began again",
}
_STYLES: Final = {
    "run.completed": "green",
    "run.failed": "red",
    "run.cancelled": "yellow",
    "run.recovered": "yellow",
    "tool.failed": "red",
    "tool.uncertain": "yellow",
    "interruption.created": "bold yellow",
    "model.completed": "dim",
}

_Event = Mapping[str, Any]


def follow(client: Client, run_id: str, *, as_json: bool, after: int = 0) -> str:
    """Show the events of a run after the number ``after`` until it has ended.

    Returns how it ended: ``completed``, ``failed`` or ``cancelled``.

    Raises:
        ServerError: there is no such run, or the server is not there at first; later it is
            waited for.
    """
    path = f"/v1/runs/{run_id}"
    last, attempt, connected = "", 0, False
    while True:
        try:
            for event in client.events(f"{path}/events", after=after):
                if attempt and connected:
                    print_note("The server is back.")
                attempt, connected = 0, True
                after, last = event["id"], event["event"]
                _show(event, as_json=as_json)
            connected = True
            run = client.get(path)
        except ServerError as error:
            if error.reason != "unavailable" or not connected:
                raise
            if not attempt:
                print_note(f"The server at {client.url} is away; waiting for it.")
            time.sleep(_PAUSES_SECONDS[min(attempt, len(_PAUSES_SECONDS) - 1)])
            attempt += 1
            continue
        # A stream that ended before the run did is the server's, which stops.
        if f"run.{run['status']}" in _ENDS and last in ("", f"run.{run['status']}"):
            if not as_json and run["output"] is not None:
                print_text(as_text(run["output"]))
            return str(run["status"])
        time.sleep(_PAUSES_SECONDS[0])


def _show(event: _Event, *, as_json: bool) -> None:
    if as_json:
        print_json_line(dict(event))
        return
    words = _words(event)
    if words:
        moment = datetime.fromisoformat(event["created_at"]).astimezone()
        # Every part that a model wrote is one line by now.
        print_styled(f"{moment:%H:%M:%S} {words}", _STYLES.get(event["event"], ""))


def _words(event: _Event) -> str:
    """Return what an event says in one line; nothing for those that are for programs."""
    match event["event"].partition("."):
        case ("run", _, change):
            return _of_run(change, event)
        case ("tool", _, change):
            return _of_tool(change, event)
        case ("interruption", _, "created"):
            tool = {"name": shortened(str(event["tool"]), _SHOWN)}
            return "waits for you: " + hint(
                {
                    "id": event["interruption_id"],
                    "type": event["type"],
                    "tool": tool,
                    "question": event["question"],
                }
            )
        case ("interruption", _, "decided"):
            return _of_decision(event)
        case ("handoff", _, _):
            return f"{_short(event['from'])} hands off to {_short(event['to'])}"
        case ("model", _, "completed"):
            tokens = event["usage"]["total_tokens"]
            return f"{_short(event['agent'])}: the model replied ({tokens} tokens)"
    return ""


def _of_run(change: str, event: _Event) -> str:
    match change:
        case "queued" if event.get("due_at"):
            return f"queued, due at {event['due_at']}"
        case "recovered":
            return _AFTER.get(event.get("after", ""), "taken up again")
        case "resumed":
            return "goes on"
        case "failed" if event.get("error"):
            error = event["error"]
            return f"failed: {error['type']}: {_short(error['message'])}"
    return change


def _of_tool(change: str, event: _Event) -> str:
    tool = _short(event["tool"])
    match change:
        case "started":
            again = f", attempt {event['attempt']}" if event["attempt"] > 1 else ""
            return f"{tool}({_short(event.get('arguments'))}){again}"
        case "completed":
            return f"{tool} gave {_short(event.get('output'))}"
        case "failed":
            return f"{tool} failed: {_short(event.get('error'))}"
    return f"{tool}: nobody knows whether it was carried out"


def _of_decision(event: _Event) -> str:
    about = _short(event["tool"] or event["type"])
    by = event.get("by")
    who = "" if by is None else f" by {_short(by['subject'] or by['type'])}"
    if event["status"] == "pending":
        return f"{about}: {event['decision']}{who}, others have to decide too"
    return f"{about}: {event['status']}{who}"


def _short(value: Any) -> str:
    return "" if value is None else shortened(str(value), _SHOWN)

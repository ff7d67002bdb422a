"""``perdure runs start``: a run of an agent, waited for or followed if wanted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from perdure.cli.client import Client, connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_text
from perdure.cli.pages import Json
from perdure.cli.runs_shown import show_run
from perdure.cli.tail import follow

_WAIT_SECONDS = 30
_ALL = {"limit": 100}
ENDS_BADLY = ("failed", "cancelled")


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure runs``."""
    app.command(
        epilog=examples(
            'perdure runs start triage "Order 1042 arrived broken, please refund it."',
            'perdure runs start triage "Hi" --user alice --metadata ticket=T-1 --wait',
            'perdure runs start triage "And the other one?" --session-key chat-1 --user alice',
            "perdure runs start triage - --context @context.json < question.txt",
        )
    )(start)


def start(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent to start with.")],
    input_: Annotated[
        str, typer.Argument(metavar="INPUT", help="What it is asked; - reads it from stdin.")
    ],
    items: Annotated[
        bool, typer.Option("--items", help="INPUT is a JSON list of Responses input items.")
    ] = False,
    context: Annotated[
        str | None,
        typer.Option(metavar="JSON|@FILE", help="The context given to the tools, as JSON."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="For whom: the user the run belongs to.")
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="The session it belongs to.")
    ] = None,
    session_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same by its key and user: found, or made."),
    ] = None,
    when_busy: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="If another run of the session is under way: queue (else), reject,"
            " cancel_previous or steer.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is for, out of the engine's list.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Kept with the run; may be given more than once."),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Of waiting runs the lowest goes first (0)."),
    ] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Start so much later.")
    ] = None,
    max_turns: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Fail after so many turns.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model of all its agents, instead of their own."),
    ] = None,
    budget_usd: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Ask a person before it costs more than so many USD."),
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="The same in tokens, in and out."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key within 24 hours starts no second run."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the run rests: interrupted or finished.")
    ] = False,
    follow_it: Annotated[
        bool, typer.Option("--follow", help="Show what happens until the run has ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run of AGENT on INPUT.

    With --wait a run that fails makes the exit code 1; with --follow one that does not complete.
    """
    body: dict[str, Any] = {
        "agent": agent,
        "input": _read_input(input_, as_items=items),
        "context": None if context is None else _read_json(context, "--context"),
        "user_id": user,
        "session_id": id_if_given("session", session),
        "session_key": session_key,
        "when_busy": when_busy,
        "task": task,
        "metadata": _pairs(metadata or []) or None,
        "priority": priority,
        "delay_seconds": delay,
        "max_turns": max_turns,
        "model": model,
        "budget": _budget(budget_usd, budget_tokens),
    }
    body = {name: value for name, value in body.items() if value is not None}
    with connected() as client:
        run = client.post("/v1/runs", body, key=idempotency_key or str(uuid4()))
        if follow_it:
            follow_to_its_end(client, run["id"], as_json=as_json)
            return
        if wait:
            run = wait_for(client, run, quietly=as_json)
        if as_json:
            print_json(run)
        elif wait:
            show_run(run, client.get(f"/v1/runs/{run['id']}/tool_calls", _ALL)["data"])
        else:
            print_text(run["id"])
            print_note(f"Started. See it: perdure runs show {run['id']}")
    if wait and run["status"] in ENDS_BADLY:
        raise typer.Exit(1)


def follow_to_its_end(client: Client, run_id: str, *, as_json: bool, after: int = 0) -> None:
    """Show what happens in a run, from the event after ``after``, until it has ended.

    Raises:
        typer.Exit: with code 1, where it did not complete.
    """
    print_note(f"Run {run_id}. Ctrl-C stops following, not the run.")
    if follow(client, run_id, as_json=as_json, after=after) != "completed":
        raise typer.Exit(1)


def wait_for(client: Client, run: dict[str, Any], *, quietly: bool) -> dict[str, Any]:
    """Return a run as it is when it rests; not ``quietly`` it is said that it is waited for."""
    path = f"/v1/runs/{run['id']}"
    if not quietly:
        print_note(f"Run {run['id']} is on its way. Ctrl-C stops waiting, not the run.")
    while run["status"] in ("queued", "running"):
        run = client.get(path, wait=_WAIT_SECONDS)
    return run


def text_or_file(text: str, name: str) -> str:
    """Return the text of the option ``name``, or what is in the file it names by ``@FILE``.

    Raises:
        BadParameter: there is no such file, or it is no text.
    """
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{name}: {text[1:]} cannot be read: {error}") from error


def _read_input(text: str, *, as_items: bool) -> Any:
    if text == "-":
        text = sys.stdin.read().rstrip("\n")
    return _parse(text, "INPUT") if as_items else text


def _read_json(text: str, name: str) -> Any:
    return _parse(text_or_file(text, name), name)


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from error


def _budget(usd: str | None, tokens: int | None) -> dict[str, Any] | None:
    limits = {"cost_usd": usd, "total_tokens": tokens}
    return {name: limit for name, limit in limits.items() if limit is not None} or None


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--metadata {text!r} has to look like KEY=VALUE.")
        pairs[name] = value
    return pairs

"""``perdure runs``: started, listed, shown, cancelled, resumed, deleted, over the API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from perdure.cli import later, say
from perdure.cli.client import Client, checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import ago, print_json, print_note, print_table, print_text, shortened
from perdure.cli.pages import Json, Limit, print_more
from perdure.cli.runs_shown import show_run
from perdure.cli.tail import follow

app = typer.Typer(
    help="Start runs and see what became of them.",
    no_args_is_help=True,
    epilog=examples(
        'perdure runs start triage "Order 1042 arrived broken" --wait',
        "perdure runs list --status interrupted",
        "perdure runs show 01a20131-4a27-77ae-b605-6e01616eb463",
    ),
)

_WAIT_SECONDS = 30
_ALL = {"limit": 100}
ENDS_BADLY = ("failed", "cancelled")

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    say.register(app)
    later.register_for_runs(app)
    parent.add_typer(app, name="runs")


@app.command(
    "list",
    epilog=examples(
        "perdure runs list",
        "perdure runs list --status interrupted --agent triage",
        "perdure runs list --limit 100 --json",
    ),
)
def list_runs(
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            help="Only runs that are queued, running, interrupted, completed, failed or cancelled.",
        ),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this agent.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only runs for this user.")] = None,
    limit: Limit = 20,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on after this run, the last of a page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    query = {"status": status, "agent": agent, "user_id": user, "after": after}
    with connected() as client:
        page = client.get("/v1/runs", query | {"limit": limit})
    if as_json:
        print_json(page)
        return
    if not page["data"]:
        _say_there_are_none(filtered=any(query.values()))
        return
    print_table(
        ["id", "status", "age", "agent", "user", "input"],
        [
            [
                run["id"],
                run["status"],
                ago(run["created_at"]),
                run["agent"],
                run["user_id"] or "-",
                shortened(_input_text(run["input"]), 200),
            ]
            for run in page["data"]
        ],
    )
    print_more(page)


def _say_there_are_none(*, filtered: bool) -> None:
    if filtered:
        print_note("No runs match.")
    else:
        print_note('No runs yet. Start one: perdure runs start AGENT "what it shall do"')


@app.command(
    epilog=examples(
        "perdure runs show 01a20131-4a27-77ae-b605-6e01616eb463",
        "perdure runs show 01a20131-4a27-77ae-b605-6e01616eb463 --json | jq .output",
    ),
)
def show(run_id: RunId, as_json: Json = False) -> None:
    """Show a run: how it stands, what it said and called, what it waits for."""
    path = f"/v1/runs/{checked_id('run', run_id)}"
    with connected() as client:
        run = client.get(path)
        if as_json:
            print_json(run)
            return
        calls = client.get(f"{path}/tool_calls", _ALL)["data"]
        show_run(run, calls, client.get(f"{path}/inputs", _ALL)["data"])


@app.command(
    epilog=examples(
        'perdure runs start triage "Order 1042 arrived broken, please refund it."',
        'perdure runs start triage "Hi" --user alice --metadata ticket=T-1 --wait',
        "perdure runs start triage - --context @context.json < question.txt",
    ),
)
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
        "metadata": _pairs(metadata or []) or None,
        "priority": priority,
        "delay_seconds": delay,
        "max_turns": max_turns,
        "model": model,
    }
    body = {name: value for name, value in body.items() if value is not None}
    with connected() as client:
        run = client.post("/v1/runs", body, key=idempotency_key or str(uuid4()))
        if follow_it:
            _follow(client, run["id"], as_json=as_json)
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


@app.command(
    epilog=examples(
        "perdure runs tail 01a20131-4a27-77ae-b605-6e01616eb463",
        "perdure runs tail 01a20131-4a27-77ae-b605-6e01616eb463 --json | jq -r .event",
    ),
)
def tail(
    run_id: RunId,
    after: Annotated[
        int, typer.Option(metavar="N", min=0, help="Begin after the event of this number.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one event a line.")] = False,
) -> None:
    """Follow a run from its first event to its end. Exits 0 if it completed, otherwise 1."""
    with connected() as client:
        _follow(client, checked_id("run", run_id), as_json=as_json, after=after)


def _follow(client: Client, run_id: str, *, as_json: bool, after: int = 0) -> None:
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


@app.command(
    epilog=examples("perdure runs cancel 01a20131-4a27-77ae-b605-6e01616eb463"),
)
def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run. One that is running stops within moments; tools under way are cut off.

    Whether what they were doing happened is not known: their calls are left uncertain.
    """
    with connected() as client:
        run = client.post(f"/v1/runs/{checked_id('run', run_id)}/cancel")
    if as_json:
        print_json(run)
    elif run["status"] == "cancelled":
        print_text(f"Run {run['id']} is cancelled.")
    else:
        print_text(f"Run {run['id']} is {run['status']} and has been asked to stop.")


@app.command(
    epilog=examples("perdure runs resume 01a20131-4a27-77ae-b605-6e01616eb463"),
)
def resume(run_id: RunId, as_json: Json = False) -> None:
    """Run a failed run again from its latest state. What was recorded stands."""
    with connected() as client:
        run = client.post(f"/v1/runs/{checked_id('run', run_id)}/resume")
    if as_json:
        print_json(run)
    else:
        print_text(f"Run {run['id']} is {run['status']} again.")


@app.command(
    epilog=examples("perdure runs delete 01a20131-4a27-77ae-b605-6e01616eb463"),
)
def delete(run_id: RunId, as_json: Json = False) -> None:
    """Delete a finished run and all it left."""
    run_id = checked_id("run", run_id)
    with connected() as client:
        client.delete(f"/v1/runs/{run_id}")
    if as_json:
        print_json({"id": run_id, "object": "run", "deleted": True})
    else:
        print_text(f"Run {run_id} is deleted.")


def _input_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_input(text: str, *, as_items: bool) -> Any:
    if text == "-":
        text = sys.stdin.read().rstrip("\n")
    return _parse(text, "INPUT") if as_items else text


def _read_json(text: str, name: str) -> Any:
    if not text.startswith("@"):
        return _parse(text, name)
    try:
        return _parse(Path(text[1:]).read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{name}: {text[1:]} cannot be read: {error}") from error


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from error


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--metadata {text!r} has to look like KEY=VALUE.")
        pairs[name] = value
    return pairs

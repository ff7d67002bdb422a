"""``perdure runs``: started, listed, shown, cancelled, resumed, deleted, over the API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from perdure.cli import checkpoints, forks, say, starting
from perdure.cli.client import checked_id, connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago, print_json, print_text, shortened
from perdure.cli.pages import Json, Limit, print_page
from perdure.cli.runs_shown import show_run
from perdure.cli.starting import follow_to_its_end

app = typer.Typer(
    help="Start runs and see what became of them.",
    no_args_is_help=True,
    epilog=examples(
        'perdure runs start triage "Order 1042 arrived broken" --wait',
        "perdure runs list --status interrupted",
        "perdure runs show 01a20131-4a27-77ae-b605-6e01616eb463",
    ),
)

_NONE_YET = 'No runs yet. Start one: perdure runs start AGENT "what it shall do"'
_NO_MATCH = "No runs match."
_ALL = {"limit": 100}

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    starting.register(app)
    say.register(app)
    forks.register(app)
    checkpoints.register(app)
    parent.add_typer(app, name="runs")


@app.command(
    "list",
    epilog=examples(
        "perdure runs list",
        "perdure runs list --status interrupted --agent triage",
        """perdure runs list --metadata '{"ticket": "T-1"}'""",
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
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only runs of this session.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs for this task.")
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Only runs whose metadata holds this object."),
    ] = None,
    limit: Limit = 20,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on after this run, the last of a page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    query = {
        "status": status,
        "agent": agent,
        "user_id": user,
        "session_id": id_if_given("session", session),
        "task": task,
        "metadata": metadata,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/runs", query | {"limit": limit})
    print_page(
        page,
        ["id", "status", "age", "agent", "user", "input"],
        lambda run: [
            run["id"],
            run["status"],
            ago(run["created_at"]),
            run["agent"],
            run["user_id"] or "-",
            shortened(_input_text(run["input"]), 200),
        ],
        empty=_NO_MATCH if any(query.values()) else _NONE_YET,
        as_json=as_json,
    )


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
        follow_to_its_end(client, checked_id("run", run_id), as_json=as_json, after=after)


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

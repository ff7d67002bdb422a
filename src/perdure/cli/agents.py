"""``perdure agents``: what agents there are, what they are defined by, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perdure.cli.agents_shown import in_fields, step_in_words, steps_of_others
from perdure.cli.client import connected
from perdure.cli.help import examples
from perdure.cli.output import ago, print_fields, print_json, print_note, print_text
from perdure.cli.pages import After, Json, Limit, print_page

app = typer.Typer(
    help="See the agents of the deployment, their versions and what changed.",
    no_args_is_help=True,
    epilog=examples(
        "perdure agents list",
        "perdure agents show support",
        "perdure agents diff support",
        "perdure agents prune --dry-run",
    ),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="agents")


@app.command("list", epilog=examples("perdure agents list", "perdure agents list --deleted"))
def list_agents(
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Also those that are in no build any more.")
    ] = False,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List agents: those engines were given, and all they can reach."""
    query = {"limit": limit, "after": after, "deleted": "true" if deleted else None}
    with connected() as client:
        page = client.get("/v1/agents", query)
    print_page(
        page,
        ["name", "version", "model", "changed", "description"],
        lambda one: [
            one["name"],
            one["version"] or "-",
            one["model"] or "-",
            "gone " * bool(one["deleted_at"]) + ago(one["updated_at"]),
            one["handoff_description"] or "-",
        ],
        empty="No agents. They come with an engine: perdure dev app.py",
        as_json=as_json,
    )


@app.command(
    epilog=examples("perdure agents show support", "perdure agents show support --version 3f0c…")
)
def show(
    name: Name,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of this version; else the current one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what an agent is defined by: instructions, tools, handoffs, guardrails."""
    with connected() as client:
        if version is None:
            shown = client.get(_path(name))
        else:
            shown = client.get(f"{_path(name)}/versions/{quote(version, safe='')}")
    if as_json:
        print_json(shown)
    else:
        print_fields(in_fields(shown))


@app.command(epilog=examples("perdure agents versions support"))
def versions(name: Name, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """List an agent's versions, the newest first."""
    with connected() as client:
        page = client.get(f"{_path(name)}/versions", {"limit": limit, "after": after})
    print_page(
        page,
        ["version", "first", "served", "replaced", "model", "id"],
        lambda one: [
            one["version"],
            ago(one["created_at"]),
            ago(one["served_at"]),
            "current" if one["current"] else ago(one["replaced_at"]),
            one["model"] or "-",
            one["id"],
        ],
        empty="No versions: no engine has come with this agent yet, or they were pruned.",
        as_json=as_json,
    )


@app.command(
    epilog=examples("perdure agents diff support", "perdure agents diff support 3f0c… 91ab…")
)
def diff(
    name: Name,
    from_: Annotated[
        str | None, typer.Argument(metavar="FROM", help="The older version; else the one before.")
    ] = None,
    to: Annotated[
        str | None, typer.Argument(metavar="TO", help="The newer version; else the current one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions of an agent."""
    with connected() as client:
        found = client.get(f"{_path(name)}/diff", {"from": from_, "to": to})
    if as_json:
        print_json(found)
        return
    print_note(f"{found['agent']}: from {found['from']} to {found['to']}")
    for step in found["steps"]:
        print_text(step_in_words(step))
    for line in steps_of_others(found["agents"]):
        print_text(line)
    if not found["steps"] and not found["agents"]:
        print_note("Nothing differs.")


@app.command(epilog=examples("perdure agents prune --dry-run", "perdure agents prune"))
def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove versions no run uses that are not current. Needs a key of an admin."""
    with connected() as client:
        done = client.post("/v1/agents/prune", {"dry_run": dry_run})
    if as_json:
        print_json(done)
        return
    for one in done["versions"]:
        print_text(f"version {one['version']} of {one['agent']}")
    for name in done["agents"]:
        print_text(f"agent {name}")
    for kind, count in done["definitions"].items():
        if count:
            print_text(f"{count} {kind.replace('_', ' ')}")
    _say_pruned(done)


def _say_pruned(done: Mapping[str, Any]) -> None:
    if not (done["versions"] or done["agents"] or any(done["definitions"].values())):
        print_note("Nothing to remove: all versions are current, or used.")
    else:
        print_note("Nothing was removed (--dry-run)." if done["dry_run"] else "Removed.")


def _path(name: str) -> str:
    return f"/v1/agents/{quote(name, safe='/')}"

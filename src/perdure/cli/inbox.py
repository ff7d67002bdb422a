"""``perdure inbox``: what waits for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from perdure.cli.client import connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago
from perdure.cli.pages import After, Json, Limit, print_page
from perdure.cli.runs_shown import arguments_text, evidence_text, hint
from perdure.cli.watching import watch


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        epilog=examples(
            "perdure inbox",
            "perdure inbox --agent refunds --json",
            "perdure inbox --watch --bell",
        ),
    )(inbox)


def inbox(
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only questions of this agent.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Only questions of this run.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    watching: Annotated[
        bool,
        typer.Option("--watch", help="Go on: a line for each question asked or closed, at once."),
    ] = False,
    bell: Annotated[
        bool, typer.Option("--bell", help="With --watch: ring when there is a new one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what waits for a person, the oldest first.

    With --watch it goes on until Ctrl-C, and outlives restarts of the server; --json then prints
    one document a line.
    """
    run_id = id_if_given("run", run)
    if watching:
        if after is not None:
            raise typer.BadParameter("--after belongs to a page; --watch shows what is new.")
        watch({"agent": agent, "run_id": run_id}, as_json=as_json, bell=bell)
        return
    query = {"agent": agent, "run_id": run_id, "limit": limit, "after": after, "order": "asc"}
    with connected() as client:
        page = client.get("/v1/interruptions", query)
    print_page(
        page,
        ["id", "waiting", "question", "agent", "tool", "arguments"],
        lambda one: [
            one["id"],
            ago(one["requested_at"]),
            one["type"],
            one["agent"],
            (one["tool"] or {}).get("name", "-"),
            _arguments(one["tool"]),
        ],
        empty="Nothing waits for you.",
        as_json=as_json,
        notes=_notes,
    )


def _notes(questions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in questions:
        for known in one["evidence"]:
            yield f"{one['id']}: {evidence_text(known)}"
    yield f"\nDecide: {hint(questions[0]).rpartition(': ')[2]}"


def _arguments(tool: Mapping[str, Any] | None) -> str:
    return arguments_text((tool or {}).get("arguments"), (tool or {}).get("arguments_raw"))

"""``perdure operations``: what tools changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from perdure.cli.client import connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago, shortened, to_json
from perdure.cli.pages import After, Json, Limit, print_page

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"
_WIDTH = 40
_SIGNS = {"add": "+", "remove": "-", "replace": "~"}

app = typer.Typer(
    help="List what tools changed, as they recorded it.",
    no_args_is_help=True,
    epilog=examples(
        f"perdure operations list --run {_ID}", "perdure operations list --target todo/42"
    ),
)


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="operations")


@app.callback()
def _group() -> None:
    """List what tools changed, as they recorded it."""


@app.command(
    "list",
    epilog=examples(
        f"perdure operations list --run {_ID}",
        "perdure operations list --target todo/42 --kind UPDATE --json",
    ),
)
def list_operations(
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only of this run.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only of the runs of this session.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Only of the runs of this user.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="NAME", help="Only on it.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only of this kind.")] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List operations, the newest first, with what changed: + added, - removed, ~ replaced."""
    query = {
        "run_id": id_if_given("run", run),
        "session_id": id_if_given("session", session),
        "user_id": user,
        "target": target,
        "kind": kind,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/operations", query)
    print_page(
        page,
        ["id", "age", "run", "tool", "kind", "target", "changed"],
        lambda one: [
            one["id"],
            ago(one["created_at"]),
            one["run_id"],
            one["tool"],
            one["kind"],
            one["target"],
            ", ".join(_steps(one["diff"])) or "nothing",
        ],
        empty="No such operations. Tools record them: record_operation(…).",
        as_json=as_json,
    )


def _steps(diff: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for step in diff:
        sign, path = _SIGNS[step["op"]], step["path"]
        values = [
            shortened(to_json(step[name]), _WIDTH) for name in ("previous", "new") if name in step
        ]
        yield " ".join(part for part in (sign, path, " -> ".join(values)) if part)

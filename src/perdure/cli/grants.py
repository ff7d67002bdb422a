"""``perdure grants``: approvals that stand for later calls too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected, id_if_given
from perdure.cli.durations import seconds_or_moment
from perdure.cli.help import examples
from perdure.cli.output import ago, print_fields, print_json, print_note, print_table
from perdure.cli.pages import After, Json, Limit, print_page
from perdure.cli.runs_shown import arguments_text, as_text
from perdure.interruptions.conditions import in_words, parse

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"

app = typer.Typer(
    help="List, show and revoke approvals that stand for later calls too.",
    no_args_is_help=True,
    epilog=examples(
        "perdure approve ID --remember run --until 2h",
        "perdure grants list",
        f"perdure grants revoke {_ID}",
    ),
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The grant's id.")]


class Scope(StrEnum):
    """What a grant is for."""

    RUN = "run"
    SESSION = "session"
    USER = "user"
    AGENT = "agent"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="grants")


@app.command(
    "list", epilog=examples("perdure grants list", "perdure grants list --tool refund --json")
)
def list_grants(
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only for calls of this agent.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only for calls of this tool.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those given in this run.")
    ] = None,
    scope: Annotated[Scope | None, typer.Option(help="Only those for this.")] = None,
    over: Annotated[
        bool, typer.Option("--over", help="Those that are over or revoked instead.")
    ] = False,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List grants that may be used now, the newest first."""
    query = {
        "active": "false" if over else "true",
        "agent": agent,
        "tool": tool,
        "run_id": id_if_given("run", run),
        "scope": scope,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/grants", query)
    print_page(
        page,
        ["id", "tool", "agent", "for", "until", "by", "covers"],
        lambda one: [
            one["id"],
            one["tool"],
            one["agent"],
            one["scope"],
            _end(one),
            _who(one["granted_by"]),
            _covers(one),
        ],
        empty="No such grants.",
        as_json=as_json,
    )


@app.command(epilog=examples(f"perdure grants show {_ID}"))
def show(grant_id: Id, as_json: Json = False) -> None:
    """Show a grant, and the last calls it approved."""
    path = f"/v1/grants/{checked_id('grant', grant_id)}"
    with connected() as client:
        grant = client.get(path)
        uses = client.get(f"{path}/uses")
    if as_json:
        print_json({**grant, "last_uses": uses["data"]})
        return
    _print(grant)
    if uses["data"]:
        print_note("")
        print_table(
            ["used", "run", "call", "arguments"],
            [
                [ago(use["at"]), use["run_id"], use["call_id"], _arguments(use["arguments"])]
                for use in uses["data"]
            ],
        )


@app.command(epilog=examples(f"perdure grants revoke {_ID}"))
def revoke(grant_id: Id, as_json: Json = False) -> None:
    """Revoke a grant: from now on nothing is approved by it."""
    with connected() as client:
        grant = client.post(f"/v1/grants/{checked_id('grant', grant_id)}/revoke")
    if as_json:
        print_json(grant)
    else:
        _print(grant)


def remembered(
    scope: Scope | None, until: str | None, when: Sequence[str]
) -> dict[str, Any] | None:
    """Return what a decision shall remember, from the options given with it; None: nothing.

    Raises:
        BadParameter: options are missing, or belong together.
        InvalidRequestError: a condition is none.
    """
    if scope is None:
        if until is not None or when:
            raise typer.BadParameter("--until and --when belong to --remember.")
        return None
    if until is None:
        raise typer.BadParameter("--remember needs --until: 2h, 7d, 2026-12-01T00:00:00Z.")
    remember = {"scope": scope.value, "until": seconds_or_moment(until)}
    return {**remember, "when": parse(when)} if when else remember


def _print(grant: Mapping[str, Any]) -> None:
    revoked = grant["revoked_at"]
    print_fields(
        {
            "grant": grant["id"],
            "status": "active" if grant["active"] else "revoked" if revoked else "over",
            "tool": grant["tool"],
            "agent": grant["agent"],
            "for": f"{grant['scope']} {grant['scope_id']}",
            "covers": _conditions(grant) or _exact(grant),
            "until": grant["until"],
            "given": f"{grant['created_at']} by {_who(grant['granted_by'])}",
            "revoked": f"{revoked} by {_who(grant['revoked_by'])}" if revoked else None,
            "from": f"interruption {grant['interruption_id']} of run {grant['run_id']}",
            "uses": _uses(grant),
        }
    )


def _uses(grant: Mapping[str, Any]) -> str:
    last = grant["last_used_at"]
    return f"{grant['uses']}, the last {ago(last)} ago" if last else "none yet"


def _covers(grant: Mapping[str, Any]) -> str:
    if grant["when"] is not None:
        return ", ".join(in_words(grant["when"]))
    return "exactly " + _exact(grant, one_line=True)


def _conditions(grant: Mapping[str, Any]) -> str | None:
    return None if grant["when"] is None else "\n".join(in_words(grant["when"]))


def _exact(grant: Mapping[str, Any], *, one_line: bool = False) -> str:
    if grant["arguments"] is None:
        return str(grant["arguments_digest"])
    return (_arguments if one_line else as_text)(grant["arguments"])


def _arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else arguments_text(arguments)


def _end(grant: Mapping[str, Any]) -> str:
    return str(grant["until"])[:19] + "Z"


def _who(by: Mapping[str, Any]) -> str:
    return str(by["subject"] or by["type"])

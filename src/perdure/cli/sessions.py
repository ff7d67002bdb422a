"""``perdure sessions``: conversations listed, shown, branched, deleted; see also replays.py."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from perdure.cli import replays, searching, sessions_carried
from perdure.cli.client import checked_id, connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago, print_fields, print_json, print_note, print_table
from perdure.cli.pages import After, Json, Limit, print_more, print_page
from perdure.cli.runs_shown import call_text

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"

app = typer.Typer(
    help="List, show, search, branch, replay and delete conversations, and take them along.",
    no_args_is_help=True,
    epilog=examples(
        "perdure sessions list --user alice",
        f"perdure sessions show {_ID}",
        'perdure sessions search "broken glass" --user alice',
        f"perdure sessions branch {_ID} --from 4",
    ),
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
User = Annotated[str | None, typer.Option(metavar="ID", help="Only if it is this user's.")]


class Status(StrEnum):
    """What a session may be."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    COMPLETED = "completed"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    searching.register(app)
    replays.register(app)
    sessions_carried.register(app)
    parent.add_typer(app, name="sessions")


@app.command(
    "list",
    epilog=examples("perdure sessions list", "perdure sessions list --user alice --tag billing"),
)
def list_sessions(
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this user.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only those with it; more than once.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="ID", help="Only those in it.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only branches of it.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that are so.")] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    query = {
        "user_id": user,
        "tag": tag or None,
        "group_id": group,
        "parent": id_if_given("session", parent),
        "status": None if status is None else status.value,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/sessions", query)
    print_page(
        page,
        ["id", "user", "status", "items", "said", "title"],
        lambda one: [
            one["id"],
            one["user_id"] or "-",
            one["status"],
            str(one["last_seq"]),
            ago(one["updated_at"]),
            one["title"] or one["key"] or "-",
        ],
        empty="No such sessions.",
        as_json=as_json,
    )


@app.command(epilog=examples(f"perdure sessions show {_ID}"))
def show(
    session_id: Id,
    user: User = None,
    limit: Limit = 20,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Items after this one, oldest first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a session, how it stands, and its newest items, or those after one."""
    path = f"/v1/sessions/{checked_id('session', session_id)}"
    order = "desc" if after is None else "asc"
    with connected() as client:
        session = client.get(path, {"user_id": user})
        state = client.get(f"{path}/state")
        page = client.get(f"{path}/items", {"limit": limit, "after": after, "order": order})
    items = page["data"] if after else page["data"][::-1]
    if as_json:
        print_json({**session, "state": state, "items": items})
        return
    _print(session, state)
    if items:
        print_note("")
        print_table(
            ["no", "role", "said", "text"],
            [[str(one["seq"]), _role(one), ago(one["created_at"]), _text(one)] for one in items],
        )
    if after:
        print_more(page)
    elif page["has_more"]:
        print_note("There are earlier ones: --limit 100")


@app.command(epilog=examples(f"perdure sessions branch {_ID} --from 4 --title 'Another way'"))
def branch(
    session_id: Id,
    from_seq: Annotated[
        int | None,
        typer.Option("--from", metavar="N", min=0, help="The last item it reads; else all."),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Its title.")] = None,
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its system prompt.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a session that reads this one up to an item and goes on by itself from there."""
    given = {"from_seq": from_seq, "title": title, "system_prompt": system_prompt}
    body = {name: value for name, value in given.items() if value is not None}
    with connected() as client:
        made = client.post(f"/v1/sessions/{checked_id('session', session_id)}/branch", body)
    if as_json:
        print_json(made)
    else:
        _print(made)


@app.command(
    epilog=examples(
        f"perdure sessions delete {_ID}", f"perdure sessions delete {_ID} --hard --cascade"
    )
)
def delete(
    session_id: Id,
    hard: Annotated[
        bool, typer.Option("--hard", help="Erase it for good, with all its items.")
    ] = False,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="With --hard: its branches too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a session, so that it is seen no more; branches of it stay."""
    session_id = checked_id("session", session_id)
    path = f"/v1/sessions/{session_id}"
    if cascade and not hard:
        raise typer.BadParameter("--cascade belongs to --hard.")
    query = f"?hard=true&cascade={'true' if cascade else 'false'}" if hard else ""
    with connected() as client:
        client.delete(path + query)
    if as_json:
        print_json({"id": session_id, "object": "session", "deleted": True})
    else:
        print_note(f"{'Erased' if hard else 'Deleted'}.")


def _print(session: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> None:
    parent, rating = session["parent_session_id"], session["rating"]
    print_fields(
        {
            "session": session["id"],
            "key": session["key"],
            "title": session["title"],
            "user": session["user_id"],
            "group": session["group_id"],
            "status": session["status"],
            "tags": ", ".join(session["tags"]) or None,
            "rating": None if rating is None else str(rating),
            "branch": f"of {parent} after item {session['fork_seq']}" if parent else None,
            "prompt": session["system_prompt"],
            **({} if state is None else _standing(state)),
            "made": session["created_at"],
            "changed": session["updated_at"],
        }
    )


def _standing(state: Mapping[str, Any]) -> dict[str, str | None]:
    stands = [state["status"], state["current_step"]]
    waiting = state["waiting_runs"]
    return {
        "run": state["run_id"],
        "agent": state["agent"],
        "stands": ", ".join(filter(None, stands)) or None,
        "waiting": f"{waiting} run(s)" if waiting else None,
    }


def _role(item: Mapping[str, Any]) -> str:
    name = item["sender"] or item["agent"]
    role = item["role"] or "-"
    return f"{role} ({name})" if name else role


def _text(item: Mapping[str, Any]) -> str:
    if item["text"] is not None:
        return str(item["text"])
    kind = str(item["item"].get("type", "-"))
    return call_text(item["item"]) if kind.endswith("_call") else kind

"""``perdure sessions replay`` and ``diff``: said again, and two beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perdure.cli.client import Client, checked_id, connected, id_if_given
from perdure.cli.compared import answered, asked
from perdure.cli.help import examples
from perdure.cli.output import (
    Part,
    print_beside,
    print_json,
    print_note,
    print_table,
    shortened,
)
from perdure.cli.pages import Json
from perdure.cli.runs_shown import as_text, hint
from perdure.cli.starting import ENDS_BADLY, text_or_file, wait_for

__all__ = ["register"]

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"
_SHOWN = 200
Id = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
User = Annotated[str | None, typer.Option(metavar="ID", help="Only if it is this user's.")]


class Tools(StrEnum):
    """What becomes of calls that are not of the effect read."""

    ASK = "ask"
    RUN = "run"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure sessions``."""
    parent.command(
        epilog=examples(
            f"perdure sessions replay {_ID} --agent support --system-prompt 'Be brief.' --wait",
            f"perdure sessions replay {_ID} --agent support --model gpt-5-mini --from 5 --to 12",
            f"perdure sessions replay {_ID} --agent support --system-prompt @prompt.txt",
        )
    )(replay)
    parent.command(
        epilog=examples(
            f"perdure sessions diff {_ID}",
            f"perdure sessions diff {_ID} --with 01a20131-5c07-7d11-8a64-9be0e9c1f2aa",
        )
    )(diff)


def replay(
    session_id: Id,
    agent: Annotated[str, typer.Option(metavar="NAME", help="The agent it is said to.")],
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT|@FILE", help="Its system prompt.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model of all agents, instead of their own."),
    ] = None,
    from_seq: Annotated[
        int | None, typer.Option("--from", metavar="N", min=1, help="The first item; else all.")
    ] = None,
    to_seq: Annotated[
        int | None, typer.Option("--to", metavar="N", min=1, help="The last item, included.")
    ] = None,
    tools: Annotated[
        Tools, typer.Option(help="Ask a person before calls that change things, or run them.")
    ] = Tools.ASK,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Its title.")] = None,
    user: User = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all have ended, or one waits for a person.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say a session's messages of users again in a branch, as runs one after the other.

    With --wait a run that fails makes the exit code 1.
    """
    given = {
        "agent": agent,
        "system_prompt": None if system_prompt is None else _prompt(system_prompt),
        "model": model,
        "from_seq": from_seq,
        "to_seq": to_seq,
        "title": title,
        "tools": tools.value,
    }
    body = {name: value for name, value in given.items() if value is not None}
    path = f"/v1/sessions/{checked_id('session', session_id)}/replay"
    with connected() as client:
        made = client.post(path + _for(user), body)
        if wait:
            made["runs"] = _wait(client, made["runs"], quietly=as_json)
    if as_json:
        print_json(made)
    else:
        _print_replay(made)
    if wait and any(run["status"] in ENDS_BADLY for run in made["runs"]):
        raise typer.Exit(1)


def diff(
    session_id: Id,
    other: Annotated[
        str | None,
        typer.Option("--with", metavar="ID", help="The other session; else the one it branched."),
    ] = None,
    user: User = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="At most so many turns, 1 to 100.")
    ] = 20,
    after: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Go on after the turn of this number.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a session beside the one it is a branch of, turn by turn after the fork."""
    path = f"/v1/sessions/{checked_id('session', session_id)}/diff"
    query = {
        "with": id_if_given("session", other),
        "user_id": user,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        found = client.get(path, query)
    if as_json:
        print_json(found)
        return
    if not found["turns"]:
        print_note(f"Nothing was said in either after item {found['fork_seq']}.")
        return
    rows: list[tuple[Sequence[Part], Sequence[Part]]] = [
        ([(found["base"]["id"], "cyan")], [(found["session"]["id"], "cyan")])
    ]
    for turn in found["turns"]:
        rows += [([("", "")], [("", "")]), (asked(turn, "base"), asked(turn, "session"))]
        rows.append((answered(turn, "base"), answered(turn, "session")))
    print_beside(rows)
    if found["has_more"]:
        print_note(f"There are more: --after {found['turns'][-1]['number']}")


def _wait(client: Client, runs: list[dict[str, Any]], *, quietly: bool) -> list[dict[str, Any]]:
    if not quietly:
        print_note(f"{len(runs)} run(s) are on their way. Ctrl-C stops waiting, not them.")
    rested: list[dict[str, Any]] = []
    for run in runs:
        rested.append(wait_for(client, run, quietly=True))
        if rested[-1]["status"] == "interrupted":
            # The others wait for it.
            break
    return [*rested, *runs[len(rested) :]]


def _print_replay(made: Mapping[str, Any]) -> None:
    print_table(
        ["run", "item", "status", "output"],
        [
            [
                run["id"],
                str(run["replays_seq"]),
                run["status"],
                "-" if run["output"] is None else shortened(as_text(run["output"]), _SHOWN),
            ]
            for run in made["runs"]
        ],
    )
    for run in made["runs"]:
        for interruption in run["interruptions"]:
            print_note(f"Waits for you: {hint(interruption)}")
    session = made["session"]["id"]
    print_note(f"Session {session}. Compare: perdure sessions diff {session}")


def _for(user: str | None) -> str:
    return "" if user is None else f"?user_id={quote(user, safe='')}"


def _prompt(text: str) -> str:
    said = text_or_file(text, "--system-prompt")
    return said.rstrip("\n") if text.startswith("@") else said

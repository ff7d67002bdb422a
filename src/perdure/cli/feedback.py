"""``perdure feedback``: what people think of runs and of what was said."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from perdure.cli.client import connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago, print_fields, print_json, print_note, print_table
from perdure.cli.pages import After, Json, Limit, print_page

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"

app = typer.Typer(
    help="Give feedback on runs and items, list it, sum it up.",
    no_args_is_help=True,
    epilog=examples(
        f"perdure feedback add --run {_ID} --rating 4",
        "perdure feedback list --max-rating 2",
        "perdure feedback summary",
    ),
)


class Type(StrEnum):
    """What feedback may be about."""

    ACCURACY = "accuracy"
    RELEVANCE = "relevance"
    COMPLETENESS = "completeness"
    AGENT_BEHAVIOR = "agent_behavior"
    OTHER = "other"


class Group(StrEnum):
    """What feedback may be summed up by."""

    AGENT = "agent"
    VERSION = "version"
    TYPE = "type"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="feedback")


@app.command(
    epilog=examples(
        f"perdure feedback add --run {_ID} --rating 4 --type accuracy",
        f"perdure feedback add --item {_ID} --dislike --comment 'The date was wrong.'",
    )
)
def add(
    run: Annotated[str | None, typer.Option(metavar="ID", help="The run it is on.")] = None,
    item: Annotated[str | None, typer.Option(metavar="ID", help="The item it is on.")] = None,
    rating: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=5, help="From 1 (worst) to 5.")
    ] = None,
    like: Annotated[
        bool | None, typer.Option("--like/--dislike", help="Instead of a rating.")
    ] = None,
    type_: Annotated[Type, typer.Option("--type", help="What it is about.")] = Type.OTHER,
    comment: Annotated[str | None, typer.Option(metavar="TEXT", help="In words.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Who thinks so.")] = None,
    as_json: Json = False,
) -> None:
    """Say what somebody thinks of a run or an item, in the place of what they said before."""
    if (run is None) == (item is None):
        raise typer.BadParameter("Give --run or --item, one of them.")
    if (rating is None) == (like is None):
        raise typer.BadParameter("Give --rating, --like or --dislike, one of them.")
    given = {
        "run_id": id_if_given("run", run),
        "item_id": id_if_given("item", item),
        "rating": rating,
        "liked": like,
        "type": type_.value,
        "comment": comment,
        "user_id": user,
    }
    body = {name: value for name, value in given.items() if value is not None}
    with connected() as client:
        made = client.post("/v1/feedback", body)
    if as_json:
        print_json(made)
    else:
        print_fields(
            {
                "feedback": made["id"],
                "run": made["run_id"],
                "item": made["item_id"],
                "user": made["user_id"],
                "says": _says(made),
                "type": made["type"],
                "comment": made["comment"],
                "agent": made["agent"],
                "version": made["agent_version"],
            }
        )


@app.command(
    "list",
    epilog=examples("perdure feedback list", "perdure feedback list --agent support --dislikes"),
)
def list_feedback(
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Only on this run, or what it said.")
    ] = None,
    item: Annotated[str | None, typer.Option(metavar="ID", help="Only on this item.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only on its items and runs.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only of this user.")] = None,
    type_: Annotated[Type | None, typer.Option("--type", help="Only about this.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only on this agent.")] = None,
    min_rating: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=5, help="Only ratings from it.")
    ] = None,
    max_rating: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=5, help="Only ratings up to it.")
    ] = None,
    liked: Annotated[
        bool | None, typer.Option("--likes/--dislikes", help="Only likes, or only dislikes.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List feedback, the newest first."""
    query = {
        "run_id": id_if_given("run", run),
        "item_id": id_if_given("item", item),
        "session_id": id_if_given("session", session),
        "user_id": user,
        "type": None if type_ is None else type_.value,
        "agent": agent,
        "min_rating": min_rating,
        "max_rating": max_rating,
        "liked": liked,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/feedback", query)
    print_page(
        page,
        ["id", "age", "on", "agent", "user", "says", "type", "comment"],
        lambda one: [
            one["id"],
            ago(one["created_at"]),
            f"item {one['item_id']}" if one["item_id"] else f"run {one['run_id']}",
            one["agent"] or "-",
            one["user_id"] or "-",
            _says(one),
            one["type"],
            one["comment"] or "-",
        ],
        empty="No such feedback.",
        as_json=as_json,
    )


@app.command(epilog=examples("perdure feedback summary", "perdure feedback summary --by type"))
def summary(
    by: Annotated[
        list[Group] | None, typer.Option(help="What to group by, more than once; agent, version.")
    ] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only on this agent.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Given then or later (RFC 3339).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Given before then.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sum feedback up: how many, the average rating, likes and dislikes, per agent and version."""
    groups = [group.value for group in by or [Group.AGENT, Group.VERSION]]
    query = {"group_by": groups, "agent": agent, "from": since, "to": until}
    with connected() as client:
        found = client.get("/v1/feedback/summary", query)
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_note("No such feedback.")
        return
    columns = [name for name in ("agent", "version", "type") if name in groups]
    print_table(
        [*columns, "count", "average", "1 2 3 4 5", "likes", "dislikes"],
        [
            [
                *(one[name] or "-" for name in columns),
                str(one["count"]),
                "-" if one["average_rating"] is None else f"{one['average_rating']:.2f}",
                " ".join(str(one["ratings"][str(stars)]) for stars in range(1, 6)),
                str(one["likes"]),
                str(one["dislikes"]),
            ]
            for one in found["data"]
        ],
    )


def _says(feedback: Mapping[str, Any]) -> str:
    if feedback["rating"] is not None:
        return f"{feedback['rating']} of 5"
    return "likes it" if feedback["liked"] else "dislikes it"

"""``perdure usage``: what runs used and cost over a period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from perdure.cli.client import connected
from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_table
from perdure.cli.pages import Json
from perdure.ledger.usage import GROUPS, MAX_ROWS

_FIELDS = {"day": "day", "agent": "agent", "model": "model", "user": "user_id"}


def register(parent: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    parent.command(
        "usage",
        epilog=examples(
            "perdure usage",
            "perdure usage --group-by model --from 2026-11-01 --to 2026-12-01",
            "perdure usage --group-by day,agent --user alice",
        ),
    )(usage)


def usage(
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help=f"Of {', '.join(GROUPS)}; more than once, or with commas. By default agent,model.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Since then: a date, or a time (RFC 3339). 30 days ago."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Until before then. Now.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this agent asked.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this model was asked.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only of this user.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_ROWS, help="At most so many rows.")
    ] = MAX_ROWS,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="Leave out so many rows.")] = 0,
    as_json: Json = False,
) -> None:
    """Sum up requests, tokens and cost over a period: by day, then the dearest first."""
    groups = ",".join(group_by or ["agent", "model"])
    query = {
        "group_by": groups,
        "from": since,
        "to": until,
        "agent": agent,
        "model": model,
        "user_id": user,
        "limit": limit,
        "offset": offset or None,
    }
    with connected() as client:
        found = client.get("/v1/usage", query)
    if as_json:
        print_json(found)
        return
    period = f"from {found['from']} until {found['to']}"
    if not found["data"]:
        print_note(f"No model was asked {period}.")
        return
    columns = [group for group in _FIELDS if group in groups.split(",")]
    print_table(
        [*columns, "requests", "input", "cached", "output", "reasoning", "total", "cost (USD)"],
        [
            [*(_name(one[_FIELDS[group]]) for group in columns), *_sums(one)]
            for one in found["data"]
        ],
    )
    if any(one["unpriced_requests"] for one in found["data"]):
        print_note("Marked +: not all requests have a known price; what these cost is not in it.")
    if found["has_more"]:
        print_note(f"There are more: --offset {offset + len(found['data'])}")


def _name(given: str | None) -> str:
    return given or "-"


def _sums(one: Mapping[str, Any]) -> list[str]:
    cost = "-" if one["cost_usd"] is None else one["cost_usd"]
    if one["unpriced_requests"] and one["cost_usd"] is not None:
        cost += " +"
    return [
        str(one["requests"]),
        str(one["input_tokens"]),
        str(one["cached_input_tokens"]),
        str(one["output_tokens"]),
        str(one["reasoning_tokens"]),
        str(one["total_tokens"]),
        cost,
    ]

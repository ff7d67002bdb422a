"""``perdure links``: a question handed to one person, as a link."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.durations import seconds_or_moment
from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_text

_ID = "01a20131-4acc-741f-9025-d037415ca254"

app = typer.Typer(
    help="Make links by which people without a key decide a question.",
    no_args_is_help=True,
    epilog=examples(
        "perdure inbox",
        f"perdure links create {_ID} --subject alice@example.com",
    ),
)


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="links")


@app.command(
    epilog=examples(
        f"perdure links create {_ID} --subject alice@example.com",
        f"perdure links create {_ID} --subject alice@example.com --group finance --expires-in 2h",
        f"perdure links create {_ID} --json | jq -r .url",
    ),
)
def create(
    interruption_id: Annotated[
        str, typer.Argument(metavar="ID", help="The interruption's id, from the inbox.")
    ],
    subject: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="Who decides by it; by default whose key this is, another takes an admin's.",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A group they belong to, for policies; may be repeated."),
    ] = None,
    expires_in: Annotated[
        str,
        typer.Option(
            metavar="24h", help="How long it is good for, at most as long as the question: 15m, 7d."
        ),
    ] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print a link by which one person decides a question, once; send it to nobody else."""
    path = f"/v1/interruptions/{checked_id('interruption', interruption_id)}/links"
    seconds = seconds_or_moment(expires_in)
    if isinstance(seconds, str):
        raise typer.BadParameter("--expires-in is a duration, such as 15m, 24h or 7d.")
    body: dict[str, Any] = {"expires_in": seconds}
    if subject is not None:
        body["subject"] = subject
    if group:
        body["groups"] = group
    with connected() as client:
        link = client.post(path, body)
    if as_json:
        print_json(link)
        return
    print_text(link["url"])
    ways = " or ".join(link["decisions"])
    print_note(f"For {link['subject']} to {ways}, once, until {link['expires_at']}.")

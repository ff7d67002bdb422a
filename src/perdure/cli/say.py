"""``perdure runs say``: a message to a run that is under way."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import uuid4

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_text
from perdure.cli.pages import Json


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure runs``."""
    app.command(
        epilog=examples(
            'perdure runs say 01a20131-4a27-77ae-b605-6e01616eb463 "Exchange it instead."',
            "perdure runs say 01a20131-4a27-77ae-b605-6e01616eb463 - < news.txt",
        )
    )(say)


def say(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id.")],
    message: Annotated[
        str, typer.Argument(metavar="MESSAGE", help="What to say; - reads it from stdin.")
    ],
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key within 24 hours says it no second time."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say something to a run. The model reads it when it is asked next.

    A run that waits for a decision goes on waiting, and reads it afterwards.
    """
    if message == "-":
        message = sys.stdin.read().rstrip("\n")
    path = f"/v1/runs/{checked_id('run', run_id)}/input"
    with connected() as client:
        added = client.post(path, {"input": message}, key=idempotency_key or str(uuid4()))
    if as_json:
        print_json(added)
    else:
        print_text(added["id"])
        print_note("Added. The model reads it when it is asked next.")

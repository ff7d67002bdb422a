"""``perdure demo``: the whole story in a minute, with no key and no set-up.

``story`` tells it, ``workers`` are the processes that are killed in it (``worker`` is what runs
in them), ``timeline`` reads from the database what happened, ``report`` says it.
"""

from __future__ import annotations

import asyncio
from shutil import get_terminal_size
from typing import Annotated

import typer

from perdure.cli.help import examples
from perdure.cli.output import can_ask, is_terminal, print_json, print_note, print_text


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        epilog=examples("perdure demo", "perdure demo --json | jq .refunds"),
    )(demo)


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Approve without asking, also on a terminal.")
    ] = False,
) -> None:
    """See a run survive two kill -9, and refund once.

    A customer's run is handed from agent to agent, waits for an approval, loses its worker twice,
    the second time between a refund and its record, and ends with one refund. It has a Postgres of
    its own, needs no key and no network, and leaves nothing behind. On a terminal it asks for the
    approval, elsewhere it approves by itself.
    """
    from perdure.cli.demo.report import as_document, verdict
    from perdure.cli.demo.story import Story

    say = print_note if as_json else print_text
    try:
        ending = asyncio.run(Story(say, ask=can_ask() and not yes and not as_json).tell())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        print_json(as_document(ending))
    else:
        width = get_terminal_size().columns if is_terminal() else None
        for line in verdict(ending, width=width):
            print_text(line)
    if not ending.held:
        raise typer.Exit(1)

"""Options of commands that list a page of something, and how such a page ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from perdure.cli.output import print_note

__all__ = ["After", "Json", "Limit", "print_more"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=100, help="At most so many, 1 to 100.")]
After = Annotated[
    str | None, typer.Option(metavar="ID", help="Go on after this one, the last of a page.")
]


def print_more(page: Mapping[str, Any]) -> None:
    """Say how to go on, where more follows the ``page`` of the API."""
    if page["has_more"]:
        print_note(f"There are more: --after {page['last_id']}")

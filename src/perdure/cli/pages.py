"""Options of commands that list a page of something, and how such a page ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from perdure.cli.output import print_json, print_note, print_table

__all__ = ["After", "Json", "Limit", "print_more", "print_page"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=100, help="At most so many, 1 to 100.")]
After = Annotated[
    str | None, typer.Option(metavar="ID", help="Go on after this one, the last of a page.")
]


def print_more(page: Mapping[str, Any]) -> None:
    """Say how to go on, where more follows the ``page`` of the API."""
    if page["has_more"]:
        print_note(f"There are more: --after {page['last_id']}")


def print_page(
    page: Mapping[str, Any],
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *,
    empty: str,
    as_json: bool,
    notes: Callable[[Sequence[Any]], Iterable[str]] = lambda shown: (),
) -> None:
    """Print a ``page`` of the API: as JSON, as a table of a ``row`` for each, or that it is empty.

    ``notes`` are what to say of what was shown, before how to go on.
    """
    if as_json:
        print_json(page)
        return
    if not page["data"]:
        print_note(empty)
        return
    print_table(columns, [row(one) for one in page["data"]])
    for note in notes(page["data"]):
        print_note(note)
    print_more(page)

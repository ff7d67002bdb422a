"""What a run's states and items do not store again, as a tool call's row has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from perdure.runs.parts import CutState, Parts, Quote

__all__ = ["as_stored", "digests", "quotes_of"]

Rows = Sequence[dict[str, Any]]


def quotes_of(state: CutState | None, items: Rows, parts: Parts) -> tuple[list[Quote], list[Quote]]:
    """Return what a state and rows of ``run_items`` written with it may leave to calls' rows."""
    of_state = [] if state is None else list(state.quotes)
    of_items = []
    for place, row in enumerate(items):
        output = row["item"].get("output") if row["type"] == "tool_call_output" else None
        quote = parts.quote(output, place) if isinstance(output, str) else None
        if quote is not None:
            of_items.append(quote)
    return of_state, of_items


def digests(quotes: Iterable[Quote]) -> dict[UUID, bytes]:
    """Return what calls' rows have to hold for ``quotes`` to stand: SHA-256 by the call's id."""
    return {quote.call_id: quote.digest() for quote in quotes}


def as_stored(items: Rows, quotes: Iterable[Quote]) -> list[dict[str, Any]]:
    """Return rows of ``run_items`` as they are stored: no text of a tool's output stands twice."""
    of_calls = {quote.place: str(quote.call_id) for quote in quotes}
    stored = []
    for place, row in enumerate(items):
        if row["type"] != "tool_call_output":
            stored.append(row)
            continue
        item, output_of = row["item"], of_calls.get(place)
        if output_of is not None:
            item = {name: value for name, value in item.items() if name != "output"}
        # Read from the item it is the same.
        stored.append({**row, "item": item, "output_of": output_of, "text": None})
    return stored

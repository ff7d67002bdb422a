"""What somebody types, as JSON that fits the schema of a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from perdure.cli.output import one_line
from perdure.interruptions.fields import (
    Field,
    fields_of,
    nothing_typed,
    read,
    shown_choice,
    whole_of,
)
from perdure.interruptions.rules import UNSET

__all__ = ["fill_in", "typed"]

_KINDS = {"text": "text", "integer": "whole number", "checkbox": "yes|no", "json": "JSON"}


def typed(schema: Mapping[str, Any] | None, text: str) -> Any:
    """Return the JSON value ``text`` stands for under ``schema``: text, where that is asked for.

    Whether it fits is for the server to say.
    """
    return _read(whole_of(schema), text)


def fill_in(schema: Mapping[str, Any] | None) -> Any:
    """Ask on the terminal for a value, field by field where ``schema`` is of an object.

    A field that is not required and left empty is left out.
    """
    fields = fields_of(schema)
    filled = {field.name: _ask(field) for field in fields}
    if None in filled:
        return filled[None]
    return {name: value for name, value in filled.items() if value is not UNSET}


def _ask(field: Field) -> Any:
    must = field.empty == "refused"
    text = typer.prompt(
        one_line(_label(field)),
        default=None if must else "",
        show_default=False,
        err=True,
    )
    return _read(field, text) if text else nothing_typed(field)


def _read(field: Field, text: str) -> Any:
    try:
        return read(field, text)
    except ValueError:
        return text


def _label(field: Field) -> str:
    if field.name is None:
        return "answer"
    hint = field.description or _KINDS.get(field.kind, field.kind)
    if field.kind == "choice":
        hint = "|".join(map(shown_choice, field.choices))
    words = f"{field.name} ({hint})"
    return words if field.empty == "refused" else f"{words}, or nothing"

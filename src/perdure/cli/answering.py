"""What somebody types, as JSON that fits the schema of a question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer

from perdure.cli.output import one_line

__all__ = ["fill_in", "typed"]


def typed(schema: Mapping[str, Any] | None, text: str) -> Any:
    """Return the JSON value ``text`` stands for under ``schema``: text, where that is asked for.

    Whether it fits is for the server to say.
    """
    if schema is None or _wants_text(schema):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def fill_in(schema: Mapping[str, Any] | None) -> Any:
    """Ask on the terminal for a value, field by field where ``schema`` is of an object.

    A field that is not required and left empty is left out.
    """
    properties = (schema or {}).get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return typed(schema, typer.prompt("answer", err=True))
    # The database keeps no order of keys; a list's it does.
    required = [name for name in (schema or {}).get("required") or () if name in properties]
    filled = {}
    for name in [*required, *(name for name in properties if name not in required)]:
        about = properties[name] if isinstance(properties[name], Mapping) else {}
        must = name in required
        text = typer.prompt(
            one_line(_label(name, about, must=must)),
            default=None if must else "",
            show_default=False,
            err=True,
        )
        if text or must:
            filled[name] = typed(about, text)
    return filled


def _label(name: str, field: Mapping[str, Any], *, must: bool) -> str:
    choices = field.get("enum")
    hint = field.get("description") or field.get("type") or ""
    if isinstance(choices, list):
        hint = "|".join(str(choice) for choice in choices)
    words = f"{name} ({hint})" if hint else name
    return words if must else f"{words}, or nothing"


def _wants_text(schema: Mapping[str, Any]) -> bool:
    choices = schema.get("enum")
    if isinstance(choices, list):
        return all(isinstance(choice, str) for choice in choices)
    return schema.get("type") == "string"

"""The fields a form has for a JSON schema, and what was typed into them as JSON. Pure.

A schema of one value is one field, an object of such values one field for each of its properties.
What forms cannot say exactly is typed as JSON. Whether all of it fits is for ``forms`` to say.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from perdure.interruptions.rules import UNSET

Kind = Literal["text", "integer", "number", "checkbox", "choice", "json"]
Empty = Literal["refused", "left out", "null"]

MAX_FIELDS: Final = 50
"""Objects with more properties are typed as JSON."""

_MOST_STEPS = 8
_LONGEST_NUMBER = 400
_MOST_DIGITS = 20
_NUMBER = re.compile(r"-?[0-9]+(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?", re.ASCII)
_COMBINING = frozenset(("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if"))
# An object may then need, or have, what its ``properties`` do not name.
_MORE_PROPERTIES = _COMBINING | {
    *("patternProperties", "dependentSchemas", "dependentRequired", "dependencies"),
}
_YES, _NO = frozenset(("true", "yes", "y", "on")), frozenset(("false", "no", "n", "off", ""))


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in.

    ``name`` is the property it is, None where it is all of the answer; ``empty`` what becomes of
    it when nothing is typed; ``choices``, of a choice, are JSON scalars; ``description`` is the
    schema's, as hostile as the name. ``words``: what is no JSON is text.
    """

    name: str | None
    kind: Kind
    empty: Empty = "refused"
    choices: tuple[Any, ...] = ()
    description: str = ""
    words: bool = False


def fields_of(schema: Mapping[str, Any] | None) -> tuple[Field, ...]:
    """Return what to fill in for an answer that fits ``schema``; None is any text.

    Required properties come first, in the order they are listed in: the database keeps that of
    lists, and none of keys.
    """
    whole = whole_of(schema)
    plain, nullable = _plain(schema or {}, schema or {})
    properties = plain.get("properties")
    required = plain.get("required", [])
    if (
        whole.kind != "json"
        or nullable
        or plain.get("type", "object") not in ("object", ["object"])
        or not isinstance(properties, Mapping)
        or not 0 < len(properties) <= MAX_FIELDS
        or not isinstance(required, list)
        or any(name not in properties for name in required)
        or not _MORE_PROPERTIES.isdisjoint(plain)
        or isinstance(plain.get("additionalProperties"), Mapping)
    ):
        return (whole,)
    names = list(dict.fromkeys([*required, *properties]))
    return tuple(
        _field(name, properties[name], schema or {}, required=name in required) for name in names
    )


def whole_of(schema: Mapping[str, Any] | None) -> Field:
    """Return the one field for all of an answer that fits ``schema``."""
    if schema is None:
        return Field(None, "text")
    return _field(None, schema, schema, required=True)


def read(field: Field, text: str) -> Any:
    """Return the JSON value that ``text``, typed into ``field``, stands for.

    Raises:
        ValueError: for none; the message says what it has to be.
    """
    match field.kind:
        case "text":
            return text
        case "checkbox":
            word = text.strip().lower()
            if word not in _YES | _NO:
                raise ValueError("has to be yes or no.")
            return word in _YES
        case "choice":
            return _chosen(field, text)
        case "json":
            return _json(field, text)
        case _:
            return _number(text.strip())


def nothing_typed(field: Field) -> Any:
    """Return what ``field`` is where nothing was typed: null, or ``UNSET`` where it is left out.

    Raises:
        ValueError: it has to be filled in.
    """
    if field.empty == "refused":
        raise ValueError("has to be filled in.")
    return None if field.empty == "null" else UNSET


def shown_choice(choice: Any) -> str:
    """Return a choice as people read and type it."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def pointer_of(field: Field) -> str:
    """Return where the field stands in the answer, as a JSON pointer."""
    if field.name is None:
        return ""
    return "/" + field.name.replace("~", "~0").replace("/", "~1")


def _field(name: str | None, given: Any, root: Mapping[str, Any], *, required: bool) -> Field:
    schema, nullable = _plain(given, root)
    kind, choices = _kind(schema)
    if kind == "choice" and None in choices:
        nullable = True
        choices = tuple(choice for choice in choices if choice is not None)
    if kind == "checkbox" and not (required and not nullable):
        # It can be yes, no, and nothing.
        kind, choices = "choice", (True, False)
    description = schema.get("description")
    return Field(
        name,
        kind,
        "left out" if not required else "null" if nullable else "refused",
        choices,
        description if isinstance(description, str) else "",
        words=kind == "json" and _may_be_text(schema),
    )


def _kind(schema: Mapping[str, Any]) -> tuple[Kind, tuple[Any, ...]]:
    if not _COMBINING.isdisjoint(schema):
        return "json", ()
    listed = schema.get("enum")
    if isinstance(listed, list):
        plain = all(one is None or isinstance(one, str | int | float) for one in listed)
        return ("choice", tuple(listed)) if plain and listed not in ([], [None]) else ("json", ())
    match schema.get("type"):
        case "string":
            return "text", ()
        case "integer":
            return "integer", ()
        case "number":
            return "number", ()
        case "boolean":
            return "checkbox", ()
        case _:
            return "json", ()


def _plain(schema: Any, root: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return a schema without the reference it is or the null it allows; whether it does."""
    nullable = False
    for _ in range(_MOST_STEPS):
        if not isinstance(schema, Mapping):
            return {}, nullable
        own = {name: schema[name] for name in ("description",) if name in schema}
        several = schema.get("anyOf")
        if isinstance(schema.get("$ref"), str):
            found = _at(root, schema["$ref"])
            if found is None:
                break
            schema = {**found, **own}
        elif isinstance(several, list) and {"type": "null"} in several:
            others = [one for one in several if one != {"type": "null"}]
            if len(others) != 1 or not isinstance(others[0], Mapping):
                break
            schema, nullable = {**others[0], **own}, True
        else:
            break
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds and len(kinds) == 2:
        [other] = [kind for kind in kinds if kind != "null"] or ["null"]
        schema, nullable = {**schema, "type": other}, True
    return schema, nullable


def _at(root: Mapping[str, Any], reference: str) -> Mapping[str, Any] | None:
    place, *parts = reference.split("/")
    found: Any = root if place == "#" else None
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _may_be_text(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type", "string")
    return kinds == "string" or (isinstance(kinds, list) and "string" in kinds)


def _chosen(field: Field, text: str) -> Any:
    for choice in field.choices:
        if text in (shown_choice(choice), shown_choice(choice).strip()):
            return choice
    raise ValueError(f"has to be one of {', '.join(map(shown_choice, field.choices))}.")


def _number(text: str) -> int | float:
    found = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if found is None:
        raise ValueError("has to be a number, such as 12 or 12.5.")
    if found["fraction"] is None and found["exponent"] is None:
        return _integer(text)
    return _finite(text)


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS or not -(2**63) <= int(text) < 2**63:
        raise ValueError("has a number beyond 64 bits.")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("has a number that is too large, or none.")
    return value


def _json(field: Field, text: str) -> Any:
    try:
        return json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("is nested too deep.") from error
    except json.JSONDecodeError as error:
        if field.words:
            return text
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"has to be JSON: {error.msg} at {where}.") from error

"""What a form has for a schema, and what is typed into it."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.interruptions.fields import MAX_FIELDS, fields_of, nothing_typed, read
from perdure.interruptions.rules import UNSET

NULL = {"type": "null"}


def _kinds(schema: Any) -> list[tuple[str | None, str, str]]:
    return [(one.name, one.kind, one.empty) for one in fields_of(schema)]


@pytest.mark.parametrize(
    ("schema", "kind", "empty"),
    [
        (None, "text", "refused"),
        ({"type": "string", "maxLength": 3}, "text", "refused"),
        ({"type": ["string", "null"]}, "text", "null"),
        ({"anyOf": [{"type": "number"}, NULL]}, "number", "null"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, "integer", "refused"),
        ({"type": "boolean"}, "checkbox", "refused"),
        ({"anyOf": [{"type": "boolean"}, NULL]}, "choice", "null"),
        ({"enum": ["a", None, 1]}, "choice", "null"),
        ({"enum": ["a", [1]]}, "json", "refused"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "json", "refused"),
        ({"$ref": "#"}, "json", "refused"),
        ({"$ref": "https://elsewhere.example/x"}, "json", "refused"),
        ({"type": "array"}, "json", "refused"),
        ({}, "json", "refused"),
        # Objects whose properties do not say all that they may need.
        ({"type": "object"}, "json", "refused"),
        ({"properties": {"a": {}}, "required": ["b"]}, "json", "refused"),
        ({"properties": {"a": {}}, "allOf": [{"required": ["b"]}]}, "json", "refused"),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, "json", "refused"),
        ({"properties": {str(n): {} for n in range(MAX_FIELDS + 1)}}, "json", "refused"),
        ({"anyOf": [{"properties": {"a": {}}}, NULL]}, "json", "null"),
    ],
)
def test_what_is_one_value_is_one_field(schema: Any, kind: str, empty: str) -> None:
    assert _kinds(schema) == [(None, kind, empty)]


def test_an_object_is_a_field_for_each_property_the_required_ones_first() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "boolean"},
            "b": {"type": ["integer", "null"]},
            "c": True,
            "d": {"type": "string", "description": "What for."},
        },
        "required": ["d", "b"],
    }
    assert _kinds(schema) == [
        ("d", "text", "refused"),
        ("b", "integer", "null"),
        ("a", "choice", "left out"),
        ("c", "json", "left out"),
    ]
    d, b, a, _ = fields_of(schema)
    assert (d.description, a.choices) == ("What for.", (True, False))
    assert (nothing_typed(b), nothing_typed(a)) == (None, UNSET)
    with pytest.raises(ValueError, match="has to be filled in"):
        nothing_typed(d)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, " 1 ", " 1 "),
        ({"type": "integer"}, " -12 ", -12),
        ({"type": "integer"}, "12.0", 12.0),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "off", False),
        ({"enum": ["1", 1, True]}, "1", "1"),
        ({"enum": ["1", 2, True]}, "true", True),
        ({"type": "array"}, " [1, null]\n", [1, None]),
        ({}, '{"a": 1}', {"a": 1}),
        # Where any text may be meant, what is no JSON is text.
        ({}, "blue", "blue"),
        ({"type": ["string", "array"]}, "blue", "blue"),
    ],
)
def test_what_is_typed_is_read_as_json(schema: Any, text: str, value: Any) -> None:
    [field] = fields_of(schema)
    found = read(field, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        *(({"type": "number"}, text) for text in ("", "1,5", "0x1", "NaN", "\u0661", "1" * 5000)),
        ({"type": "integer"}, str(2**63)),
        ({"type": "number"}, "1e400"),
        ({"type": "boolean"}, "perhaps"),
        ({"enum": ["a"]}, "b"),
        *(
            ({"type": "array"}, text)
            for text in ("[1", "[1e400]", "[NaN]", f"[{2**63}]", "[" * 9**6)
        ),
    ],
)
def test_what_stands_for_nothing_is_refused(schema: Any, text: str) -> None:
    [field] = fields_of(schema)
    with pytest.raises(ValueError, match=r"^(has|is) "):
        read(field, text)

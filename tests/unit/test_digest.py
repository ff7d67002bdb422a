"""The digest a decision is bound to: one for each thing that would be executed."""

from __future__ import annotations

import hashlib
import json
import string
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import jsonsafe
from perdure.interruptions.digest import MAX_DEPTH, digest_v1

CALL: dict[str, Any] = {
    "tenant_id": UUID(int=1),
    "run_id": UUID(int=2),
    "base_seq": 1,
    "scope": "",
    "call_id": "call_1",
    "tool": "refund",
    "schema": {"type": "object"},
    "arguments": {"order_id": "42", "cents": 1999},
}

VERSION_1 = "208b6c363b7bba12255ad60a257ee321d9e60c7948daa028af2781444e4927f7"

# Also what only a model would write: lone surrogates, NUL, U+E000, very large numbers.
TEXT = st.text(st.characters(codec=None))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(TEXT, JSON, max_size=4)


def digest(**changes: Any) -> str:
    return digest_v1(**{**CALL, **changes})


def test_it_is_what_version_1_says() -> None:
    # Worked out by other means than the code: sha256sum over this text.
    canonical = (
        '{"arguments":{"cents":1999,"order_id":"42"},"base_seq":1,"call_id":"call_1",'
        '"run_id":"00000000-0000-0000-0000-000000000002","schema":{"type":"object"},"scope":"",'
        '"tenant_id":"00000000-0000-0000-0000-000000000001","tool":"refund","version":1}'
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == VERSION_1
    assert digest() == f"sha256:{VERSION_1}"


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": UUID(int=9)},
        {"run_id": UUID(int=9)},
        {"base_seq": 2},
        {"scope": "call_0"},
        {"call_id": "call_2"},
        {"tool": "refund_all"},
        {"schema": {"type": "object", "additionalProperties": False}},
        {"schema": None},
        {"arguments": {"order_id": "42", "cents": 2000}},
        {"arguments": {"order_id": 42, "cents": 1999}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_counts(change: dict[str, Any]) -> None:
    assert digest(**change) != digest()


@given(ARGUMENTS)
def test_it_survives_the_database(arguments: dict[str, Any]) -> None:
    # jsonb sorts members and hands back numbers without an exponent, characters without escapes.
    stored = json.loads(jsonsafe.dumps(_as_jsonb(arguments)))
    read = jsonsafe.loads(json.dumps(stored, ensure_ascii=False))
    assert digest(arguments=read) == digest(arguments=arguments)


def _as_jsonb(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_jsonb(value[key]) for key in sorted(value, reverse=True)}
    if isinstance(value, list):
        return [_as_jsonb(item) for item in value]
    if isinstance(value, float) and "e+" in repr(value):
        mantissa, exponent = repr(value).split("e+")
        digits = mantissa.replace(".", "").replace("-", "")
        places = len(mantissa.partition(".")[2])
        sign = -1 if value < 0 else 1
        return sign * int(digits) * 10 ** (int(exponent) - places)
    return value


@given(ARGUMENTS)
def test_text_that_is_an_object_counts_as_the_object(arguments: dict[str, Any]) -> None:
    assert digest(arguments=json.dumps(arguments)) == digest(arguments=arguments)


@given(st.text(string.printable), st.text(string.printable))
def test_other_text_counts_as_the_text_it_is(one: str, other: str) -> None:
    first, second = digest(arguments="<" + one), digest(arguments="<" + other)
    assert (first == second) == (one == other)
    assert first != digest(arguments={"arguments_raw": "<" + one})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 2**53}, {"n": 2**53 + 1}),
        ({"n": 2**53}, {"n": None}),
        ({"n": 2**64}, {"n": str(2**64)}),
        ({"a": 2**60, "b": None}, {"a": None, "b": 2**60}),
        ({"a/b": 2**60, "a": {"b": None}}, {"a/b": None, "a": {"b": 2**60}}),
        ({"n": 2**60}, {"n": None, "big_integers": {"/arguments/n": str(2**60)}}),
        ({"s": "\ud800"}, {"s": "\ue000d800"}),
        ({"s": "\0"}, {"s": "\ue0000000"}),
        ({"s": "\ud83d\ude00"[:1]}, {"s": "�"}),
        ('{"n": 1e999}', '{"n": 1e9999}'),
        ('{"n": NaN}', '{"n": Infinity}'),
        ("[1]", "[1] "),
        ("", "{}"),
    ],
)
def test_different_things_have_different_digests(one: Any, other: Any) -> None:
    assert digest(arguments=one) != digest(arguments=other)


def test_text_nested_beyond_reading_counts_as_text() -> None:
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        deep = '{"a":' * depth + "1" + "}" * depth
        assert digest(arguments=deep) != digest(arguments=deep + " ")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_object_that_is_not_json_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not a JSON number"):
        digest(arguments={"n": number})

"""What may be remembered, and for what a grant stands."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import InvalidRequestError
from perdure.interruptions.conditions import same
from perdure.interruptions.grants.rules import (
    LONGEST_SECONDS,
    arguments_digest,
    covers,
    read_remember,
    schema_digest,
)
from perdure.interruptions.rules import Decision, check_form
from tests.unit.test_conditions import JSON, TEXT

DIGEST = "sha256:" + "0" * 64


def test_what_may_be_remembered() -> None:
    asks = read_remember({"scope": "run", "until": 7200})
    assert (asks.scope, asks.until, asks.seconds, asks.when) == ("run", None, 7200.0, None)
    asks = read_remember({"scope": "user", "until": "2026-12-01T01:00:00.5+01:00"})
    assert asks.until == datetime(2026, 12, 1, 0, 0, 0, 500_000, UTC)
    when = {"/cents": {"lte": 5000}}
    asks = read_remember({"scope": "agent", "until": 0.5, "when": when})
    assert (asks.seconds, asks.when) == (0.5, when)
    assert read_remember({"scope": "agent", "until": 1, "when": None}).when is None


@pytest.mark.parametrize(
    ("remember", "pointer"),
    [
        (True, "/remember"),
        ("run", "/remember"),
        (None, "/remember"),
        ({}, "/remember/scope"),
        ({"until": 60}, "/remember/scope"),
        ({"scope": "tenant", "until": 60}, "/remember/scope"),
        ({"scope": ["run"], "until": 60}, "/remember/scope"),
        ({"scope": "run"}, "/remember/until"),
        ({"scope": "run", "until": None}, "/remember/until"),
        ({"scope": "run", "until": True}, "/remember/until"),
        ({"scope": "run", "until": 0}, "/remember/until"),
        ({"scope": "run", "until": -1}, "/remember/until"),
        ({"scope": "run", "until": LONGEST_SECONDS + 1}, "/remember/until"),
        ({"scope": "run", "until": float("inf")}, "/remember/until"),
        ({"scope": "run", "until": float("nan")}, "/remember/until"),
        ({"scope": "run", "until": "tomorrow"}, "/remember/until"),
        ({"scope": "run", "until": "2026-12-01"}, "/remember/until"),
        ({"scope": "run", "until": "2026-12-01T00:00:00"}, "/remember/until"),
        ({"scope": "run", "until": "2026-13-01T00:00:00Z"}, "/remember/until"),
        ({"scope": "run", "until": "2026-12-01T00:00:00+99:00"}, "/remember/until"),
        ({"scope": "run", "until": 60, "when": []}, "/remember/when"),
        ({"scope": "run", "until": 60, "when": {}}, "/remember/when"),
        ({"scope": "run", "until": 60, "when": {"/a": {"max": 1}}}, "/remember/when/~1a/max"),
        ({"scope": "run", "until": 60, "always": True}, "/remember/always"),
    ],
)
def test_what_may_not_is_named(remember: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        check_form(Decision("approve", digest=DIGEST, remember=remember))
    assert [error.pointer for error in raised.value.errors] == [pointer]


@pytest.mark.parametrize(
    "decision", [Decision("reject"), Decision("resolve", outcome="done"), Decision("answer")]
)
def test_only_an_approval_is_remembered(decision: Decision) -> None:
    with pytest.raises(InvalidRequestError):
        check_form(replace(decision, remember={"scope": "run", "until": 60}))


@given(st.dictionaries(TEXT, JSON, max_size=3), st.dictionaries(TEXT, JSON, max_size=3))
def test_exact_arguments_are_the_same_arguments(one: Any, other: Any) -> None:
    assert (arguments_digest(one) == arguments_digest(other)) is same(one, other)
    assert arguments_digest(one) == arguments_digest(json.dumps(one))
    assert (schema_digest(one) == schema_digest(other)) is same(one, other)
    assert schema_digest(one) != schema_digest(None)
    assert arguments_digest("<" + json.dumps(one)) != arguments_digest(one)


def test_what_is_the_same_and_what_is_not() -> None:
    call = {"cents": 1, "to": {"a": 1, "b": 2}}
    assert arguments_digest(call) == arguments_digest({"to": {"b": 2.0, "a": 1.0}, "cents": 1.0})
    assert arguments_digest({"n": 2**63}) != arguments_digest({"n": 2**63 + 1})
    assert arguments_digest({"n": 1}) != arguments_digest({"n": True})
    assert arguments_digest({"n": 1}) != arguments_digest({"n": "1"})
    assert arguments_digest("") != arguments_digest("{}")


def test_a_grant_for_the_very_arguments_was_found_by_them() -> None:
    assert covers(None, {"cents": 1})
    assert covers({"/cents": {"lte": 1}}, {"cents": 1})
    assert not covers({"/cents": {"lte": 1}}, {"cents": 2})
    # Nothing gives such a grant; were there one, it would not cover whatever comes.
    assert not covers({}, {"cents": 2})

"""Conditions on arguments: what they hold for, and how wrong ones are named."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import InvalidRequestError
from perdure.interruptions.conditions import (
    MAX_POINTERS,
    MAX_TEXT,
    MAX_VALUES,
    check,
    in_words,
    matches,
    parse,
    same,
)
from perdure.interruptions.pointers import MISSING, escape, is_pointer, value_at

CALL: dict[str, Any] = {
    "cents": 4200,
    "currency": "EUR",
    "urgent": True,
    "note": None,
    "rate": 0.1,
    "path": "/srv/data/report.csv",
    "lines": [{"sku": "A", "cents": 10}, {"sku": "B", "cents": 2**60 + 1}],
    "to": {"name": "Ada", "tags": ["x", 1]},
    "a/b": {"~": 1},
    "": "empty",
}

TEXT = st.text(st.characters(codec=None), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
OPERATORS = [
    "eq",
    "ne",
    "in",
    "not_in",
    "gt",
    "gte",
    "lt",
    "lte",
    "prefix",
    "suffix",
    "glob",
    "exists",
]


@pytest.mark.parametrize(
    ("place", "test", "holds"),
    [
        ("/cents", {"eq": 4200}, True),
        ("/cents", {"eq": 4200.0}, True),
        ("/cents", {"eq": "4200"}, False),
        ("/cents", {"ne": "4200"}, True),
        ("/cents", {"lte": 4200}, True),
        ("/cents", {"lt": 4200}, False),
        ("/cents", {"gt": 4199.99, "lt": 4200.01}, True),
        ("/cents", {"gte": 4201}, False),
        ("/cents", {"gte": 0, "ne": 4200}, False),
        ("/cents", {"lte": "9999"}, False),
        ("/cents", {"glob": "4*"}, False),
        ("/currency", {"in": ["EUR", "CHF"]}, True),
        ("/currency", {"in": ["eur"]}, False),
        ("/currency", {"not_in": ["USD"]}, True),
        ("/currency", {"not_in": ["USD", "EUR"]}, False),
        ("/currency", {"gte": "EUR", "lt": "EUS"}, True),
        ("/currency", {"gte": 0}, False),
        ("/currency", {"exists": True}, True),
        ("/currency", {"exists": False}, False),
        # true is no number, and neither true nor 1 is the other.
        ("/urgent", {"eq": True}, True),
        ("/urgent", {"eq": 1}, False),
        ("/urgent", {"gte": 0}, False),
        ("/urgent", {"in": [1, "true"]}, False),
        # null is a value.
        ("/note", {"exists": True}, True),
        ("/note", {"eq": None}, True),
        ("/note", {"ne": "x"}, True),
        ("/note", {"lte": 1}, False),
        # Decimals as they were written.
        ("/rate", {"eq": 0.1}, True),
        ("/rate", {"lte": 0.1}, True),
        ("/path", {"prefix": "/srv/", "suffix": ".csv"}, True),
        ("/path", {"prefix": "/srv/other"}, False),
        ("/path", {"glob": "/srv/*.csv"}, True),
        ("/path", {"glob": "/srv/data"}, False),
        ("/path", {"glob": "/SRV/*"}, False),
        ("/path", {"glob": "/srv/dat[a-c]/report.?sv"}, True),
        ("/path", {"glob": "/srv/dat[!a]/*"}, False),
        ("/lines/0/sku", {"eq": "A"}, True),
        ("/lines/1/cents", {"eq": 2**60 + 1}, True),
        ("/lines/1/cents", {"eq": 2**60}, False),
        ("/lines/1/cents", {"gt": 2**60}, True),
        ("/lines/1/cents", {"lte": 2**60}, False),
        ("/lines", {"eq": [{"cents": 10.0, "sku": "A"}, {"cents": 2**60 + 1, "sku": "B"}]}, True),
        ("/lines/2", {"exists": False}, True),
        ("/lines/-", {"exists": False}, True),
        ("/lines/00", {"exists": False}, True),
        ("/lines/-1", {"exists": False}, True),
        ("/to", {"eq": {"tags": ["x", 1.0], "name": "Ada"}}, True),
        ("/to/name/0", {"exists": False}, True),
        ("/a~1b/~0", {"eq": 1}, True),
        ("/", {"eq": "empty"}, True),
        ("", {"exists": True}, True),
        ("", {"eq": CALL}, True),
        # What is not there fulfils nothing but exists: false.
        ("/gone", {"exists": False}, True),
        ("/gone", {"exists": True}, False),
        ("/gone", {"eq": None}, False),
        ("/gone", {"ne": "EUR"}, False),
        ("/gone", {"not_in": ["EUR"]}, False),
        ("/gone", {"lte": 1}, False),
        ("/gone", {"glob": "*"}, False),
    ],
)
def test_what_holds(place: str, test: dict[str, Any], holds: bool) -> None:
    conditions = check({place: test})
    assert matches(conditions, CALL) is holds
    assert matches(conditions, json.dumps(CALL)) is holds


def test_all_have_to_hold_and_none_always_do() -> None:
    assert matches({"/cents": {"lte": 5000}, "/currency": {"in": ["EUR"]}}, CALL)
    assert not matches({"/cents": {"lte": 5000}, "/currency": {"in": ["USD"]}}, CALL)
    assert matches(check({}), CALL)
    assert matches({}, "no object")


@pytest.mark.parametrize("arguments", ["", "[1]", "{", '{"n": NaN}', [1], None, 7])
def test_arguments_that_are_no_object_fulfil_nothing(arguments: Any) -> None:
    assert not matches({"/gone": {"exists": False}}, arguments)
    assert not matches({"": {"exists": True}}, arguments)


def test_what_cannot_be_compared_fulfils_nothing() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert not matches({"/a": {"ne": 1}}, {"a": deep})
    assert not matches({"/a": {"ne": 1}}, {"a": float("nan")})
    assert not matches({"/a": {"lte": 1}}, {"a": float("-inf")})
    assert not matches({"/a": {"ne": 1}}, {"a": {1, 2}})
    assert not matches({"/a": {"no such": 1}}, {"a": 1})


@pytest.mark.parametrize(
    ("conditions", "pointer", "says"),
    [
        (None, "/when", "object"),
        ([], "/when", "object"),
        ({f"/{n}": {"eq": 1} for n in range(MAX_POINTERS + 1)}, "/when", "more than"),
        ({"cents": {"eq": 1}}, "/when/cents", "JSON pointer"),
        ({"/a~2": {"eq": 1}}, "/when/~1a~02", "JSON pointer"),
        ({"/" + "a" * MAX_TEXT: {"eq": 1}}, "/when/~1" + "a" * MAX_TEXT, "longer"),
        ({"/cents": 5}, "/when/~1cents", "operators"),
        ({"/cents": {}}, "/when/~1cents", "operators"),
        ({"/cents": {"max": 5}}, "/when/~1cents/max", "no operator"),
        ({"/cents": {"a/b": 5}}, "/when/~1cents/a~1b", "no operator"),
        ({"/cents": {"lte": None}}, "/when/~1cents/lte", "a number"),
        ({"/cents": {"lte": True}}, "/when/~1cents/lte", "a number"),
        ({"/cents": {"lte": float("nan")}}, "/when/~1cents/lte", "a number"),
        ({"/cents": {"lte": [1]}}, "/when/~1cents/lte", "a number"),
        ({"/cents": {"in": []}}, "/when/~1cents/in", "a list"),
        ({"/cents": {"in": "EUR"}}, "/when/~1cents/in", "a list"),
        ({"/cents": {"in": [1] * (MAX_VALUES + 1)}}, "/when/~1cents/in", "a list"),
        ({"/cents": {"not_in": [float("inf")]}}, "/when/~1cents/not_in", "a list"),
        ({"/cents": {"eq": float("nan")}}, "/when/~1cents/eq", "JSON value"),
        ({"/path": {"glob": ""}}, "/when/~1path/glob", "a text"),
        ({"/path": {"prefix": "a" * (MAX_TEXT + 1)}}, "/when/~1path/prefix", "a text"),
        ({"/path": {"suffix": 1}}, "/when/~1path/suffix", "a text"),
        ({"/path": {"exists": 1}}, "/when/~1path/exists", "true or false"),
    ],
)
def test_wrong_conditions_are_named(conditions: Any, pointer: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as raised:
        check(conditions)
    assert [error.pointer for error in raised.value.errors] == [pointer]


def test_the_place_of_the_conditions_is_the_callers() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        check({"/a": {"b": 1}}, "/remember/when")
    assert raised.value.errors[0].pointer == "/remember/when/~1a/b"


@given(TEXT, JSON, JSON)
def test_same_is_equivalence_as_json(name: str, one: Any, other: Any) -> None:
    arguments = {name: one}
    place = f"/{escape(name)}"
    equal = same(one, other)
    assert same(one, json.loads(json.dumps(one)))
    assert same(other, one) is equal
    assert is_pointer(place)
    assert value_at(arguments, place) is one
    assert matches(check({place: {"eq": other}}), arguments) is equal
    assert matches(check({place: {"ne": other}}), arguments) is not equal
    assert matches(check({place: {"in": [other, one]}}), arguments)
    assert matches(check({place: {"not_in": [other]}}), arguments) is not equal


@given(NUMBERS, NUMBERS)
def test_two_numbers_are_less_equal_or_greater(one: float, other: float) -> None:
    holds = {
        operator: matches(check({"/n": {operator: other}}), {"n": one})
        for operator in ("lt", "eq", "gt", "lte", "gte")
    }
    assert [holds["lt"], holds["eq"], holds["gt"]].count(True) == 1
    assert holds["lte"] is not holds["gt"]
    assert holds["gte"] is not holds["lt"]


@given(
    st.dictionaries(
        st.sampled_from(["", "/", "/a", "/a/0", "/a/b", "/~0", "x", "/~"]) | TEXT,
        st.dictionaries(st.sampled_from(OPERATORS) | TEXT, JSON, max_size=3) | JSON,
        max_size=3,
    )
    | JSON,
    st.dictionaries(st.sampled_from(["", "a", "~"]) | TEXT, JSON, max_size=3) | JSON,
)
def test_whatever_passes_matches_or_does_not(conditions: Any, arguments: Any) -> None:
    try:
        check(conditions)
    except InvalidRequestError as error:
        assert error.errors[0].pointer.startswith("/when")  # noqa: PT017 - both ways are right
    else:
        stored = json.loads(json.dumps(conditions))
        assert matches(conditions, arguments) is matches(stored, arguments)
        assert all(isinstance(line, str) for line in in_words(conditions))


@given(st.text(string.ascii_letters + "*?[]!-^\\&~|", min_size=1, max_size=30), TEXT)
def test_any_pattern_is_a_pattern(pattern: str, text: str) -> None:
    assert matches(check({"/t": {"glob": pattern}}), {"t": text}) in (True, False)


def test_a_missing_place_is_none_of_the_values_json_has() -> None:
    assert not MISSING
    assert repr(value_at({"a": 1}, "/b")) == "MISSING"


def test_a_line_is_a_condition() -> None:
    lines = [
        "/cents lte 5000",
        "/cents  gt  0",
        "/currency in EUR,CHF",
        '/to/name not_in ["Eve, M.", "x"]',
        "/path glob /srv/*.csv",
        "/note eq null",
        '/zip eq "1010"',
        "/a b exists false",
        'eq {"a": 1}',
    ]
    conditions = parse(lines)
    assert conditions == {
        "/cents": {"lte": 5000, "gt": 0},
        "/currency": {"in": ["EUR", "CHF"]},
        "/to/name": {"not_in": ["Eve, M.", "x"]},
        "/path": {"glob": "/srv/*.csv"},
        "/note": {"eq": None},
        "/zip": {"eq": "1010"},
        "/a b": {"exists": False},
        "": {"eq": {"a": 1}},
    }
    assert parse(in_words(conditions)) == conditions


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["/cents"], "is no condition"),
        (["/cents lte"], "is no condition"),
        (["cents lte 5"], "is no condition"),
        (["/cents under 5"], "is no condition"),
        (["/cents lte 5", "/cents lte 6"], "twice"),
        (["/cents lte true"], "a number"),
        (["/cents exists maybe"], "true or false"),
    ],
)
def test_a_line_that_is_none_is_named(lines: list[str], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        parse(lines)

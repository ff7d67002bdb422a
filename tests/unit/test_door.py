"""What is refused before it comes in: bodies, and requests of strangers' pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.web.limits import MAX_DEPTH, find_refused, parse
from perdure.web.loopback import is_loopback

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
TAKEN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
REFUSED = st.sampled_from(["\0", "a\0b", "\ud800", "x\udfff", 2**63, -(2**63) - 1, 10**400])


def refusal(body: bytes) -> dict[str, Any]:
    response = parse(body)[1]
    assert response is not None
    content: dict[str, Any] = json.loads(bytes(response.body))
    assert content["status"] == response.status_code
    return content


@given(TAKEN, st.booleans())
def test_json_is_taken_as_it_is(value: Any, ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii).encode()) == (value, None)


@given(TAKEN, REFUSED, st.lists(st.one_of(TEXT, st.none()), max_size=5))
def test_what_is_refused_is_found_wherever_it_is(
    beside: Any, bad: Any, path: list[str | None]
) -> None:
    value, pointer = bad, ""
    for name in reversed(path):
        if name is None:
            value, pointer = [beside, value], "/1" + pointer
        else:
            # The other member must not push the bad one out.
            other = name + "'"
            value = {other: beside, name: value}
            pointer = "/" + name.replace("~", "~0").replace("/", "~1") + pointer
    found = refusal(json.dumps(value).encode())
    assert (found["status"], found["code"]) == (422, "validation_error")
    assert [error["pointer"] for error in found["errors"]] == [pointer]


@pytest.mark.parametrize("name", ["a\0", "\udead"])
def test_names_are_looked_at_too(name: str) -> None:
    found = refusal(json.dumps({"x": {name: 1}}).encode())
    assert found["code"] == "validation_error"
    assert found["errors"][0]["pointer"].startswith("/x/")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+400"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    found = refusal(f'{{"a": [0, {number}]}}'.encode())
    assert (found["code"], found["errors"][0]["pointer"]) == ("validation_error", "/a/1")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_ends_at_the_limit(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "null" + closing * depth).encode()

    assert parse(nested(MAX_DEPTH))[1] is None
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        assert refusal(nested(depth))["code"] == "validation_error"


def test_an_empty_container_counts_as_a_level() -> None:
    assert find_refused(json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)) is None
    assert find_refused(json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))) is not None


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"{'a': 1}", b'{"a": 1}}', b'"\xff"', b'{"a": "\n"}', '"é"'.encode("utf-16")],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    found = refusal(body)
    assert (found["status"], found["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8484", "127.0.0.1", "127.0.0.1:1", "127.8.8.8", "[::1]:80"]
)
def test_hosts_that_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
        "0.0.0.0",  # noqa: S104
        "[::]",
        "127.0.0.1@example.com",
        "example.com@127.0.0.1",
        "localhost:port",
        "localhost/../example.com",
        "2130706433",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    assert not is_loopback(host)

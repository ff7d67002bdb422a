"""The tree of exceptions."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import UTC, datetime

import pytest

from perdure import errors
from perdure.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    ExpiredError,
    Fenced,
    FieldError,
    GoneError,
    IdempotencyConflictError,
    InvalidRequestError,
    InvalidStateError,
    LedgerUnavailable,
    NotFoundError,
    NotSupportedError,
    PerdureError,
    StopSegment,
    UnavailableError,
    Uncertain,
)

ALL = [value for value in map(errors.__dict__.get, errors.__all__) if isinstance(value, type)]

EXAMPLES: list[BaseException] = [
    PerdureError("It broke."),
    InvalidRequestError("Two fields are wrong.", [FieldError("/a", "x"), FieldError("/b", "y")]),
    NotSupportedError.at("/priority", "is not supported yet"),
    NotFoundError("run", "r1"),
    InvalidStateError("run", "r1", status="completed", action="cancelled", hint="Fork it."),
    AlreadyDecidedError("i1", status="approved", recorded={"decision": "approve"}),
    DigestMismatchError("i1", given="sha256:0", current="sha256:1"),
    ExpiredError("i1", datetime(2026, 1, 2, tzinfo=UTC)),
    IdempotencyConflictError("k"),
    GoneError("run", "r1"),
    UnavailableError("No database.", retry_after=3),
    Fenced("r1", epoch=4),
    LedgerUnavailable("r1", doing="recording a reply"),
    Uncertain("r1", call_ids=["c1", "c2"]),
]


def test_the_docstring_draws_the_tree_there_is() -> None:
    drawn = {}
    depth_of = {"*": 0, "x": 1, "+": 2}
    path: list[str] = []
    for bullet, name in re.findall(r"^ *([*x+]) (\w+)", errors.__doc__ or "", re.MULTILINE):
        path = [*path[: depth_of[bullet]], name]
        drawn[name] = path[-2] if len(path) > 1 else None
    real = {}
    for cls in ALL:
        if issubclass(cls, BaseException):
            parent = next(base for base in cls.__mro__[1:] if base.__name__ != "_Portable")
            real[cls.__name__] = parent.__name__ if parent in ALL else None
    assert drawn == real


def test_what_stops_a_segment_passes_except_exception() -> None:
    assert not issubclass(StopSegment, Exception)
    for cls in (Fenced, LedgerUnavailable, Uncertain):
        assert issubclass(cls, StopSegment)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_survives_a_pickle_and_a_copy(error: BaseException) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_messages_name_the_object_and_what_to_do() -> None:
    assert str(NotFoundError("run", "r1")) == (
        "There is no run r1 here. Check the id and the key you are using."
    )
    assert str(EXAMPLES[4]) == "run r1 is completed and cannot be cancelled. Fork it."
    assert "expired at 2026-01-02T00:00:00+00:00" in str(EXAMPLES[7])
    assert "c1, c2" in str(EXAMPLES[-1])


def test_one_wrong_field() -> None:
    error = NotSupportedError.at("/priority", "is not supported yet")
    assert type(error) is NotSupportedError
    assert error.errors == (FieldError("/priority", "is not supported yet"),)
    assert error.message == "/priority: is not supported yet"
    assert InvalidRequestError.at("", "has to be an object").message.startswith("the body: ")


def test_codes_are_those_of_the_contract() -> None:
    codes = {cls.code for cls in ALL if issubclass(cls, PerdureError)}
    assert codes >= {
        "validation_error", "not_supported", "unauthorized", "forbidden", "not_found",
        "already_decided", "digest_mismatch", "expired", "invalid_state",
        "idempotency_conflict", "unavailable",
    }  # fmt: skip

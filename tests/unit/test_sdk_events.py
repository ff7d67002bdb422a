"""The log told in the SDK's stream events: replies that die, are thinned away or come whole."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from agents import Agent

from perdure.events import Event
from perdure.ledger.journal import RecordedReply
from perdure.runs.sdk_streaming.events import Recorded, Telling
from tests.sdk_stream_support import seen

_REPLY = str(uuid4())
_USAGE = (
    *("requests", "input_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)


def _log(*told: tuple[str, dict[str, Any]], skip: frozenset[int] = frozenset()) -> list[Event]:
    """Events with numbers from 1 on, without those of ``skip``: they are thinned away."""
    about = {"model_response_id": _REPLY, "attempt": 1, "agent": "a", "scope": "", "model": "m"}
    return [
        Event(number, kind, "run", "2026-01-01T00:00:00.000000Z", {**about, **data})
        for number, (kind, data) in enumerate(told, 1)
        if number not in skip
    ]


def _delta(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("model.delta", {"type": "text", "index": 0, "delta": text, **more})


def _recorded(*output: dict[str, Any]) -> Recorded:
    usage = {**dict.fromkeys(_USAGE, 1), "total_tokens": 5}
    reply = RecordedReply(uuid4(), "", "a", "", "resp", None, list(output), usage)
    return Recorded(replies={_REPLY: reply})


def _said(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def _told(log: list[Event], rows: Recorded, after: int = 0) -> list[tuple[str, ...]]:
    telling = Telling({"a": Agent(name="a")}, after)
    return [seen(one) for event in log for one in telling.tell(event, rows) if event.id > after]


def _deltas(told: list[tuple[str, ...]]) -> list[str]:
    return [one[2] for one in told if one[0].endswith(".delta")]


STARTED: tuple[str, dict[str, Any]] = ("model.started", {})
COMPLETED: tuple[str, dict[str, Any]] = ("model.completed", {})


def test_a_dead_attempt_is_void_and_the_next_one_begins_anew() -> None:
    log = _log(
        STARTED,
        _delta("Hel"),
        ("model.superseded", {"reason": "death"}),
        ("model.started", {"attempt": 2}),
        _delta("Good ", attempt=2),
        _delta("day", attempt=2),
        ("model.completed", {"attempt": 2}),
    )
    told = _told(log, _recorded(_said("Good day")))
    names = [one[0] for one in told]
    assert names.count("response.created") == 2
    void = told.index(("superseded", "death"))
    assert _deltas(told[:void]) == ["Hel"]
    assert _deltas(told[void:]) == ["Good ", "day"]
    assert told[void + 2][0] == "response.output_item.added"
    assert told[-1] == ("message_output_created", "message_output_item", "a", "Good day")


def test_a_text_whose_deltas_are_gone_is_given_once() -> None:
    whole = _log(STARTED, _delta("One "), _delta("two "), _delta("three"), COMPLETED)
    rows = _recorded(_said("One two three"))
    assert _deltas(_told(whole, rows)) == ["One ", "two ", "three"]

    # Late: in one.
    thinned = _log(*_as_told(whole), skip=frozenset({2, 3, 4}))
    assert _deltas(_told(thinned, rows)) == ["One two three"]
    # Of an old run that told nothing but the end, too.
    assert _deltas(_told(_log(COMPLETED), rows)) == ["One two three"]

    # Back behind the second delta, in time and too late: then all that was given is void.
    assert _deltas(_told(whole, rows, after=3)) == ["three"]
    back = _told(thinned, rows, after=3)
    assert back[0] == ("superseded", "thinned")
    assert back[1][0] == "response.created"
    assert _deltas(back) == ["One two three"]
    # Back behind the beginning, with nothing given yet, nothing is void.
    assert ("superseded", "thinned") not in _told(thinned, rows, after=1)
    # Some are left: what is missing at the end is added.
    partly = _log(*_as_told(whole), skip=frozenset({4}))
    assert _deltas(_told(partly, rows)) == ["One ", "two ", "three"]


def _as_told(log: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(one.event, one.data) for one in log]


def test_what_was_dropped_is_in_what_is_whole() -> None:
    log = _log(STARTED, _delta("One "), _delta("three", dropped=4), COMPLETED)
    told = _told(log, _recorded(_said("One two three")))
    assert _deltas(told) == ["One ", "three"]
    [done] = [one for one in told if one[0] == "response.output_text.done"]
    assert done[2] == "One two three"


def test_items_of_all_kinds_come_and_nested_ones_stay_out() -> None:
    refusal = {**_said(""), "content": [{"type": "refusal", "refusal": "No."}]}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    thought = {"type": "reasoning", "id": "rs", "summary": []}
    patch = {"type": "custom_tool_call", "call_id": "c9", "name": "patch", "input": "x = 1"}
    log = _log(
        STARTED,
        ("model.delta", {"type": "arguments", "index": 3, "delta": "x = 1", "tool": "patch"}),
        ("model.delta", {"type": "refusal", "index": 1, "delta": "No."}),
        ("model.delta", {"type": "of a later version", "index": 0, "delta": "?"}),
        _delta("not for the top", scope="c1"),
        COMPLETED,
    )
    told = _told(log, _recorded(thought, refusal, search, patch))
    assert _deltas(told) == ["x = 1", "No."]
    assert [one[0] for one in told if not one[0].startswith("response.")] == [
        "reasoning_item_created",
        "message_output_created",
        "tool_called",
        "tool_called",
    ]
    for name in ("added", "done"):
        indexes = [one[1] for one in told if one[0] == f"response.output_item.{name}"]
        assert sorted(indexes) == ["0", "1", "2", "3"]
    assert "response.reasoning_summary_text.done" not in {one[0] for one in told}

"""What ``perdure runs tail`` shows: text that grows, on a terminal and in a pipe, told once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from perdure.cli import tail
from perdure.cli.live import Lines, Live, Terminal
from perdure.cli.told import Told
from perdure.visible import visible

HEAD = "12:00:00 a: "
_PIECES = st.lists(
    st.text(st.sampled_from("ab \n\t\x1b\r\u202e你é") | st.characters(), max_size=40)
)


class _Screen(StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def _terminal(**environment: str) -> Iterator[StringIO]:
    env = {"COLUMNS": "40", "TERM": "xterm", "NO_COLOR": "", **environment}
    with patch.dict("os.environ", env), patch("sys.stdout", _Screen()) as screen:
        yield screen


@contextmanager
def _pipe() -> Iterator[StringIO]:
    with patch("sys.stdout", StringIO()) as stream:
        yield stream


@given(_PIECES)
def test_nothing_a_model_says_stands_at_the_margin(pieces: list[str]) -> None:
    with _terminal() as screen:
        live = Terminal()
        for piece in pieces:
            live.say(HEAD, piece)
        live.end()
    said = visible("".join(pieces))
    first, *others = screen.getvalue().split("\n")
    if pieces:
        assert first.startswith(HEAD)
        assert others.pop() == ""
    assert all(line.startswith(" " * 9) for line in others)
    shown = screen.getvalue().removeprefix(HEAD)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", said)
    assert all(cell_len(line) < 40 for line in (first, *others))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)


@given(_PIECES)
def test_in_a_pipe_it_makes_no_difference_how_a_text_was_cut(pieces: list[str]) -> None:
    with _pipe() as stream:
        live = Lines()
        for piece in pieces:
            live.say(HEAD, piece)
            assert stream.getvalue() in ("", *_whole_lines(stream.getvalue()))
        live.end()
    whole = visible("".join(pieces))
    lines = (whole.removesuffix("\n")).split("\n")
    expected = "".join(f"{' ' * 9 if n else HEAD}{line}\n" for n, line in enumerate(lines))
    assert stream.getvalue() == (expected if whole else "")


def _whole_lines(text: str) -> list[str]:
    return [text] if text.endswith("\n") else []


def test_what_comes_between_splits_no_word() -> None:
    with _pipe() as stream:
        live = Lines()
        live.say(HEAD, "one two thr")
        live.line("12:00:01 ", "bob adds: hurry")
        live.say(HEAD, "ee four")
        live.end()
    assert stream.getvalue().splitlines() == [
        f"{HEAD}one two",
        "12:00:01 bob adds: hurry",
        f"{HEAD}three four",
    ]
    with _terminal() as screen:
        terminal = Terminal()
        terminal.say(HEAD, "one two thr", "dim")
        terminal.line("12:00:01 ", "bob adds: hurry", "red")
        terminal.say(HEAD, "ee four", "dim")
        terminal.end()
    assert re.sub("\x1b\\[[0-9;]*m", "", screen.getvalue()).splitlines() == [
        f"{HEAD}one two ",
        "12:00:01 bob adds: hurry",
        f"{HEAD}three four",
    ]
    assert "\x1b[31m12:00:01 bob adds: hurry\x1b[0m" in screen.getvalue()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_nothing_but_text_is_written(environment: dict[str, str]) -> None:
    with _terminal(**environment) as screen:
        live = Terminal()
        live.say(HEAD, "one two", "dim")
        live.command("perdure approve x")
    assert screen.getvalue() == f"{HEAD}one \n         perdure approve x\n"


def _log(*told: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    about = {"model_response_id": "r", "attempt": 1, "agent": "a", "scope": ""}
    return [
        {"event": kind, "created_at": "2026-01-01T12:00:00Z", **about, **data}
        for kind, data in told
    ]


def _delta(delta: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("model.delta", {"type": "text", "index": 0, "delta": delta, **more})


def _completed(text: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("model.completed", {"usage": {"total_tokens": 1500}, "text": text, **more})


def _told(make: Callable[[], Live], *log: tuple[str, dict[str, Any]], whole: bool = True) -> Any:
    with _pipe() as stream:
        told = Told(make(), whole=whole)
        for event in _log(*log):
            told.tell(event)
        told.live.end()
    return told, [line[9:] for line in stream.getvalue().splitlines()]


_WHOLE = "One two three"


@pytest.mark.parametrize(
    ("deltas", "shown"),
    [
        ([_delta("One "), _delta("two "), _delta("three")], "One two three"),
        # Thinned away, all or some.
        ([], "One two three"),
        ([_delta("One ")], "One two three"),
        # Dropped on the way, in the middle and at the end.
        ([_delta("One "), _delta("three", dropped=4)], "One [… 4 characters are missing] three"),
        ([_delta("One "), _delta("", dropped=1200)], "One two three"),
        # A worker died in it.
        (
            [
                _delta("Once "),
                ("model.superseded", {"reason": "death"}),
                _delta("One ", model_response_id="s"),
            ],
            "One two three",
        ),
    ],
)
def test_a_reply_is_shown_once_and_whole(deltas: list[Any], shown: str) -> None:
    last = {"model_response_id": deltas[-1][1].get("model_response_id", "r")} if deltas else {}
    told, lines = _told(Lines, ("model.started", {}), *deltas, _completed(_WHOLE, **last))
    assert [line for line in lines if "begins anew" not in line] == [
        f"a: {shown}",
        "a: turn 1, 1,500 tokens, 0 s",
    ]
    assert told.has_said(_WHOLE) == (shown == _WHOLE)
    assert not told.has_said({"one": 2})


def test_what_a_reply_is_that_says_nothing() -> None:
    nested = {"scope": "c1", "tool": "find", "call_id": "f1", "attempt": 1, "arguments": "{}"}
    asking = {"tool": "ask", "call_id": "c1", "attempt": 1, "arguments": "{}"}
    told, lines = _told(
        Lines,
        ("model.delta", {"type": "arguments", "index": 0, "delta": "{}"}),
        _completed(""),
        ("tool.started", asking),
        _delta("hidden", scope="c1"),
        ("tool.started", nested),
        whole=False,
    )
    assert lines == ["a: the model replied (1,500 tokens)", "ask({})", "ask > find({})"]
    assert told.doing == "ask, find"
    assert not told.has_said("")
    told, lines = _told(Lines, _delta('{"a": 1}'), _completed('{"a": 1}'))
    assert told.has_said({"a": 1})


def test_silence_is_spoken_of_less_and_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 0.0
    monkeypatch.setattr("perdure.cli.tail.time.monotonic", lambda: clock)
    followed = tail._Followed(as_json=False, after=0)

    def hear(*told: tuple[str, dict[str, Any]]) -> None:
        for event in _log(*told):
            followed.take({"id": 1, **event})
        capsys.readouterr()

    def heartbeats(seconds: int) -> list[str]:
        nonlocal clock
        for _ in range(seconds // 15):
            clock += 15
            followed.take(None)
        return capsys.readouterr().err.splitlines()

    hear(("tool.started", {"tool": "dig", "call_id": "c", "arguments": "{}"}))
    assert heartbeats(1200) == [
        f"Nothing new for {silence}: dig is at it."
        for silence in (
            *("30 s", "1 min 0 s", "2 min 0 s", "5 min 0 s"),
            *("10 min 0 s", "15 min 0 s", "20 min 0 s"),
        )
    ]
    hear(("tool.completed", {"tool": "dig", "call_id": "c"}))
    assert heartbeats(30) == ["Nothing new for 30 s: the run is at it."]
    # Who waits for people says so, once.
    hear(("run.interrupted", {}))
    assert heartbeats(600) == []

"""What is printed cannot deceive a terminal."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.cli.output import (
    ago,
    one_line,
    print_fields,
    print_table,
    shortened,
    to_json,
    visible,
)
from perdure.cli.runs_shown import evidence_text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mgone", r"\x1b[2J\x1b[31mgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("10\r99", r"10\r99"),
        ("\x08\x08\x7f", r"\x08\x08\x7f"),
        ("pay \u202e001\u202c", r"pay \u202e001\u202c"),
        ("in\u200bvisible\ufeff", r"in\u200bvisible\ufeff"),
        ("\U000e0041tag", r"\U000e0041tag"),
        ("\ud800 alone", r"\ud800 alone"),
        ("\0", r"\x00"),
    ],
)
def test_characters_that_deceive_are_shown_as_their_codes(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Grüße, 你好, 👋🏽\n\tnext line"

    assert visible(text) == text
    assert one_line(text) == r"Grüße, 你好, 👋🏽\n\tnext line"


@given(st.text(st.characters(), max_size=50))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    for character in visible(text):
        assert (
            unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") or character in "\n\t"
        )
    assert "\n" not in one_line(text)


@given(st.text(st.characters(), max_size=50))
def test_json_says_the_same_and_can_be_shown(text: str) -> None:
    document = to_json({text: [text, 1, None]}, indent=2)

    assert json.loads(document) == {text: [text, 1, None]}
    assert visible(document) == document


def test_a_text_is_cut_with_an_ellipsis() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"


def test_a_table_in_a_pipe_is_columns_that_are_never_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(["id", "name", "text"], [["1", "longer", "x" * 300], ["22", "b", "\x1b[31m\n"]])

    assert capsys.readouterr().out.splitlines() == [
        "ID  NAME    TEXT",
        f"1   longer  {'x' * 300}",
        r"22  b       \x1b[31m\n",
    ]


def test_wide_characters_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["你好", "x"], ["abcd", "y"]])

    assert capsys.readouterr().out.splitlines() == ["A     B", "你好  x", "abcd  y"]


def test_fields_are_aligned_and_none_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"run": "1", "output": "two\nlines", "error": None})

    assert capsys.readouterr().out == "run     1\noutput  two\n        lines\n"


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        ("2026-11-22T11:59:48Z", "12 s"),
        ("2026-11-22T11:55:00Z", "5 min"),
        ("2026-11-22T09:00:00+00:00", "3 h"),
        ("2026-11-20T11:00:00Z", "2 d"),
        ("2026-11-22T12:00:30Z", "0 s"),
        (None, "-"),
    ],
)
def test_ages(then: str | None, shown: str) -> None:
    assert ago(then, now=datetime(2026, 11, 22, 12, tzinfo=UTC)) == shown


def test_what_became_known_of_a_call_is_one_line() -> None:
    known: dict[str, Any] = {
        "kind": "late_outcome",
        "status": "succeeded",
        "output": {"id": 7},
        "error": None,
    }
    assert evidence_text(known) == 'the earlier process reported later: succeeded ({"id": 7})'
    known = {"kind": "probe", "status": "not_done", "output": None, "error": None}
    assert evidence_text(known) == "its probe: not done"
    known = {"kind": "probe", "status": "unknown", "output": None, "error": {"message": "x" * 500}}
    assert len(evidence_text(known)) < 230

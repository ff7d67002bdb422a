"""States cut into parts: whole again they are the text they were, and what repeats stands once."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import jsonsafe
from perdure.runs.parts import CutState, Parts

CALL = UUID("01900000-0000-7000-8000-000000000001")

# What a reference is written with, what jsonsafe escapes, and what JSON does.
_TEXTS = st.text(st.sampled_from('\ue000:0123-"#\\,{}[] e\x00é😀\ud800\udc00'), max_size=90)
_WORDS = st.sampled_from(["a" * 70, "é" * 64, '"\ue000:0"', "\ue000#", "type", "", "\x00" * 64])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS
    | _WORDS,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(_TEXTS | _WORDS, inner, max_size=20)
        | st.lists(_WORDS, min_size=1, max_size=2).map(lambda some: some * 40)
    ),
    max_leaves=20,
)


class _Stored:
    """What is kept of the states of a run, and an execution that goes on with it."""

    def __init__(self) -> None:
        self.cuts: list[CutState] = []
        self.texts: list[str] = []
        self.parts = Parts()

    def write(self, state: Any) -> CutState:
        """Cut a state and keep it."""
        cut = self.parts.cut(state)
        assert cut.first_part == len(self.texts)
        self.cuts.append(cut)
        self.texts += cut.unquoted()
        return cut

    def begin_again(self) -> str:
        """Go on from the last state, as another execution; returns it whole."""
        self.parts = Parts(len(self.texts))
        return self.parts.whole(self.cuts[-1].body, self.texts)


@settings(max_examples=150, deadline=None)
@given(st.lists(_VALUES, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_each_state_is_whole_again_letter_by_letter(states: list[Any], again: list[bool]) -> None:
    stored = _Stored()
    for state, anew in zip(states, again, strict=False):
        stored.write({"one": state, "two": [state]})
        if anew:
            stored.begin_again()
    for state, cut in zip(states, stored.cuts, strict=True):
        text = Parts().whole(cut.body, stored.texts)
        assert text == jsonsafe.dumps_readable({"one": state, "two": [state]})
        assert len(text.encode()) == cut.size_bytes
        assert jsonsafe.loads(text) == json.loads(json.dumps({"one": state, "two": [state]}))


@pytest.mark.parametrize("again", [False, True])
def test_a_state_of_a_long_run_takes_no_more_than_one_of_a_short_run(again: bool) -> None:
    stored, sizes = _Stored(), []
    state: dict[str, Any] = {"items": [], "kept": [], "calls": {}, "of": {"deep": {"in": []}}}
    for n in range(600):
        output = {"type": "output", "call": f"call_{n:05}", "output": f"{n:05}" * 50}
        state["items"] = [*state["items"], output]
        # The last of these is another in the next state.
        state["kept"] = [*state["kept"][:-1], output, {"type": "asked", "call": f"call_{n:05}"}]
        state["calls"] = {**state["calls"], f"call_{n:05}": "done"}
        state["of"] = {"deep": {"in": [*state["of"]["deep"]["in"], n]}}
        cut = stored.write(state)
        sizes.append(len(cut.body.encode()) + sum(len(part.encode()) for part in cut.parts))
        if again and n % 10 == 0:
            assert jsonsafe.loads(stored.begin_again()) == state
    first, last = sum(sizes[100:200]) / 100, sum(sizes[500:]) / 100
    assert last < 1.3 * first
    assert first < 900


def test_what_a_tool_returned_is_left_to_its_row() -> None:
    parts = Parts()
    said = 'it said "\ue000:0" \x00 ' + "é" * 60
    parts.may_quote(said, CALL)
    parts.may_quote("short", CALL)
    cut = parts.cut({"items": [{"output": said, "raw": {"output": said}}], "short": "short"})
    assert [part for part in cut.parts if part.startswith("\ue000#")] == [f"\ue000#{CALL}"]
    [quote] = cut.quotes
    assert (quote.call_id, cut.parts[quote.place]) == (CALL, f"\ue000#{CALL}")
    assert jsonsafe.loads(quote.text) == said
    assert cut.unquoted()[quote.place] == quote.text
    again = parts.quote(said, 3)
    assert again is not None
    assert (again.place, again.digest()) == (3, quote.digest())
    assert parts.quote("something else that is long enough to be quoted, were it known", 0) is None
    whole = jsonsafe.dumps_readable({str(CALL): said})
    text = Parts().whole(cut.body, cut.parts, whole)
    assert jsonsafe.loads(text)["items"][0]["raw"] == {"output": said}
    with pytest.raises(LookupError, match="is gone"):
        Parts().whole(cut.body, cut.parts)


def test_what_was_not_stored_is_taken_back() -> None:
    stored = _Stored()
    first = {"items": ["a" * 100]}
    stored.write(first)
    stored.parts.cut({"items": ["a" * 100, "b" * 100]})
    stored.parts.forget_last()
    with pytest.raises(ValueError, match="not JSON compliant"):
        stored.parts.cut({"items": ["b" * 100, float("nan")]})
    second = {"items": ["a" * 100, "b" * 100, "c" * 100]}
    assert len(stored.write(second).parts) == 2
    assert jsonsafe.loads(stored.begin_again()) == second

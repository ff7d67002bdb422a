"""What waits to be written: nothing is lost but what is refused, and the room is given back."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from perdure.ledger import unsent
from perdure.ledger.unsent import Event, Part, Source, Unsent

RUNS = st.sampled_from(["a", "b", "c"])
REPLIES = st.sampled_from("xyz")


class Streaming(RuleBasedStateMachine):
    """Replies of three runs, held against the text that was said and the text that went out."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = Unsent()
        self.flying: list[Part] = []
        self.said: dict[tuple[str, str], str] = defaultdict(str)
        self.out: dict[tuple[str, str], str] = defaultdict(str)

    @rule(run=RUNS, reply=REPLIES, text=st.text(min_size=1, max_size=9))
    def say(self, run: str, reply: str, text: str) -> None:
        assert self.waiting.add(_source(run), "model.delta", {"model_response_id": reply}, text)
        self.said[run, reply] += text

    @rule(held=st.sets(RUNS))
    def take_off(self, held: set[str]) -> None:
        if not self.flying:
            self.flying = list(self.waiting.take(held.__contains__).values())
            assert held.isdisjoint(part.source.run_id for part in self.flying)

    @rule(found_held=st.booleans())
    def land(self, found_held: bool) -> None:
        for part in self.flying:
            if found_held:
                self.waiting.put_back(part)
            else:
                self.waiting.sent(part)
                self._went(part.source.run_id, part.events)
        self.flying = []

    @rule(run=RUNS, reply=REPLIES)
    def end_reply(self, run: str, reply: str) -> None:
        # As a reply takes its own along: what is on its way has landed.
        if not any(part.source.run_id == run for part in self.flying):
            taken = self.waiting.withdraw(
                _source(run), lambda one: one["model_response_id"] == reply
            )
            self._went(run, taken)
            assert self.out[run, reply] == self.said[run, reply]

    def teardown(self) -> None:
        self.land(found_held=True)
        self.take_off(held=set())
        self.land(found_held=False)
        for key, text in self.said.items():
            assert self.out[key] == text
        assert not self.waiting
        assert self.waiting._size == 0

    def _went(self, run: str, events: list[Event]) -> None:
        for one in events:
            data = one.told()["data"]
            self.out[run, data["model_response_id"]] += data["delta"]


TestStreaming = Streaming.TestCase


def _source(run: str) -> Source:
    return Source(run, "t", 1, 1)


def test_there_is_room_for_so_much_and_an_execution_that_was_taken_over_has_none(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(unsent, "MAX_WAITING", 5)
    waiting = Unsent()
    first, second = Source("a", "t", 1, 1), Source("a", "t", 1, 2)
    data = {"model_response_id": "r"}
    assert waiting.add(first, "model.delta", data, "1234")
    assert not waiting.add(first, "model.delta", data, "56")
    assert waiting.add(first, "model.delta", data, "5")
    # Who took over begins with all the room; who comes late is not heard.
    assert waiting.add(second, "model.delta", data, "abcde")
    assert not waiting.add(first, "model.delta", data, "")
    [part] = waiting.take(lambda _: False).values()
    assert [one.told()["data"]["delta"] for one in part.events] == ["abcde"]
    assert not waiting.add(second, "model.delta", data, "f")
    waiting.sent(part)
    assert waiting.add(second, "model.delta", data, "f")

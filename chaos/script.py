"""The work of a run: what its models say, as a function of what they have seen.

``triage`` looks the order up and hands off to ``desk``. ``desk`` first calls four tools at once:
one that takes a key, one that must not happen twice, one within the database, and an agent (which
calls two tools at once itself). Then come one to four turns of three tools at once, a refund that
a person has to approve, and the end. Whoever is tried performs the same script.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Effect = Literal["read", "idempotent", "transactional", "at_most_once", "nested", "handoff"]
Outputs = Mapping[str, str]
"""What calls returned, by call id."""

EFFECTS: dict[str, Effect] = {
    "look_up": "read",
    "notify": "idempotent",
    "search": "idempotent",
    "book": "transactional",
    "ship": "at_most_once",
    "write": "at_most_once",
    "refund": "at_most_once",
    "research": "nested",
    "transfer_to_desk": "handoff",
}
FIRST = "triage"
GATED = frozenset({"refund"})
"""Tools a person has to approve."""


@dataclass(frozen=True)
class Call:
    """A tool call a model asks for; its id is unique within the run."""

    tool: str
    id: str

    @property
    def effect(self) -> Effect:
        """What repeating it would mean."""
        return EFFECTS[self.tool]


@dataclass(frozen=True)
class Reply:
    """What a model says: calls or, without any, a text.

    ``depth`` orders a run's replies: none is asked for before those of a lower depth, which it
    follows from, are known. Its calls have ``depth + 1``.
    """

    depth: int
    calls: tuple[Call, ...] = ()
    text: str = ""


def turns_between(order: str) -> int:
    """Return how many turns an order takes between the first and the refund."""
    return 1 + int(order) % 4


def returned(call: Call, order: str) -> str:
    """Return what a call gives back, whichever attempt of it does."""
    return f"{call.tool} {call.id} of {order}"


def reply(agent: str, order: str, outputs: Outputs) -> Reply:
    """Return what ``agent`` says about ``order`` when it has seen ``outputs``."""
    for one in _replies(agent, order):
        if not one.calls or one.calls[0].id not in outputs:
            if one.calls:
                return one
            said = "; ".join(outputs[key] for key in _told(agent, order))
            return Reply(one.depth, text=said)
    raise AssertionError("the last reply is a text")


def calls_of(order: str) -> dict[str, tuple[Call, int]]:
    """Return every call of a run by id, with its depth."""
    return {
        call.id: (call, one.depth + 1)
        for agent in ("triage", "desk", "researcher")
        for one in _replies(agent, order)
        for call in one.calls
    }


def depths(order: str) -> int:
    """Return how many depths there are: the end of a run has this one."""
    return max(depth for _, depth in calls_of(order).values()) + 2


def expected(order: str) -> str:
    """Return what a run of ``order`` comes to."""
    said = {id: returned(call, order) for id, (call, _) in calls_of(order).items()}
    said["d4"] = reply("researcher", order, said).text
    return reply("desk", order, said).text


def _told(agent: str, order: str) -> list[str]:
    if agent == "researcher":
        return ["s1", "s2"]
    between = [f"x{turn}{which}" for turn in range(turns_between(order)) for which in "abc"]
    return ["d1", "d2", "d3", "d4", *between, "r1"]


def _replies(agent: str, order: str) -> Iterator[Reply]:
    if agent == "triage":
        yield Reply(0, (Call("look_up", "t1"),))
        yield Reply(2, (Call("transfer_to_desk", "t2"),))
    elif agent == "researcher":
        yield Reply(6, (Call("search", "s1"), Call("write", "s2")))
        yield Reply(8)
    else:
        first = (Call("notify", "d1"), Call("ship", "d2"), Call("book", "d3"))
        yield Reply(4, (*first, Call("research", "d4")))
        depth = 10
        for turn in range(turns_between(order)):
            three = (("ship", "a"), ("look_up", "b"), ("notify", "c"))
            yield Reply(depth, tuple(Call(tool, f"x{turn}{which}") for tool, which in three))
            depth += 2
        yield Reply(depth, (Call("refund", "r1"), Call("look_up", "r2")))
        yield Reply(depth + 2)

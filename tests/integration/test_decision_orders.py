"""Decisions in any order, alone and in batches, with mistakes between: they are what runs.

The real runner works through them; what the tools did is held against a model of a few lines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from perdure import Engine, Run, ask_human, tool_call
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    InvalidRequestError,
    InvalidStateError,
)
from perdure.interruptions.rules import Decision
from perdure.runs.resume import decide_all_and_resume
from tests.engine_support import SECONDS, RuleModel, call, outputs_in, query, running

T = TypeVar("T")
KINDS = ("pay", "note", "ask", "nested")
WAYS = {
    "pay": ("approve", "edit", "reject"),
    "note": ("approve", "edit", "reject"),
    "ask": ("answer", "reject"),
    "nested": ("approve", "edit", "reject"),
}


@dataclass(eq=False)
class Asked:
    """One question, as the model of the test knows it."""

    id: str
    digest: str
    kind: str
    call_id: str
    decided: str | None = None


@dataclass(eq=False)
class Parked:
    """A run that waits, and its questions."""

    run: Run
    questions: list[Asked]
    cancelled: bool = False

    @property
    def open(self) -> list[Asked]:
        """What still waits."""
        return [] if self.cancelled else [one for one in self.questions if one.decided is None]


@dataclass(eq=False)
class World:
    """An engine whose tools keep what they did, by run and call: each is to run once at most."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    done: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Do something in the engine's loop."""
        return asyncio.run_coroutine_threadsafe(doing, self.loop).result(SECONDS * 2)


def agent_of(done: dict[tuple[str, str], list[int]]) -> Agent[Any]:
    """An agent that calls what its user names, all at once."""

    def note_down(number: int) -> str:
        one = tool_call()
        done.setdefault((one.run_id, one.call_id), []).append(number)
        return f"did {number}"

    @function_tool(needs_approval=True)
    async def pay(number: int) -> str:
        return note_down(number)

    @function_tool(needs_approval=True)
    def note(number: int) -> str:
        return note_down(number)

    def rule(items: list[Any]) -> Any:
        if outputs_in(items):
            said = json.dumps(outputs_in(items), sort_keys=True)
            return [assistant_message(said)]
        asked = []
        for n, kind in json.loads(items[0]["content"]):
            if kind == "ask":
                asked.append(call("ask_human", f"{kind}{n}", question=f"number {n}?"))
            elif kind == "nested":
                # The SDK takes no two calls of one id that wait at once.
                asked.append(call("sub", f"sub{n}", input=json.dumps([(n + 100, "pay")])))
            else:
                asked.append(call(kind, f"{kind}{n}", number=n))
        return asked

    sub = Agent(name="sub", model=RuleModel(rule), tools=[pay]).as_tool("sub", "")
    return Agent(name="a", model=RuleModel(rule), tools=[pay, note, ask_human, sub])


class Orders(RuleBasedStateMachine):
    """Any order of starts, decisions, mistakes and cancellations."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.parked: list[Parked] = []

    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    def start(self, kinds: list[str]) -> None:
        """Start a run and wait until it asks."""
        engine = self.world.engine

        async def start() -> Run:
            asked = json.dumps(list(enumerate(kinds)))
            return await (await engine.start("a", asked)).wait(SECONDS)

        run = self.world.wait(start())
        assert len(run.interruptions) == len(kinds)
        questions = []
        for one in run.interruptions:
            kind = "nested" if one.agent == "sub" else one.tool["call_id"].rstrip("0123456789")
            call_id = one.tool["call_id"]
            questions.append(Asked(one.id, one.digest, kind, call_id))
        self.parked.append(Parked(run, questions))

    def _pick(self, data: st.DataObject) -> tuple[Parked, Asked]:
        waiting = [one for one in self.parked if one.open]
        parked = data.draw(st.sampled_from(waiting))
        return parked, data.draw(st.sampled_from(parked.open))

    def _decision(self, data: st.DataObject, asked: Asked) -> tuple[str, dict[str, Any]]:
        way = data.draw(st.sampled_from(WAYS[asked.kind]))
        fields: dict[str, Any] = {"decision": way}
        if way in ("approve", "edit"):
            fields = {"decision": "approve", "digest": asked.digest}
        if way == "edit":
            fields["arguments"] = {"number": 1000}
        if way == "answer":
            fields["answer"] = "seven"
        return way, fields

    @precondition(lambda self: any(one.open for one in self.parked))
    @rule(data=st.data())
    def decide(self, data: st.DataObject) -> None:
        """Decide one."""
        _, asked = self._pick(data)
        way, fields = self._decision(data, asked)
        self.world.wait(self.world.engine.decide(asked.id, **fields))
        asked.decided = way

    @precondition(lambda self: any(one.open for one in self.parked))
    @rule(data=st.data(), broken=st.booleans())
    def decide_in_a_batch(self, data: st.DataObject, broken: bool) -> None:
        """Decide several, of several runs; if one is wrong, none counts."""
        every = [asked for one in self.parked for asked in one.open]
        chosen = data.draw(
            st.lists(st.sampled_from(every), min_size=1, max_size=5, unique_by=lambda one: one.id)
        )
        ways = [self._decision(data, asked) for asked in chosen]
        decisions = [
            (UUID(asked.id), Decision(**fields))
            for asked, (_, fields) in zip(chosen, ways, strict=True)
        ]
        if broken:
            wrong = Decision("resolve", outcome="done")
            decisions.append((decisions.pop()[0], wrong))

        async def decide() -> None:
            async with self.world.engine.pool.connection() as conn:
                await decide_all_and_resume(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    decisions=decisions,
                    by=program_principal("somebody"),
                )

        if broken:
            with pytest.raises(InvalidRequestError):
                self.world.wait(decide())
            return
        self.world.wait(decide())
        for asked, (way, _) in zip(chosen, ways, strict=True):
            asked.decided = way

    @precondition(lambda self: any(one.open for one in self.parked))
    @rule(data=st.data())
    def decide_on_something_else(self, data: st.DataObject) -> None:
        """Approve what was not shown, or with what does not fit: nothing happens."""
        _, asked = self._pick(data)
        decide = self.world.engine.decide
        if asked.kind == "ask":
            with pytest.raises(InvalidRequestError):
                self.world.wait(decide(asked.id, "approve", digest=asked.digest))
            return
        with pytest.raises(DigestMismatchError):
            self.world.wait(decide(asked.id, "approve", digest="sha256:" + "1" * 64))
        with pytest.raises(InvalidRequestError):
            self.world.wait(
                decide(asked.id, "approve", digest=asked.digest, arguments={"number": "many"})
            )

    @precondition(lambda self: any(a.decided for one in self.parked for a in one.questions))
    @rule(data=st.data())
    def decide_again(self, data: st.DataObject) -> None:
        """Somebody was first."""
        decided = [(one, a) for one in self.parked for a in one.questions if a.decided]
        parked, asked = data.draw(st.sampled_from(decided))
        _, fields = self._decision(data, asked)
        fields.pop("arguments", None)
        with pytest.raises(AlreadyDecidedError) as refused:
            self.world.wait(self.world.engine.decide(asked.id, **fields))
        recorded = "approve" if asked.decided == "edit" else asked.decided
        assert refused.value.recorded is not None
        assert refused.value.recorded["decision"] == recorded
        assert parked is not None

    @precondition(lambda self: any(one.open for one in self.parked))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Give a run up that waits."""
        parked, asked = self._pick(data)
        self.world.wait(self.world.engine.cancel(parked.run.id))
        parked.cancelled = True
        with pytest.raises(InvalidStateError):
            self.world.wait(self.world.engine.decide(asked.id, "reject"))

    def teardown(self) -> None:
        """Reject what is left, and look at what was done."""
        for parked in self.parked:
            for asked in parked.open:
                self.world.wait(self.world.engine.decide(asked.id, "reject"))
                asked.decided = "reject"
            run = self.world.wait(parked.run.wait(SECONDS))
            self._check(parked, run)

    def _check(self, parked: Parked, run: Run) -> None:
        done = {key: numbers for key, numbers in self.world.done.items() if key[0] == run.id}
        if parked.cancelled:
            assert (run.status, done) == ("cancelled", {})
            return
        assert (run.status, run.error) == ("completed", None)
        expected: dict[tuple[str, str], list[int]] = {}
        for asked in parked.questions:
            number = int(asked.call_id[len(asked.call_id.rstrip("0123456789")) :])
            if asked.decided in ("approve", "edit"):
                did = 1000 if asked.decided == "edit" else number
                expected.setdefault((run.id, asked.call_id), []).append(did)
        assert {key: sorted(n) for key, n in done.items()} == {
            key: sorted(n) for key, n in expected.items()
        }
        segments = self.world.wait(
            query(
                self.world.engine,
                "SELECT count(*) AS n FROM perdure.segments WHERE run_id = %s",
                run.id,
            )
        )
        # However many decided, and in how many steps: it went on once.
        assert segments == [{"n": 2}]


async def test_what_runs_is_what_was_decided_in_any_order(database_url: str) -> None:
    done: dict[tuple[str, str], list[int]] = {}
    async with running(database_url, agent_of(done)) as engine:
        world = World(engine, asyncio.get_running_loop(), done)
        few = settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        machine: Any = partial(Orders, world)
        await asyncio.to_thread(run_state_machine_as_test, machine, settings=few)

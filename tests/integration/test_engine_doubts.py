"""Calls of which nobody knows whether they happened: what is made of them, and who is asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    LocalShellTool,
    ShellTool,
    function_tool,
)
from dbos import DBOS
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall
from pydantic import BaseModel

from perdure import Done, Engine, effect, tool_call
from perdure.access.principals import DEFAULT_TENANT
from perdure.engine import Run
from perdure.errors import ConfigurationError
from perdure.ledger.effects import EffectName
from perdure.ledger.writer import LedgerWriter
from perdure.runs.resume import retry
from tests.engine_support import (
    SECONDS,
    Gate,
    call,
    calls_of,
    error_of,
    eventually,
    other_worker,
    outputs_in,
    query,
    rested,
    running,
    turns,
)
from tests.integration.test_engine_recovery import take_over


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made again at once."""
    monkeypatch.setattr("perdure.runs.attempts.AGAIN_AFTER_SECONDS", (0.0, 0.0))


class Charges:
    """What the tools of a test did: attempt and key of each call, by tool."""

    def __init__(self) -> None:
        self.made: dict[str, list[tuple[int, str]]] = {}

    def note(self, name: str) -> int:
        """Note a call of ``name`` and return its attempt."""
        known = tool_call()
        self.made.setdefault(name, []).append((known.attempt, known.idempotency_key))
        return known.attempt

    def attempts(self, name: str) -> list[int]:
        """The attempts of the one call of ``name``, whose key never changed."""
        made = self.made.get(name, [])
        assert len({key for _, key in made}) <= 1
        return [attempt for attempt, _ in made]


async def decided(engine: Engine, run: Run, outcome: str, **options: Any) -> Run:
    """Resolve the one question of ``run`` and return it at its next rest."""
    [one] = run.interruptions
    assert one.type == "uncertain_effect"
    await engine.decide(one.id, "resolve", outcome=outcome, **options)
    return await run.wait(SECONDS)


async def resumed(engine: Engine, run: Run) -> Run:
    """Resume a failed run and return it at its next rest."""
    async with engine.pool.connection() as conn:
        await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
    return await run.wait(SECONDS)


def _failing_tools(charges: Charges) -> dict[str, tuple[Any, Any]]:
    """Tools whose first attempt ends in an unknown way, each with the call of it."""

    def fails(name: str, error: Callable[[], BaseException], **options: Any) -> Any:
        async def tool() -> str:
            if charges.note(name) == 1:
                raise error()
            return f"{name} done"

        return function_tool(tool, name_override=name, **options)

    def slow(name: str, **options: Any) -> Any:
        async def tool() -> str:
            if charges.note(name) == 1:
                await asyncio.Event().wait()
            return f"{name} done"

        return function_tool(tool, name_override=name, timeout=0.02, **options)

    def native(name: str) -> Any:
        async def tool(*_: Any) -> str:
            if charges.note(name) == 1:
                raise TimeoutError("no answer")
            return f"{name} done"

        return tool

    def plain(*_: Any) -> str:
        if charges.note("shell") == 1:
            raise ConnectionResetError("reset")
        return "shell done"

    class Editor:
        update_file = staticmethod(native("apply_patch"))
        create_file = delete_file = update_file

    action = {"type": "exec", "command": ["ls"], "env": {}}
    return {
        "by default": (fails("charge", lambda: TimeoutError("no answer")), None),
        "raised": (fails("charge", TimeoutError, failure_error_function=None), None),
        "own words": (
            fails(
                "charge", lambda: httpx.ReadTimeout("slow"), failure_error_function=lambda *_: "no"
            ),
            None,
        ),
        "cancelled": (fails("charge", asyncio.CancelledError), None),
        "time-out": (slow("charge"), None),
        "time-out raised": (slow("charge", timeout_behavior="raise_exception"), None),
        "time-out, own words": (slow("charge", timeout_error_function=lambda *_: "late"), None),
        "custom": (
            CustomTool(name="charge", description="x", on_invoke_tool=native("charge")),
            ResponseCustomToolCall(
                type="custom_tool_call", call_id="c1", name="charge", input="x", id="ctc"
            ),
        ),
        "shell": (
            ShellTool(executor=plain),
            ResponseFunctionShellToolCall.model_validate(
                {
                    "type": "shell_call",
                    "id": "sh",
                    "call_id": "c1",
                    "status": "completed",
                    "action": {"commands": ["ls"], "timeout_ms": 10},
                }
            ),
        ),
        "local shell": (
            LocalShellTool(executor=native("local_shell")),
            LocalShellCall.model_validate(
                {
                    "type": "local_shell_call",
                    "id": "ls",
                    "call_id": "c1",
                    "status": "completed",
                    "action": action,
                }
            ),
        ),
        "patch": (
            ApplyPatchTool(editor=Editor()),
            ResponseApplyPatchToolCall.model_validate(
                {
                    "type": "apply_patch_call",
                    "id": "ap",
                    "call_id": "c1",
                    "status": "completed",
                    "operation": {"type": "update_file", "path": "a", "diff": "+2"},
                }
            ),
        ),
    }


async def test_an_unknown_outcome_is_asked_about_and_not_told(database_url: str) -> None:
    """Whatever kind of tool it was, and however the SDK would have told the model."""
    charges = {kind: Charges() for kind in _failing_tools(Charges())}

    def agent(kind: str) -> Agent[Any]:
        @function_tool
        async def beside() -> str:
            return "beside"

        tool, asked = _failing_tools(charges[kind])[kind]
        model = turns([asked or call("charge", "c1"), call("beside", "c2")], "done")
        return Agent(name=kind, model=model, tools=[tool, beside])

    agents = {kind: agent(kind) for kind in charges}
    outcomes = ("done", "not_done", "abandon")
    async with running(database_url, *agents.values()) as engine:
        for n, (kind, one) in enumerate(agents.items()):
            model: Any = one.model
            outcome = outcomes[n % 3]
            run = await rested(engine, kind)
            assert run.status == "interrupted", (kind, run.data)
            name = one.tools[0].name
            calls = await calls_of(engine, run)
            assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("uncertain", 1), kind
            error = calls["c1"]["error"]
            assert error["type"], kind
            # What stood beside it was not disturbed, or not begun: nobody is asked about it.
            assert calls["c2"]["status"] in ("succeeded", "proposed")
            [question] = run.interruptions
            assert question.question.startswith(f"{name} ended with {error['type']}"), kind
            assert error["message"] in question.question
            assert question.question.endswith("Did it happen?")
            assert model.asked == 1
            assert charges[kind].attempts(name) == [1]

            await decided(engine, run, outcome, **({"result": "paid"} if outcome == "done" else {}))
            if outcome == "abandon":
                assert error_of(run)["type"] == "abandoned"
                await resumed(engine, run)
                assert [one.question for one in run.interruptions] == [question.question]
                await decided(engine, run, "done")
            assert (run.status, run.output, run.error) == ("completed", "done", None), kind
            [row] = [one for one in (await calls_of(engine, run)).values() if one["tool"] == name]
            assert (row["status"], row["error"]) == ("succeeded", None)
            assert outputs_in(model.inputs[-1])["c2"] == "beside"
            read = str(outputs_in(model.inputs[-1])["c1"])
            expected = {"done": "paid", "not_done": f"{name} done", "abandon": "carried out"}
            assert expected[outcome] in read, (kind, read)
            assert charges[kind].attempts(name) == ([1, 2] if outcome == "not_done" else [1])


async def test_what_surely_failed_is_told_to_the_model(database_url: str) -> None:
    charges = Charges()

    @function_tool
    async def charge() -> str:
        charges.note("charge")
        raise httpx.ConnectError("refused")

    @function_tool
    async def refuse() -> str:
        charges.note("refuse")
        try:
            raise TimeoutError
        except TimeoutError:
            raise ValueError("it did not happen, I looked") from None

    class Odd(BaseException):
        pass

    gate = Gate()

    @function_tool
    async def odd() -> str:
        await gate.reached()
        raise Odd("whatever")

    @function_tool
    async def slow() -> str:
        await gate.stop()
        return "slow"

    model = turns(
        [call("charge", "c1"), call("refuse", "c2")],
        [call("odd", "c3"), call("slow", "c4")],
        "done",
    )
    agent = Agent(name="a", model=model, tools=[charge, refuse, odd, slow])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()

        async def odd_failed() -> Any:
            return (await calls_of(engine, run)).get("c3", {}).get("status") == "failed"

        await eventually(odd_failed)
        # An exception of the strangest kind cancels no tool beside it.
        gate.open()
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert [calls[one]["status"] for one in ("c1", "c2", "c3", "c4")] == [
        *["failed"] * 3,
        "succeeded",
    ]
    read = outputs_in(model.inputs[-1])
    for one, said in {"c1": "refused", "c2": "I looked", "c3": "Odd: whatever"}.items():
        assert "An error occurred" in read[one]
        assert said in calls[one]["error"]["message"]


async def test_an_idempotent_call_is_made_again_with_its_key(database_url: str) -> None:
    """Three times in one execution; then somebody is asked, and it may go on."""
    charges = Charges()
    gate = Gate()

    @effect("idempotent")
    @function_tool
    async def charge(fails: int) -> str:
        attempt = charges.note(f"charge {fails}")
        if attempt <= fails:
            raise TimeoutError(f"no answer to {attempt}")
        return f"paid at {attempt}"

    @function_tool
    async def slow() -> str:
        await gate.stop()
        return "slow"

    asked = [call("charge", "c1", fails=1), call("charge", "c2", fails=4), call("slow", "c3")]
    model = turns(asked, "done")
    async with running(database_url, Agent(name="a", model=model, tools=[charge, slow])) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()

        async def in_doubt() -> Any:
            return (await calls_of(engine, run))["c2"]["status"] == "uncertain"

        await eventually(in_doubt)
        # A tool in mid-effect is not cut off: the run rests when it has ended.
        assert (await run.refresh()).status == "running"
        gate.open()
        await run.wait(SECONDS)
        calls = await calls_of(engine, run)
        assert [calls[one]["status"] for one in ("c1", "c2", "c3")] == [
            "succeeded",
            "uncertain",
            "succeeded",
        ]
        assert (calls["c1"]["attempt"], calls["c2"]["attempt"]) == (2, 3)
        assert "no answer to 3" in run.interruptions[0].question
        await decided(engine, run, "not_done")
        assert (run.status, run.error) == ("completed", None)
    assert charges.attempts("charge 1") == [1, 2]
    # The person's word made for three tries more, of which the second went well.
    assert charges.attempts("charge 4") == [1, 2, 3, 4, 5]
    assert outputs_in(model.inputs[-1]) == {"c1": "paid at 2", "c2": "paid at 5", "c3": "slow"}


class Asked(BaseModel):
    """A structured output."""

    cents: int


class Probes:
    """Tools that stop in mid-effect, each with a probe that answers in its own way."""

    def __init__(self) -> None:
        self.charges = Charges()
        self.gate = Gate()
        self.asked: dict[str, list[tuple[int, str]]] = {}
        self.both = asyncio.Barrier(2)
        self.plain_threads: set[int] = set()

    def _note(self, name: str, key: str) -> None:
        known = tool_call()
        assert known.idempotency_key == key
        self.asked.setdefault(name, []).append((known.attempt, key))

    def tools(self) -> dict[str, Any]:
        """One tool for each answer."""

        async def done(key: str) -> Done:
            self._note("done", key)
            # Both probes of this run are asked at the same time.
            async with asyncio.timeout(SECONDS):
                await self.both.wait()
            return Done(Asked(cents=5))

        def true(key: str) -> bool:
            self.plain_threads.add(threading.get_ident())
            self._note("true", key)
            return True

        async def false(key: str) -> bool:
            self._note("false", key)
            async with asyncio.timeout(SECONDS):
                await self.both.wait()
            return False

        async def none(key: str) -> None:
            self._note("none", key)
            assert DBOS.workflow_id is None

        async def raises(key: str) -> bool:
            raise LookupError("no such service")

        async def hangs(key: str) -> bool:
            await asyncio.Event().wait()
            return True

        async def wrong(key: str) -> Any:
            return "yes"

        async def unfit(key: str) -> Done:
            return Done(object)

        probes = (done, true, false, none, raises, hangs, wrong)
        typed = (done, true)
        return {probe.__name__: self._tool(probe, typed=probe in typed) for probe in probes} | {
            "unfit": self._tool(unfit, typed=True)
        }

    def _tool(self, probe: Any, *, typed: bool) -> Any:
        name = probe.__name__

        async def charge() -> Any:
            if self.charges.note(name) == 1:
                await self.gate.stop()
            return Asked(cents=7)

        return effect("at_most_once", probe=probe)(
            function_tool(charge, name_override=name, output_type=Asked if typed else None)
        )


async def test_probes_are_asked_before_people(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runs.probing.PROBE_SECONDS", 0.3)
    probes = Probes()
    tools = probes.tools()
    sure = ["done", "true", "false"]
    unsure = ["none", "raises", "hangs", "wrong", "unfit"]
    reply = {
        name: [call(one, one) for one in names]
        for name, names in (("sure", sure[:1] + sure[2:]), ("plain", ["true"]), ("unsure", unsure))
    }
    models = {name: turns(asked, "done") for name, asked in reply.items()}
    agents = [Agent(name=name, model=models[name], tools=list(tools.values())) for name in models]
    async with running(database_url, *agents) as engine:
        runs = {name: await engine.start(name, "hi") for name in models}

        async def all_began() -> bool:
            return len(probes.charges.made) == len(tools)

        await eventually(all_began)
        # Nobody is asked where the probes know.
        assert await take_over(engine, database_url, runs["sure"]) == "completed"
        assert await take_over(engine, database_url, runs["plain"]) == "completed"
        assert await take_over(engine, database_url, runs["unsure"]) == "interrupted"
        calls = {name: await calls_of(engine, run) for name, run in runs.items()}
        questions = {one.tool["name"]: one for one in runs["unsure"].interruptions}
        known = {name: one.evidence for name, one in questions.items()}
        read: dict[str, Any] = {}
        for name in ("sure", "plain"):
            read |= outputs_in(models[name].inputs[-1])
        probes.gate.open()
        await decided_all(engine, runs["unsure"], result={"cents": 1})
    assert probes.charges.attempts("done") == [1]
    assert probes.charges.attempts("true") == [1]
    assert probes.charges.attempts("false") == [1, 2]
    assert json.loads(read["done"]) == {"cents": 5}
    assert "carried out" in read["true"]
    [done] = calls["sure"]["done"]["evidence"]
    assert (done["kind"], done["status"], done["output"], done["epoch"]) == (
        "probe",
        "done",
        {"cents": 5},
        2,
    )
    assert [one["status"] for one in calls["sure"]["false"]["evidence"]] == ["not_done"]
    assert (calls["sure"]["false"]["status"], calls["sure"]["false"]["attempt"]) == ("succeeded", 2)
    assert threading.get_ident() not in probes.plain_threads
    assert {name: asked[0][0] for name, asked in probes.asked.items()} == dict.fromkeys(
        ("done", "true", "false", "none"), 1
    )
    words = {
        "none": "Its probe does not know. Did it happen?",
        "raises": "Its probe ended with LookupError (no such service). Did it happen?",
        "hangs": "Its probe gave no answer within 0.3 s. Did it happen?",
        "wrong": "Its probe returned 'yes', which is no answer. Did it happen?",
        "unfit": "Its probe gave a result that cannot be kept",
    }
    assert set(questions) == set(words)
    for name, text in words.items():
        assert text in questions[name].question
        assert [(one["kind"], one["status"]) for one in known[name]] == [("probe", "unknown")]
        assert calls["unsure"][name]["status"] == "uncertain"
    assert known["raises"][0]["error"] == {"type": "LookupError", "message": "no such service"}


async def decided_all(engine: Engine, run: Run, **options: Any) -> Run:
    """Resolve all questions of ``run`` as done and return it at its next rest."""
    for one in run.interruptions:
        await engine.decide(one.id, "resolve", outcome="done", **options)
    await run.wait(SECONDS)
    assert (run.status, run.error) == ("completed", None)
    return run


@pytest.mark.parametrize("kind", ["at_most_once", "idempotent"])
async def test_a_probe_is_asked_after_a_time_out_too(database_url: str, kind: Any) -> None:
    charges = Charges()
    answers: dict[str, list[Any]] = {
        "knows": [Done("paid before")],
        "again": [False, False],
        "never": [False, False, False],
        "unsure": [None],
    }
    asked: dict[str, int] = {}

    def tool(name: str) -> Any:
        async def look(key: str) -> Any:
            asked[name] = asked.get(name, 0) + 1
            return answers[name].pop(0)

        async def charge() -> str:
            attempt = charges.note(name)
            if name != "again" or attempt < 3:
                raise TimeoutError("no answer")
            return f"paid at {attempt}"

        return effect(kind, probe=look)(function_tool(charge, name_override=name))

    groups = {"settled": ["knows", "again"], "never": ["never"], "unsure": ["unsure"]}
    models = {
        group: turns([call(name, name) for name in names], "done")
        for group, names in groups.items()
    }
    agents = [
        Agent(name=group, model=models[group], tools=[tool(name) for name in names])
        for group, names in groups.items()
    ]
    async with running(database_url, *agents) as engine:
        run = await rested(engine, "settled")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
        for group, said in {
            "never": "says that it did not happen",
            "unsure": "does not know",
        }.items():
            run = await rested(engine, group)
            [question] = run.interruptions
            assert question.question == (
                f"{group} ended with TimeoutError (no answer) before its outcome was known "
                f"(attempt {len(charges.attempts(group))}). Its probe {said}. Did it happen?"
            )
            calls |= await calls_of(engine, run)
            await decided(engine, run, "done", result="looked up")
            assert (run.status, run.error) == ("completed", None)
            assert outputs_in(models[group].inputs[-1]) == {group: "looked up"}
    read = outputs_in(models["settled"].inputs[-1])
    assert read == {"knows": "paid before", "again": "paid at 3"}
    assert {name: calls[name]["status"] for name in answers} == {
        "knows": "succeeded",
        "again": "succeeded",
        "never": "uncertain",
        "unsure": "uncertain",
    }
    times = 3 if kind == "at_most_once" else 1
    assert [one["status"] for one in calls["never"]["evidence"]] == ["not_done"] * times
    three = [1, 2, 3]
    assert charges.attempts("again") == charges.attempts("never") == three
    assert (
        charges.attempts("unsure")
        == charges.attempts("knows")
        == ([1] if kind == "at_most_once" else three)
    )
    assert calls["unsure"]["error"] == {"type": "TimeoutError", "message": "no answer"}
    assert asked["never"] == times
    assert {model.asked for model in models.values()} == {2}


async def test_a_run_cancelled_while_a_probe_looks(database_url: str) -> None:
    gate, look_gate = Gate(), Gate()

    async def look(key: str) -> bool:
        await look_gate.stop()
        return True

    @effect("at_most_once", probe=look)
    @function_tool
    async def charge() -> str:
        await gate.stop()
        return "paid"

    model = turns([call("charge", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[charge])) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        async with _taking_over(engine, database_url, run) as taken:
            await look_gate.reached()
            await engine.cancel(run.id)
            gate.open()
            assert await taken == "cancelled"
        await run.refresh()
        calls = await calls_of(engine, run)
    assert (run.status, calls["c1"]["status"]) == ("cancelled", "uncertain")
    assert look_gate.passed == 0


@asynccontextmanager
async def _taking_over(engine: Engine, url: str, run: Run) -> AsyncIterator[asyncio.Task[str]]:
    """Another execution of the run's first segment, cancelled as the engine's own worker does."""
    async with other_worker(engine, url) as other:
        task = asyncio.create_task(other.run(UUID(run.id), 1))
        watching = asyncio.create_task(_cancel_when_asked(other))
        try:
            yield task
        finally:
            watching.cancel()


async def _cancel_when_asked(runner: Any) -> None:
    while True:
        await runner.look_again()


async def test_a_late_outcome_is_kept_as_evidence(database_url: str) -> None:
    gate = Gate()

    @function_tool
    async def charge(cents: int) -> str:
        if tool_call().attempt == 1:
            await gate.stop()
        if cents > 5:
            raise ValueError("too much")
        return f"paid {cents}"

    model = turns([call("charge", "c1", cents=5), call("charge", "c2", cents=6)], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[charge])) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        assert await take_over(engine, database_url, run) == "interrupted"
        before = await query(engine, "SELECT * FROM perdure.tool_calls ORDER BY id")
        gate.open()

        async def two() -> Any:
            await run.refresh()
            known = {one.tool["call_id"]: one.evidence for one in run.interruptions}
            return known if all(known.values()) else None

        known = await eventually(two)
        assert await query(engine, "SELECT * FROM perdure.tool_calls ORDER BY id") == before
        assert run.status == "interrupted"
        [first], [second] = known["c1"], known["c2"]
        assert (first["kind"], first["status"], first["output"]) == (
            "late_outcome",
            "succeeded",
            "paid 5",
        )
        assert (first["epoch"], second["status"]) == (1, "failed")
        assert second["error"]["message"] == "too much"
        calls = await calls_of(engine, run)
        assert calls["c1"]["evidence"] == [first]
        await decided_all(engine, run)


async def test_an_outcome_sent_twice_is_no_evidence(database_url: str) -> None:
    gate = Gate()

    @function_tool
    async def quick() -> str:
        return "quick"

    @function_tool
    async def slow() -> str:
        await gate.stop()
        return "slow"

    model = turns([call("quick", "c1"), call("slow", "c2")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[quick, slow])) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()

        async def settled() -> Any:
            return (await calls_of(engine, run))["c1"]["status"] == "succeeded"

        await eventually(settled)
        entry = {
            "kind": "outcome",
            "run_id": run.id,
            "segment": 1,
            "epoch": 1,
            "base_seq": 0,
            "scope": "",
            "call_id": "c1",
            "status": "succeeded",
            "output": {"type": "text", "text": "quick"},
            "error": None,
            "context": None,
        }
        other = {"output": {"type": "text", "text": "something else"}}
        async with LedgerWriter(database_url) as writer:
            await writer.submit(entry)
            # Settled otherwise by now, in the very same execution.
            await writer.submit(entry | other)
            # No execution of the segment; what it says is what was recorded once before.
            for lost in (entry, entry | other | {"call_id": "nobody's"}):
                late = writer.submit(lost | {"segment": 2})
                await asyncio.wait({late})
                assert late.exception() is not None
            # Entries commit in order: what is awaited now came after what was to be kept.
            await writer.submit(entry)
        calls = await calls_of(engine, run)
        gate.open()
        await run.wait(SECONDS)
    assert [one["output"] for one in calls["c1"]["evidence"]] == ["something else"]
    assert calls["c2"]["evidence"] == []
    assert run.status == "completed"


def test_a_probe_belongs_to_what_may_be_in_doubt() -> None:
    def look(key: str) -> None:
        return None

    kinds: tuple[EffectName, ...] = ("read", "transactional")
    for kind in kinds:
        with pytest.raises(ConfigurationError, match="takes no probe"):
            effect(kind, probe=look)
    with pytest.raises(ConfigurationError, match="has to be a function"):
        effect("idempotent", probe="look")  # type: ignore[arg-type]

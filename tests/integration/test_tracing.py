"""A run as one OpenTelemetry trace, recorded by the real SDK."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, ModelSettings, function_tool
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.util._once import Once

from perdure.engine import Engine
from perdure.errors import ConfigurationError
from perdure.logs import RunFields
from perdure.otel import RunIdGenerator, configure
from perdure.runs.traces.ids import root_span_id
from perdure.runs.traces.run import trace_of
from tests.engine_support import call, calls_of, records, rested, running, turns
from tests.integration.test_engine_deaths import Conversation, _run


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def of(self, run_id: str) -> list[ReadableSpan]:
        """Those of a run's trace."""
        return [
            span
            for span in self.exporter.get_finished_spans()
            if span.context.trace_id == UUID(run_id).int
        ]


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    """Those whose name begins so."""
    return [span for span in spans if span.name.startswith(name)]


def attribute(span: ReadableSpan, name: str) -> Any:
    """What a span says."""
    return (span.attributes or {}).get(name)


Set = Callable[..., Spans]


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets the process's tracer provider, for the test."""

    def set_up(**options: Any) -> Spans:
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
        spans = Spans()
        configure(SimpleSpanProcessor(spans.exporter), **options)
        return spans

    return set_up


async def test_a_run_is_one_tree_although_an_execution_breaks_off(
    database_url: str, set_up: Set
) -> None:
    spans = set_up()
    engine = Engine([Conversation().root()])
    async with engine.running(url=database_url, worker=False):
        run, died = await _run(engine, database_url, (2, 3))
        calls = await calls_of(engine, run)
        replies = await records(engine, run, "model_responses")
    assert died
    assert run.status == "completed"

    tree = spans.of(run.id)
    [root] = [span for span in tree if span.parent is None]
    assert (root.name, root.context.span_id) == ("run front", root_span_id(UUID(run.id)))
    assert attribute(root, "perdure.status") == "completed"
    ids = Counter(span.context.span_id for span in tree)
    # A nested call whose outcome was lost is entered again, under its id; nothing else is.
    twice = {span.name for span in tree if ids[span.context.span_id] > 1}
    assert twice <= {
        "execute_tool ask",
        "execute_tool ask_middle",
        "invoke_agent inner",
        "invoke_agent middle",
    }
    # What was under way where the execution broke off may be lost with it, and nothing else.
    lost = {span.parent.span_id for span in tree if span.parent} - set(ids)
    assert len(lost) <= 1
    assert len(named(tree, "accept front")) == 1

    executions = named(tree, "segment")
    assert [
        (
            span.name,
            attribute(span, "perdure.outcome"),
            attribute(span, "perdure.recovered"),
        )
        for span in sorted(executions, key=lambda span: span.start_time or 0)
    ] == [
        ("segment 1", "interrupted", False),
        ("segment 2", "handover", False),
        ("segment 2", "interrupted", True),
        ("segment 3", "completed", False),
    ]
    [recovered] = [span for span in executions if attribute(span, "perdure.recovered")]
    assert attribute(recovered, "perdure.after") == "trouble"
    assert attribute(recovered, "perdure.execution") == 2
    handoffs = [event for span in executions for event in span.events if event.name == "handoff"]
    assert {(event.attributes or {})["perdure.to"] for event in handoffs} == {"back"}

    # Each reply is told of once, whoever replayed it; one that was lost with its execution too.
    chats = [span for span in named(tree, "chat ") if attribute(span, "gen_ai.response.id")]
    told = Counter(attribute(span, "gen_ai.response.id") for span in chats)
    assert set(told.values()) == {1}
    assert {one["response_id"] for one in replies} <= set(told)
    for span in chats:
        assert attribute(span, "gen_ai.operation.name") == "chat"
        assert attribute(span, "gen_ai.usage.input_tokens") == 10
        assert attribute(span, "gen_ai.usage.output_tokens") == 5
        assert span.kind is trace.SpanKind.CLIENT
    done = [one for one in calls.values() if one["status"] == "succeeded"]
    tools = [
        span for span in named(tree, "execute_tool ") if not attribute(span, "perdure.cut_short")
    ]
    own = [span for span in tools if attribute(span, "perdure.effect") != "nested"]
    assert len(own) >= sum(one["effect"] != "nested" for one in done)
    # A nested agent is beneath the tool it is, and its models and tools beneath it.
    by_id = {span.context.span_id: span for span in tree}
    for span in named(tree, "invoke_agent inner"):
        assert span.parent is not None
        if span.parent.span_id in lost:
            continue
        assert by_id[span.parent.span_id].name == "execute_tool ask"
    for span in (*chats, *tools):
        assert span.parent is not None
        if span.parent.span_id in lost:
            continue
        above, agent = by_id[span.parent.span_id].name, attribute(span, "gen_ai.agent.name")
        nested = agent in ("inner", "middle")
        assert above == f"invoke_agent {agent}" if nested else above.startswith("segment ")

    # Nothing anybody wrote.
    written = " ".join(span.to_json() for span in tree)
    for word in ("saw ", "paid", "bob", "gated"):
        assert word not in written


async def test_what_spans_hold_and_records_say(
    database_url: str, set_up: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(vars(record))

    handler = Keep()
    handler.addFilter(RunFields())
    logger = logging.getLogger("shop")
    logger.addHandler(handler)

    @function_tool
    def look(what: str) -> str:
        with trace.get_tracer("shop").start_as_current_span("warehouse"):
            logger.warning("looking")
        if what == "nothing":
            raise ValueError(f"there is no {what}")
        return f"a red {what}"

    model = turns(
        [call("look", "c1", what="hat"), call("look", "c2", what="nothing")], "It is red."
    )
    agent = Agent(
        name="shop",
        instructions="Be brief.",
        model=model,
        model_settings=ModelSettings(temperature=0.5, max_tokens=99),
        tools=[look],
    )
    for wish, whole in ((None, False), ("1", True)):
        if wish is not None:
            monkeypatch.setenv("PERDURE_OTEL_CONTENT", wish)
        spans = set_up()
        async with running(database_url, agent) as engine:
            with trace.get_tracer("caller").start_as_current_span("caller") as caller:
                run = await rested(engine, "shop", "which hat?")
        tree = spans.of(run.id)
        [accepted] = named(tree, "accept")
        assert [link.context for link in accepted.links] == [caller.get_span_context()]
        chat = named(tree, "chat")[0]
        assert attribute(chat, "gen_ai.request.temperature") == 0.5
        assert attribute(chat, "gen_ai.request.max_tokens") == 99
        tools = {attribute(span, "gen_ai.tool.call.id"): span for span in named(tree, "execute")}
        assert not tools["c1"].status.description
        assert attribute(tools["c2"], "error.type") == "ValueError"
        assert tools["c2"].status.status_code is trace.StatusCode.ERROR
        # The program's own spans, in a thread, are beneath the tool's, and its records name both.
        own = {span.parent.span_id: span for span in named(tree, "warehouse") if span.parent}
        assert set(own) == {span.context.span_id for span in tools.values()}
        [one, two] = [record for record in seen if record["msg"] == "looking"]
        seen.clear()
        assert {one["run_id"], two["run_id"]} == {run.id}
        assert (one["segment"], one["execution"]) == (1, 1)
        assert one["trace_id"] == UUID(run.id).hex
        assert {int(record["span_id"], 16) for record in (one, two)} == {
            span.context.span_id for span in own.values()
        }
        written = " ".join(span.to_json() for span in tree)
        for word in ("which hat?", "Be brief.", "a red hat", "there is no", "It is red."):
            assert (word in written) is whole, word
    logger.removeHandler(handler)


async def test_who_decides_whether_a_run_is_recorded(
    database_url: str, set_up: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(name="plain", model=turns("hello"))
    spans = set_up(sampler=ParentBased(TraceIdRatioBased(0.5)))
    async with running(database_url, agent) as engine:
        runs = [await rested(engine, "plain") for _ in range(12)]
    # Run ids are all alike in the bits a ratio is taken of: still about half of them are chosen.
    chosen = [run for run in runs if trace_of(UUID(run.id)) is not None]
    for run in runs:
        names = {span.name for span in spans.of(run.id)}
        assert names == (
            {"accept plain", "run plain", "segment 1", "chat RuleModel"} if run in chosen else set()
        )
    with pytest.raises(ConfigurationError, match="id_generator"):
        configure(sampler=ALWAYS_OFF)
    # A provider that chooses its own ids: one trace still, without the run's own span above it.
    own = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(own))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with running(database_url, agent) as engine:
        run = await rested(engine, "plain")
    told = own.get_finished_spans()
    assert {span.context.trace_id for span in told} == {UUID(run.id).int}
    above = {span.name: span.parent.span_id for span in told if span.parent}
    assert above["segment 1"] == above["run plain"] == root_span_id(UUID(run.id))
    # And none at all.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert trace_of(UUID(run.id)) is None


def test_ids_of_other_spans_are_random() -> None:
    provider = TracerProvider(id_generator=RunIdGenerator())
    with provider.get_tracer("t").start_as_current_span("a") as one:
        two = provider.get_tracer("t").start_span("b")
    assert one.get_span_context().span_id != two.get_span_context().span_id
    provider.shutdown()

"""One execution of one segment: what the wrappers of model and tools share while it runs.

The wrappers find it in a context variable; outside a durable run there is none and they do
nothing. Whatever stops the segment from within (a fence, a database that is gone) is *parked*:
the task that met it waits, effects under way finish and are recorded, and only then the driver
cancels the rest. An exception thrown into the SDK's gather would cancel siblings in mid-effect.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID
from weakref import WeakKeyDictionary

from agents.tool import Tool

from perdure.db import Pool, is_infrastructure
from perdure.errors import LedgerUnavailable, StopSegment, Uncertain
from perdure.interruptions.policies.policy import Policy
from perdure.interruptions.policies.question_rules import Rules
from perdure.ledger.annotations import AnnotatedCalls
from perdure.ledger.effects import Effect
from perdure.ledger.hashing import InputHasher
from perdure.ledger.journal import Journal, RecordedCall, RecordedReply
from perdure.ledger.prices import Prices
from perdure.ledger.unsent import Source
from perdure.ledger.writer import Entry, LedgerWriter
from perdure.runs.approvals import Approval
from perdure.runs.inherited import Inherited
from perdure.runs.liveness import UNDOUBTED, Liveness
from perdure.runs.parts import Parts
from perdure.runs.policies import Policies
from perdure.runs.spending import Spending

if TYPE_CHECKING:
    from perdure.runs.traces.segment import SegmentTrace

current_execution: ContextVar[Execution | None] = ContextVar("perdure_execution", default=None)
current_scope: ContextVar[tuple[str, ...]] = ContextVar("perdure_scope", default=())
current_agent: ContextVar[str] = ContextVar("perdure_agent", default="")

_LOG = logging.getLogger(__name__)

_holds: ContextVar[tuple[object, ...]] = ContextVar("perdure_holds", default=())
"""The effects the current task is in the middle of, each within the one before."""

calls_under_way: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()
"""What effect each task is in the middle of, in words, for whoever finds the loop held up."""

SCOPE_SEPARATOR = "/"


def scope_text(scope: tuple[str, ...]) -> str:
    """Return a scope (the ids of the enclosing tool calls) as the text it is stored as."""
    return SCOPE_SEPARATOR.join(scope)


class CancelRequested(StopSegment):
    """Somebody cancelled the run: nothing is waited for."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(run_id, f"Run {run_id} is cancelled.")


class Stopping(StopSegment):
    """This process ends: the segment goes on in another one, or in this one's next life."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(run_id, f"Run {run_id} is handed over, as this worker stops.")


@contextmanager
def database_needed(run_id: UUID, *, doing: str) -> Iterator[None]:
    """Let a block's trouble with the database end the segment, to begin again when it is back.

    Raises:
        LedgerUnavailable: the database was lost or refused to work in the block.
    """
    try:
        yield
    except Exception as error:
        if not is_infrastructure(error):
            raise
        raise LedgerUnavailable(run_id, doing=doing) from error


@dataclass(eq=False)
class Execution:
    """An execution of a segment: its key and epoch, its journal, what is under way."""

    run_id: UUID
    tenant_id: UUID
    segment: int
    epoch: int
    writer: LedgerWriter
    pool: Pool
    default_effect: Effect
    journal: Journal
    parts: Parts = field(default_factory=Parts)
    """What the run's states have in common, for the next one."""
    operation_kinds: frozenset[str] = frozenset()
    """What kinds of operations its tools may record."""
    annotated: AnnotatedCalls = field(init=False)
    """What its calls said of what they gave, those answered from the journal too."""
    approvals: dict[tuple[str, str], Approval] = field(default_factory=dict)
    """What people let run in the state this segment began at, by scope and call id."""
    on_reply: Callable[[bool], None] = lambda handoff: None
    """Called for each reply at the top level, with whether it hands off, before its tools run."""
    inputs_waiting: bool = False
    """Whether messages may have been added to the run that are in no state yet."""
    on_input: Callable[[], None] = lambda: None
    """Called when one was."""
    last_reply: tuple[UUID, frozenset[str]] | None = None
    """The latest reply at the top level: its id and those of the calls it asked for."""
    dump_context: Callable[[], Any] = lambda: None
    """Returns the run's context as JSON, as tools have left it."""
    stored_context: Any = None
    stopped: asyncio.Future[StopSegment] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    started: set[tuple[str, str]] = field(default_factory=set)
    lost_replies: list[RecordedReply] = field(default_factory=list)
    """Replies with effects that nothing matches, once that has stopped the segment."""
    lease: Liveness = UNDOUBTED
    mcp_lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What MCP servers offered this segment; see mcp_lists.py."""
    mcp_tools: dict[str, list[Tool]] = field(default_factory=dict)
    """The wrapped tools made of that, by agent."""
    computers: dict[object, Any] = field(default_factory=dict)
    """Computers made for this execution's own run, by what made them; see computer_tools.py."""
    only_looks: bool = False
    """Whether nothing is run and nothing may be written: it only loads what a run would."""
    asks_first: bool = False
    """Whether a person is asked before each call that is not of the effect ``read``."""
    inherited: Inherited | None = None
    """What calls are answered with instead of being made; see inherited.py."""
    instructions: tuple[str, str] | None = None
    """An agent, and what it is told in this run instead of its own instructions."""
    policy_source: Policies | None = None
    """What knows the tenant's policies; see gates.py."""
    prices: Prices = field(default_factory=Prices)
    """What requests to models are priced by."""
    guardrails: list[dict[str, Any]] = field(default_factory=list)
    """What guardrails said since the last state; see guardrails.py."""
    spending: Spending = field(default_factory=Spending)
    """What is known of the run's budgets."""
    trace: SegmentTrace | None = None
    """Where its spans go; None: nobody records them."""
    policies: Sequence[Policy] = ()
    """Those that hold, as far as this execution has looked."""
    judged: dict[tuple[str, str], Rules] = field(default_factory=dict)
    """What they said of calls, by scope and call id."""
    at_end: list[Callable[[], Any]] = field(default_factory=list)
    """What is to be called when the execution ends; may return awaitables."""
    model_errors: list[BaseException] = field(default_factory=list)
    _awaited: asyncio.Future[Any] | None = None
    """The latest write that nothing may happen before: a reply, or a state."""
    _hashers: dict[tuple[str, str], InputHasher] = field(default_factory=dict)
    _writes: set[asyncio.Future[Any]] = field(default_factory=set)
    _under_way: set[object] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.annotated = AnnotatedCalls(self.journal.calls.values())
        for call in self.journal.calls.values():
            if call.status == "succeeded":
                self._may_quote(call, call.output)
        self._idle.set()

    def key(self) -> Entry:
        """Return the columns that place a ledger entry in this execution."""
        return {
            "run_id": str(self.run_id),
            "segment": self.segment,
            "epoch": self.epoch,
            "base_seq": self.journal.base_seq,
        }

    @property
    def source(self) -> Source:
        """Who this execution is to what takes its models' streams."""
        return Source(str(self.run_id), str(self.tenant_id), self.segment, self.epoch)

    def input_hash(self, scope: str, agent: str, model_input: str | list[Any]) -> str:
        """Return the hash of a model's input; a pure function of the input."""
        return self._hashers.setdefault((scope, agent), InputHasher()).digest(model_input)

    def told(self, agent: str, instructions: str | None) -> str | None:
        """Return what ``agent`` is told: its own ``instructions``, or this run's for it."""
        if self.instructions is None or self.instructions[0] != agent:
            return instructions
        return self.instructions[1]

    def call(self, scope: str, call_id: str) -> RecordedCall | None:
        """Return what is recorded of a tool call, or None."""
        return self.journal.calls.get((scope, call_id))

    async def record(self, entry: Entry) -> None:
        """Write ``entry`` and return when it has committed; parks when it cannot."""
        try:
            await asyncio.shield(self._write(entry, urgent=True))
        except StopSegment as reason:
            await self.park(reason)

    def record_later(self, entry: Entry) -> None:
        """Write ``entry`` without waiting: it commits with or before the next reply."""
        self._write(entry, urgent=False)

    def record_reply(self, entry: Entry) -> None:
        """Write a reply; while it commits, the SDK prepares what ``committed`` holds back."""
        self._awaited = self._write(entry, urgent=True)

    def write_beside(self, write: Coroutine[Any, Any, None]) -> None:
        """Let ``write`` commit while the SDK prepares what ``committed`` holds back.

        A StopSegment it raises stops the segment.
        """
        self._awaited = self._noted(asyncio.ensure_future(write))

    async def committed(self) -> None:
        """Wait until each reply and state so far has committed; parks when one cannot."""
        awaited = self._awaited
        if awaited is not None:
            if not awaited.done():
                await asyncio.wait({awaited})
            # What was refused in this very turn of the loop has not been heard of yet.
            self._written(awaited)
        await self.check()

    def _write(self, entry: Entry, *, urgent: bool) -> asyncio.Future[Any]:
        return self._noted(self.writer.submit(self.key() | entry, urgent=urgent))

    def _noted(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._writes.add(future)
        future.add_done_callback(self._written)
        return future

    def _written(self, future: asyncio.Future[Any]) -> None:
        self._writes.discard(future)
        if future.cancelled():
            return
        if isinstance(error := future.exception(), StopSegment):
            self.stop(error)
        elif error is None and future.result():
            # Since it began somebody has made a budget it may count to.
            self.spending.budgeted = True

    def returned(self, scope: str, call_id: str, stored: dict[str, Any] | None) -> None:
        """Note what a call of this execution returned, as its row has it."""
        self.annotated.add(scope, call_id, stored)
        call = self.call(scope, call_id)
        if call is not None:
            self._may_quote(call, stored)

    def _may_quote(self, call: RecordedCall, stored: dict[str, Any] | None) -> None:
        if stored is not None and stored.get("type") == "text":
            self.parts.may_quote(stored["text"], call.id)

    def changed_context(self) -> Any:
        """Return the context as JSON when tools changed it since it was last stored, else None."""
        context = self.dump_context()
        if context == self.stored_context:
            return None
        self.stored_context = context
        return context

    async def flush(self) -> None:
        """Wait until all that was to be recorded has committed, or the segment is stopped."""
        while self._writes:
            self.writer.hurry()
            await asyncio.wait(set(self._writes))
        if not self.stopped.done():
            await self.writer.streams.flush(str(self.run_id))

    def input_added(self) -> None:
        """Let the driver know that a message was added to the run."""
        self.inputs_waiting = True
        self.on_input()

    def stop(self, reason: StopSegment) -> None:
        """Ask the driver to end this segment; the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(reason)

    async def park(self, reason: StopSegment) -> NoReturn:
        """Stop the segment and wait here for the driver's cancellation."""
        self.stop(reason)
        # What this task was in the middle of gets no further: it must not be waited for.
        self._release(*_holds.get())
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a parked task is only ever cancelled")

    async def check(self) -> None:
        """Park when the segment is stopping: nothing new may begin."""
        if self.stopped.done():
            await self.park(self.stopped.result())

    @property
    def stops_for_a_person(self) -> bool:
        """Whether the segment stops to ask a person, and for no other reason."""
        return self.stopped.done() and isinstance(self.stopped.result(), Uncertain)

    async def may_begin(self) -> None:
        """Return when an effect may begin, or a model be asked, at this very moment.

        Parks when the segment is stopping; waits while others may take this process for dead.
        """
        if not self.lease.held():
            await self.lease.confirmed()
        await self.check()

    @contextmanager
    def effect_under_way(self, tool: str, call_id: str) -> Iterator[None]:
        """Hold off the driver's cancellation while an effect runs and is recorded."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a tool is called in one
        calls_under_way[task] = f"Tool {tool} (call {call_id} of run {self.run_id})"
        hold = object()
        self._under_way.add(hold)
        self._idle.clear()
        token = _holds.set((*_holds.get(), hold))
        try:
            yield
        finally:
            calls_under_way.pop(task, None)
            _holds.reset(token)
            self._release(hold)

    def _release(self, *holds: object) -> None:
        self._under_way.difference_update(holds)
        if not self._under_way:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no effect is under way."""
        await self._idle.wait()

    async def end(self) -> None:
        """Call what is to be called at the end, the last one first."""
        self.writer.streams.forget(self.source)
        while self.at_end:
            try:
                called = self.at_end.pop()()
                if inspect.isawaitable(called):
                    await called
            except Exception:  # noqa: BLE001 - the run is over; the next one is to be called too
                _LOG.exception("Run %s: something of it could not be closed.", self.run_id)
        self.computers.clear()

    def rebase(self, base_seq: int) -> None:
        """Go on after a checkpoint: what came before it is in the state."""
        self.journal.rebase(base_seq)
        self._hashers.clear()
        self.started.clear()
        self.judged.clear()
        self.last_reply = None

    async def refuse_unmatched(self, scope: str, agent: str) -> None:
        """Park when a recorded reply with effects was not asked for again.

        The conversation was rebuilt differently than it was; asking the model anew would repeat
        those effects under new call ids, so a person has to look first.
        """
        lost = self.journal.unmatched_with_effects(scope, agent)
        if lost:
            self.lost_replies = self.lost_replies or lost
            call_ids = [call.call_id for reply in lost for call in self.journal.started_by(reply)]
            await self.park(Uncertain(self.run_id, call_ids=call_ids))

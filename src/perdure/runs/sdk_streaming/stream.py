"""``Run.stream``: the events of a run with what they speak of, told as the SDK's stream events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from agents import Agent

from perdure import jsonsafe
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError, UnavailableError
from perdure.events import Event, Hub
from perdure.ledger.journal import RecordedReply
from perdure.runs import store
from perdure.runs.reply_rows import recorded_event
from perdure.runs.sdk_streaming.events import STORED, Recorded, StreamEvent, Telling
from perdure.runs.sdk_streaming.items import calls_in
from perdure.times import rfc3339

_SQL = load_sql("perdure.runs.sdk_streaming", "stream.sql")

_RETRY_SECONDS: Final = 0.5
_ENDED: Final = frozenset({"tool.completed", "tool.failed"})
_READ_FOR: Final = STORED | _ENDED | {"model.completed"}
"""Events that are told with rows they speak of."""


class RunStream:
    """The SDK's stream events of a run, in order, to its end: ``async for event in stream``.

    ``last_event_id`` is the number to go on from: of the last event of the log that has been
    given whole. Of several stream events that come of one it moves on with the last of them.
    """

    def __init__(
        self,
        hub: Hub,
        agents: Mapping[str, Agent[Any]],
        run_id: UUID,
        *,
        ended: Callable[[], Awaitable[None]],
        after: int = 0,
    ) -> None:
        """``agents`` are this build's, by name; ``ended`` is called when the run has."""
        self.last_event_id = after
        self._hub = hub
        self._run_id = run_id
        self._telling = Telling(agents, after)
        self._ended = ended
        self._events = self._given()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave it before its end; nothing of it is held any more. The run goes on."""
        await self._events.aclose()

    async def _given(self) -> AsyncGenerator[StreamEvent, None]:
        # From the first event on, also for who comes back: what a call or a reply is about was
        # said before.
        after = self.last_event_id
        async with aclosing(self._hub.follow(DEFAULT_TENANT, self._run_id)) as pages:
            async for page in pages:
                events = [entry.event for entry in page]
                rows = await self._rows(events)
                for event in events:
                    told = self._telling.tell(event, rows)
                    if event.id <= after:
                        continue
                    last = told.pop() if told else None
                    for one in told:
                        yield one
                    self.last_event_id = event.id
                    if last is not None:
                        yield last
        await self._ended()

    async def _rows(self, events: Sequence[Event]) -> Recorded:
        """Read what events speak of, before any of them is told; a database away is waited for."""
        wanted = [one for one in events if one.event in _READ_FOR and not one.data.get("scope")]
        while wanted:
            try:
                async with self._hub.read() as conn:
                    return await self._read(conn, wanted)
            except UnavailableError:
                if self._hub.closed:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
        return Recorded()

    async def _read(self, conn: Connection, events: Sequence[Event]) -> Recorded:
        rows = Recorded()
        open_ = set(self._telling.open)
        replied = [
            one.data["model_response_id"] for one in events if one.event == "model.completed"
        ]
        for row in await self._records(conn, "replies", ids=replied):
            rows.replies[row["id"]] = reply = _reply(row)
            open_ |= calls_in(recorded_event(reply, "").response.output)
        ended = [one.data["tool_call_id"] for one in events if one.event in _ENDED]
        for row in await self._records(conn, "calls", ids=ended):
            rows.calls[row["id"]] = row
        kinds = {one.event for one in events}
        if not kinds.isdisjoint(STORED):
            rows.outputs = [
                {**row, "created_at": rfc3339(row["created_at"])}
                for row in await self._records(conn, "outputs", open=sorted(open_))
            ]
        if "run.interrupted" in kinds:
            with suppress(NotFoundError):  # it is being deleted
                run = await store.get_run(conn, tenant_id=DEFAULT_TENANT, run_id=self._run_id)
                rows.pending = run["interruptions"]
        return rows

    async def _records(
        self, conn: Connection, name: str, **wanted: Collection[str]
    ) -> list[dict[str, Any]]:
        if not any(wanted.values()):
            return []
        cursor = await conn.execute(
            _SQL[name], {"run_id": self._run_id, **{k: list(v) for k, v in wanted.items()}}
        )
        return [jsonsafe.loads(row["record"]) for row in await cursor.fetchall()]


def _reply(row: Mapping[str, Any]) -> RecordedReply:
    return RecordedReply(
        id=UUID(row["id"]),
        scope=row["scope"],
        agent=row["agent"],
        input_hash=row["input_hash"],
        response_id=row["response_id"],
        request_id=row["request_id"],
        output=row["output"],
        usage=row["usage"],
    )

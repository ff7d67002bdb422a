"""Clients that read server-sent events as people do: break off, come back, go on."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from perdure.db import Connection
from perdure.web import answers

SECONDS = 60.0


@dataclass
class Follower:
    """Follows ``path`` and comes back with the last id it was given, whatever happens."""

    client: httpx.AsyncClient
    path: str
    last: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    visits: int = 0
    over: bool = False
    """Whether the server said not to come back."""

    async def visit(self) -> AsyncGenerator[dict[str, Any], None]:
        """Give the events of one connection, until it ends or breaks."""
        headers = {"Last-Event-ID": self.last} if self.last else {}
        self.visits += 1
        async with aconnect_sse(
            self.client, "GET", self.path, headers=headers, timeout=SECONDS
        ) as source:
            self.over = source.response.status_code == 204
            if self.over:
                return
            source.response.raise_for_status()
            assert source.response.headers["content-type"].startswith("text/event-stream")
            async with aclosing(source.aiter_sse()) as events:
                async for event in events:
                    # What only changes the id, or the time to come back after, is no event.
                    self.last = event.id or self.last
                    if event.data:
                        shown = json.loads(event.data)
                        assert event.event == shown["event"]
                        answers.Event.model_validate(shown)
                        self.seen.append(shown)
                        yield shown

    async def until(self, count: int) -> None:
        """Read until so many events are there, or the server says not to come back."""
        while len(self.seen) < count and not self.over:
            try:
                async with aclosing(self.visit()) as events:
                    async for _ in events:
                        if len(self.seen) >= count:
                            return
            except httpx.TransportError:
                continue

    @property
    def ids(self) -> list[int]:
        """The numbers of what was given, in the order it was."""
        return [one["id"] for one in self.seen]


async def add(conn: Connection, run_id: str, n: int, kind: str = "tool.completed") -> None:
    """Write ``n`` events of a run, in as many transactions."""
    for k in range(n):
        await conn.execute(
            "SELECT perdure.add_event(%s, %s, jsonb_build_object('k', %s::int, 'text', %s::text))",
            (run_id, kind, k, "\u2028\n" + "x" * (k % 50)),
        )

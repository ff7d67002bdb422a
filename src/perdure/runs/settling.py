"""What of the questions a run rests on needs nobody: settled in the transaction that opens them.

A question that a living grant answers is approved by the grant, on record like any decision. If
none is left, the run goes on in the same transaction: nobody ever sees it interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from perdure.db import Connection
from perdure.interruptions.decisions import decide
from perdure.interruptions.grants import Asked, use_grants
from perdure.interruptions.rules import Decision


class Opened(Protocol):
    """An interruption that was just opened: ``runs.segment.Question``."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def agent(self) -> str:
        """The agent whose call it is about."""

    @property
    def tool(self) -> Mapping[str, Any]:
        """``name``, ``schema`` and ``arguments`` of the call, as shown."""


Q = TypeVar("Q", bound=Opened)


async def settle(conn: Connection, *, run_id: UUID, questions: Sequence[Q]) -> list[Q]:
    """Decide, of the interruptions that were just opened, what needs nobody; returns the others.

    In the transaction that opened them, whose lock on the run is held.
    """
    return await _by_grants(conn, run_id, questions)


async def _by_grants(conn: Connection, run_id: UUID, questions: Sequence[Q]) -> list[Q]:
    asked = [
        Asked(one.id, one.agent, one.tool["name"], one.tool["schema"], one.tool["arguments"])
        for one in questions
        if one.type == "tool_approval"
    ]
    settled = set()
    for use in await use_grants(conn, run_id=run_id, asked=asked):
        await decide(
            conn,
            tenant_id=use.tenant_id,
            interruption_id=use.interruption_id,
            decision=Decision("approve", digest=use.digest),
            by=use.by,
        )
        settled.add(use.interruption_id)
    return [one for one in questions if one.id not in settled]

"""Letting a model be asked only as far as budgets go.

Before a run asks a model it reserves what the call may take of every budget it counts to, or of
none. What the call really took is counted in the statement that records its reply, which frees the
reservation as well; see ``ledger/writer.sql`` and the functions of the migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql

__all__ = ["Reached", "Wait", "release", "reserve"]

_SQL = load_sql("perdure.budgets", "reserving.sql")

_OF = {
    "run": "this run",
    "session": "the session",
    "user": "user {subject}",
    "agent": "agent {subject}",
    "tenant": "all runs together",
}


@dataclass(frozen=True, slots=True)
class Wait:
    """What is left is reserved for calls under way: they have to end first."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A budget does not allow the call: ``budget`` is how it stands, ``question`` asks a person.

    ``agent`` is who would have asked the model.
    """

    agent: str
    budget: dict[str, Any]
    question: str


async def reserve(
    conn: Connection,
    *,
    run_id: UUID,
    segment: int,
    epoch: int,
    agent: str,
    model: str,
    reply_id: UUID,
    tokens: int,
    cost_usd: Decimal | None,
    own_tokens: int | None,
    own_cost_usd: Decimal | None,
) -> bool | Wait | Reached:
    """Reserve what a call may take, in one round trip and a transaction of its own.

    ``tokens`` and ``cost_usd`` are what it takes at least, as far as can be told; the cost is None
    where the model has no known price. ``own_*`` are what the largest call of this run by this
    agent took, None before the first. Returns whether any budget counts it; False as well where
    another execution owns the segment, which the ledger will tell.
    """
    cursor = await conn.execute(
        _SQL["reserve"],
        {
            "run_id": run_id,
            "segment": segment,
            "epoch": epoch,
            "agent": agent,
            "reply_id": reply_id,
            "tokens": tokens,
            "cost_usd": cost_usd,
            "own_tokens": own_tokens,
            "own_cost_usd": own_cost_usd,
        },
    )
    [row] = await cursor.fetchall()
    said = jsonsafe.loads(row["said"])
    match said["verdict"]:
        case "wait":
            return Wait()
        case "reached" | "unpriced":
            return _reached(agent, model, said)
        case "reserved":
            return bool(said["budgets"])
        case _:
            return False


async def release(conn: Connection, reply_id: UUID) -> None:
    """Free what was reserved for a call that failed and has no reply."""
    await conn.execute(_SQL["release"], {"reply_id": reply_id})


def _reached(agent: str, model: str, said: dict[str, Any]) -> Reached:
    row = said["budget"]
    budget = {
        "id": row["id"],
        "scope": row["scope"],
        "subject": row["subject"],
        "session_id": row["session_id"],
        "period": row["period"],
        "starts_at": row["starts_at"],
        "reason": said["verdict"],
        "cost_usd": row["cost_usd"],
        "total_tokens": row["total_tokens"],
        "spent_usd": row["spent_usd"],
        "spent_tokens": row["spent_tokens"],
    }
    return Reached(agent, budget, _question(agent, model, budget, said))


def _question(agent: str, model: str, budget: dict[str, Any], said: dict[str, Any]) -> str:
    whose = _OF[budget["scope"]].format(subject=budget["subject"])
    when = " of this month" if budget["period"] == "month" else ""
    if budget["reason"] == "unpriced":
        return (
            f"The budget{when} of {whose} is in money, and nobody knows what model {model!r} of "
            f"agent {agent} costs. May it be asked without counting what it costs? Reject ends the "
            "run; a price of your own (Engine(prices=…)) has it counted."
        )
    limits = []
    if budget["cost_usd"] is not None:
        limits.append(f"{budget['spent_usd']} of {budget['cost_usd']} USD")
    if budget["total_tokens"] is not None:
        limits.append(f"{budget['spent_tokens']} of {budget['total_tokens']} tokens")
    takes = f"{said['takes_tokens']} tokens"
    if budget["cost_usd"] is not None:
        takes += f", {said['takes_usd']} USD"
    return (
        f"The budget{when} of {whose} does not allow the next call of agent {agent}: "
        f"{' and '.join(limits)} are spent, and the call may take {takes}. Approve with a higher "
        "limit as arguments, or reject to end the run."
    )

"""How a conversation stands: what its agent does, remembers and was last told by its tools.

Nothing of it is stored: it is read from the runs of the session, in one query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.interruptions.views import shown_output
from perdure.times import rfc3339

_STATE = load_sql("perdure.runs", "session_state.sql")["state"]

_OUTPUTS = 20
_RUNS = 20
"""In how many of the newest runs the last outputs of tools are looked for."""

STATUSES: Final = {
    "queued": "active",
    "running": "active",
    "interrupted": "paused",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""What a run's status says of its conversation."""

_ASKS: Final = {
    "tool_approval": "waits for approval of {tool}",
    "uncertain_effect": "waits to be told whether {tool} happened",
    "budget": "waits for more budget",
    "question": "waits for an answer",
}


async def session_state(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, user_id: str | None = None
) -> dict[str, Any]:
    """Return how a session stands, as the API shows it. ``user_id``: only one of this user.

    Raises:
        NotFoundError: there is no such session.
    """
    params = {
        "tenant_id": tenant_id,
        "session_id": session_id,
        "user_id": user_id,
        "runs": _RUNS,
        "outputs": _OUTPUTS,
    }
    row = await (await conn.execute(_STATE, params)).fetchone()
    if row is None:
        raise NotFoundError("session", session_id)
    return state_shown(jsonsafe.loads(row["state"]))


def state_shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """A session's state as the API shows it, of what the query gives. Pure."""
    run = found["run"] or {}
    return {
        "id": found["session_id"],
        "object": "session_state",
        "status": STATUSES[run["status"]] if run else None,
        "agent": run.get("agent"),
        "current_step": current_step(
            run.get("status"),
            turn=found["turn"],
            under_way=found["under_way"] or (),
            questions=found["questions"] or (),
        ),
        "task": run.get("task"),
        "run_id": run.get("id"),
        "waiting_runs": found["waiting_runs"],
        "last_activity": rfc3339(found["last_activity"]),
        "memory": found["memory"],
        "tool_outputs": [
            {
                **one,
                "output": shown_output(one["output"]),
                "finished_at": rfc3339(one["finished_at"]),
            }
            for one in found["tool_outputs"]
        ],
    }


def current_step(
    status: str | None,
    *,
    turn: int | None,
    under_way: Sequence[str],
    questions: Sequence[Mapping[str, Any]],
) -> str | None:
    """Say in words what a run does: ``under_way`` are tools, ``turn`` counts replies. Pure.

    None where it does nothing any more, or where there is none.
    """
    match status:
        case "queued":
            return "waits for a worker"
        case "running" if under_way:
            return f"runs {', '.join(under_way)}"
        case "running":
            return f"asks the model (turn {(turn or 0) + 1})"
        case "interrupted":
            return "; ".join(
                dict.fromkeys(_ASKS[one["type"]].format(tool=one["tool"]) for one in questions)
            )
    return None

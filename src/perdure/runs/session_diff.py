"""Two sessions of one tree beside each other, turn by turn, after what both read.

Turns are aligned by their number: a replay says the same messages in the same order. Each of the
two is one query, however many turns there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.sessions.comparing import Turn, compare
from perdure.sessions.reading import CHAIN, chain_params
from perdure.sessions.store import get_session
from perdure.sessions.views import item_object, session_object

__all__ = ["diff_sessions"]

_SQL = load_sql("perdure.runs", "session_diff.sql")
_PAIR = _SQL["pair"]
_TURNS = f"{CHAIN}\n{_SQL['turns']}"


async def diff_sessions(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    base_id: UUID | None = None,
    limit: int,
    after: int | None = None,
    user_id: str | None = None,
) -> dict[str, Any]:
    """Return at most ``limit`` turns of two sessions, those after the number ``after``.

    ``base_id``: the other session, by default the one this is a branch of. ``user_id``: only
    sessions of this user.

    Raises:
        NotFoundError: one of the two is not there.
        InvalidRequestError: they are one, or not of one tree; or none is given and it is no branch.
    """
    whose: dict[str, Any] = {"tenant_id": tenant_id, "user_id": user_id}
    session = await get_session(conn, session_id=session_id, **whose)
    base_id = base_id or _parent(session)
    if base_id == session_id:
        raise InvalidRequestError.at("/query/with", "is the session itself.")
    cursor = await conn.execute(_PAIR, {**whose, "session_id": session_id, "base_id": base_id})
    pair = await cursor.fetchone()
    if pair is None:
        raise NotFoundError("session", base_id)
    fork_seq = pair["fork_seq"]
    if fork_seq is None:
        raise InvalidRequestError.at("/query/with", "is no session of the same tree.")
    # Turn 0, what stands after the fork before a user's message, need not be there: one more.
    first = -1 if after is None else after
    page: dict[str, Any] = {"fork_seq": fork_seq, "after": first, "limit": limit + 2}
    base = await _turns(conn, chain_params(tenant_id, base_id, user_id) | page)
    ours = await _turns(conn, chain_params(tenant_id, session_id, user_id) | page)
    numbers = sorted(base.keys() | ours.keys())
    shown = numbers[:limit]
    return {
        "object": "session_diff",
        "base": session_object(jsonsafe.loads(pair["base"])),
        "session": session,
        "fork_seq": fork_seq,
        # Words are compared beside what else this process answers.
        "turns": await asyncio.to_thread(
            lambda: [compare(number, base.get(number), ours.get(number)) for number in shown]
        ),
        "has_more": len(numbers) > len(shown),
    }


def _parent(session: Mapping[str, Any]) -> UUID:
    if session["parent_session_id"] is None:
        raise InvalidRequestError.at("/query/with", "is needed: the session is no branch.")
    return UUID(str(session["parent_session_id"]))


async def _turns(conn: Connection, params: Mapping[str, Any]) -> dict[int, Turn]:
    turns: dict[int, Turn] = {}
    for row in await (await conn.execute(_TURNS, params)).fetchall():
        turn = turns.setdefault(row["turn"], Turn())
        if row["shown"] is not None:
            turn.items.append(item_object(jsonsafe.loads(row["shown"])))
        elif row["input"] is not None:
            turn.input = jsonsafe.loads(row["input"])
        if turn.run_id is None and row["run_id"] is not None:
            turn.run_id, turn.run_status = str(row["run_id"]), row["run_status"]
    return turns

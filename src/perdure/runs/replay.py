"""A conversation's messages said again: as runs of a branch, one after the other.

The branch begins just before the first message that is replayed, so it reads what was said before;
one run for each turn of the user waits in it for its own. The branch and all its runs are one
transaction, so that a crash finds all of a replay or none; that they come one after the other,
whatever becomes of each, is what runs of any session do (in_session.py).

What is replayed is the session as it was then: it is held while it is read, and the runs have the
messages as their input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.access.principals import Principal
from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.paging import PageRequest
from perdure.runs.store import NewRun, RunFilter, Tools, list_runs, start_run
from perdure.sessions.branching import branch_session, hold
from perdure.sessions.reading import Said, messages

__all__ = ["MAX_MESSAGES", "Replay", "Replayed", "replay_session"]

MAX_MESSAGES = 200
"""Messages of one replay."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What is said again, and to whom.

    ``context`` is JSON, as ``Registry.check_start`` gives it back, for each run. ``from_seq`` and
    ``to_seq`` are the first and the last number of the session's items that may be replayed; None:
    from its beginning, to its end. Title and system prompt are the session's where none is given.
    """

    agent: str
    max_turns: int
    context: Any = None
    model: str | None = None
    tools: Tools = "ask"
    system_prompt: str | None = None
    from_seq: int | None = None
    to_seq: int | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The branch, and its runs in order, as the API shows them."""

    session: dict[str, Any]
    runs: list[dict[str, Any]]


async def replay_session(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    replay: Replay,
    by: Principal,
    user_id: str | None = None,
) -> Replayed:
    """Make a branch of a session with a run for each turn of the user in a range of its items.

    One transaction, or part of the one ``conn`` is in. ``user_id``: only a session of this user.

    Raises:
        NotFoundError: there is no such session.
        InvalidRequestError: the range is none of the session's, holds no message of a user or too
            many, or a field is wrong.
        ConflictError: the session is as deep in its tree as one can be.
    """
    async with conn.transaction():
        whose: dict[str, Any] = {
            "tenant_id": tenant_id,
            "session_id": session_id,
            "user_id": user_id,
        }
        source = await hold(conn, **whose)
        first, last = _range(replay, source["last_seq"])
        said = await messages(conn, **whose, from_seq=first, to_seq=last, limit=MAX_MESSAGES + 1)
        if not said:
            raise InvalidRequestError.at(
                "/from_seq", f"begins a range without a message of a user: {first} to {last}."
            )
        if len(said) > MAX_MESSAGES:
            raise InvalidRequestError.at(
                "/to_seq",
                f"ends a range of more than {MAX_MESSAGES} messages of users, which is too many "
                f"at once. Give a range that ends before item {said[-1].seq}.",
            )
        branch = await branch_session(
            conn,
            **whose,
            by=by,
            from_seq=said[0].seq - 1,
            title=replay.title,
            system_prompt=replay.system_prompt,
        )
        branch_id = UUID(branch["id"])
        # Sent together: what each answers nobody needs.
        async with conn.pipeline():
            for turn in _turns(said):
                new = NewRun(
                    tenant_id=tenant_id,
                    agent=replay.agent,
                    input=[one.item for one in turn],
                    max_turns=replay.max_turns,
                    context=replay.context,
                    user_id=source["user_id"],
                    session_id=branch_id,
                    started_by=by.as_requester(),
                    model=replay.model,
                    tools=replay.tools,
                    replays_seq=turn[0].seq,
                )
                await start_run(conn, new)
        page = await list_runs(
            conn,
            tenant_id=tenant_id,
            only=RunFilter(session_id=branch_id),
            page=PageRequest(MAX_MESSAGES, None, "asc"),
        )
    return Replayed(branch, [dict(run) for run in page.data])


def _range(replay: Replay, last_seq: int) -> tuple[int, int]:
    if last_seq == 0:
        raise InvalidRequestError.at("/from_seq", "is not possible: the session has no items.")
    first = 1 if replay.from_seq is None else replay.from_seq
    if not 1 <= first <= last_seq:
        raise InvalidRequestError.at(
            "/from_seq", f"has to be between 1 and {last_seq}, the last number."
        )
    last = last_seq if replay.to_seq is None else replay.to_seq
    if not first <= last <= last_seq:
        raise InvalidRequestError.at(
            "/to_seq", f"has to be between {first} and {last_seq}, the last number."
        )
    return first, last


def _turns(said: Iterable[Said]) -> list[list[Said]]:
    """Return messages by turn: those of one input that follow each other are one."""
    turns: list[list[Said]] = []
    for one in said:
        if one.goes_on and turns:
            turns[-1].append(one)
        else:
            turns.append([one])
    return turns

"""The rows of run states: one written, one read whole. How they are stored is said in parts.py."""

from __future__ import annotations

from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import NotFoundError
from perdure.runs.parts import Parts
from perdure.runs.state import StoredState, WholeState

__all__ = ["read_state", "write_state"]

_SQL = load_sql("perdure.runs", "states.sql")


async def write_state(
    conn: Connection, *, run_id: UUID, seq: int, kind: str, state: StoredState, quoted: bool = False
) -> UUID:
    """Write a run's state, from now on its one active one, with its events; returns its id.

    ``quoted``: whether the tool calls it names were seen to have what it leaves to their rows, in
    this transaction; else all of it is written. A state of another run is made with
    ``WholeState.of_a_new_run``.

    Raises:
        psycopg.IntegrityError: the run has this state already, or parts it was not cut with.
    """
    state_id = uuid7()
    cut = state.cut
    await conn.execute(_SQL["retire"], {"run_id": run_id})
    await conn.execute(
        _SQL["insert"],
        {
            "id": state_id,
            "run_id": run_id,
            "state_seq": seq,
            "kind": kind,
            "schema_version": state.schema_version,
            "sdk_version": state.sdk_version,
            "current_agent": state.current_agent,
            "turn": state.turn,
            "body": cut.body,
            "parts": cut.parts if quoted else cut.unquoted(),
            "first_part": cut.first_part,
            "size_bytes": cut.size_bytes,
        },
    )
    return state_id


async def read_state(conn: Connection, *, run_id: UUID, seq: int) -> WholeState:
    """Return a run's state whole, as the SDK serialized it. The tenant is the caller's to check.

    Raises:
        NotFoundError: the run has no state of this number.
        LookupError: what a tool returned is gone, which the state leaves to the call's row.
    """
    cursor = await conn.execute(_SQL["read"], {"run_id": run_id, "seq": seq})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("state of run", run_id)
    text = row["state"]
    if row["body"] is not None:
        text = Parts().whole(row["body"], row["parts"], row["quotes"])
    return WholeState(
        data=jsonsafe.loads(text),
        schema_version=row["schema_version"],
        sdk_version=row["sdk_version"],
        current_agent=row["current_agent"],
        turn=row["turn"],
    )

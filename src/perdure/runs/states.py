"""Run states as rows: written here, whoever has one to write, and read back whole."""

from __future__ import annotations

from uuid import UUID

from perdure.db import Connection, load_sql, uuid7
from perdure.errors import NotFoundError
from perdure.runs.state import StoredState

__all__ = ["read_state", "write_state"]

_SQL = load_sql("perdure.runs", "states.sql")
_INSERT_STATE = _SQL["insert_state"]
_READ_STATE = _SQL["read_state"]


async def write_state(
    conn: Connection, *, run_id: UUID, seq: int, kind: str, state: StoredState
) -> None:
    """Write a state of a run as its active one, and tell whoever watches.

    Part of the transaction ``conn`` is in, which has the run to itself and has retired the state
    before.
    """
    await conn.execute(
        _INSERT_STATE,
        {
            "run_id": run_id,
            "state_seq": seq,
            "id": uuid7(),
            "kind": kind,
            "schema_version": state.schema_version,
            "sdk_version": state.sdk_version,
            "current_agent": state.current_agent,
            "turn": state.turn,
            "state": state.text,
            "size_bytes": len(state.text),
        },
    )


async def read_state(conn: Connection, run_id: UUID, seq: int) -> str:
    """Return a state of a run as JSON text, whole, as ``jsonsafe.loads`` reads it.

    Raises:
        NotFoundError: the run has none of this number.
    """
    cursor = await conn.execute(_READ_STATE, {"run_id": run_id, "state_seq": seq})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError(f"checkpoint {seq} of run", run_id)
    return str(row["state"])

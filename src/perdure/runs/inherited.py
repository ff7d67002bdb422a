"""What a fork's calls are answered with instead of being made: outcomes of the run it came from.

A call is answered by one of the same tool with the same canonical arguments that its parent made
after the checkpoint and that succeeded; of several, the n-th by the n-th, at whatever depth each
was made. The answer is recorded as the call's own outcome, with whose it was (``ORIGIN``), so it is
given once however often the fork is begun again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.interruptions.digest import canonical

__all__ = ["ORIGIN", "Inherited", "inherited_by"]

_OUTCOMES = load_sql("perdure.runs", "inherited.sql")["outcomes"]

ORIGIN: Final = "answered_from"
"""Where a recorded output says whose it was: ``run_id`` and ``tool_call_id``."""
_EXACT_KINDS: Final = frozenset({"function", "mcp", "custom", "agent"})


class Inherited:
    """Outcomes by tool and arguments, less those an execution has taken. Pure."""

    def __init__(self, outcomes: Iterable[Mapping[str, Any]] = ()) -> None:
        self._left: dict[bytes, deque[dict[str, Any]]] = defaultdict(deque)
        self._taken: dict[tuple[str, str, bytes], dict[str, Any]] = {}
        for row in outcomes:
            arguments = row["arguments"]
            if row["kind"] == "custom" and arguments is None:
                arguments = {"input": row["arguments_raw"] or ""}
            key = _key(row["tool"], row["kind"], arguments)
            if key is not None and row["output"] is not None:
                origin = {"run_id": row["run_id"], "tool_call_id": row["id"]}
                self._left[key].append({**row["output"], ORIGIN: origin})

    def answer(
        self,
        scope: str,
        call_id: str,
        *,
        tool: str,
        kind: str,
        arguments: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        """Return the stored output that answers a call, the same each time it is asked for.

        None: there is none such, or others have taken them all.
        """
        key = _key(tool, kind, arguments)
        if key is None:
            return None
        place = scope, call_id, key
        if place not in self._taken:
            left = self._left.get(key)
            if not left:
                return None
            self._taken[place] = left.popleft()
        return self._taken[place]


def _key(tool: str, kind: str, arguments: Mapping[str, Any] | None) -> bytes | None:
    if not isinstance(arguments, Mapping):
        return None
    if kind not in _EXACT_KINDS:
        # Native tools fill in null where the model said nothing.
        arguments = {name: value for name, value in arguments.items() if value is not None}
    try:
        return canonical({"tool": tool, "kind": kind, "arguments": arguments})
    except ValueError:
        return None


async def inherited_by(conn: Connection, run_id: UUID) -> Inherited:
    """Return what the calls of a fork may be answered with, as its parent stands now."""
    cursor = await conn.execute(_OUTCOMES, {"run_id": run_id})
    [row] = await cursor.fetchall()
    return Inherited(jsonsafe.loads(row["outcomes"]))

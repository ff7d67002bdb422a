"""What the SDK's compaction asks of a session beyond the protocol, so that it replaces in one go.

Leans on the SDK's inside: ``OpenAIResponsesCompactionSession`` asks what it wraps for
``_get_compaction_snapshot``. Without it compaction would clear the session and append to it, and
what came in between would be lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agents import TResponseInputItem
from agents.memory.session import _CompactionSnapshot as Snapshot

from perdure.sessions.reading import Stored

__all__ = ["Replace", "Snapshot", "snapshot"]

Replace = Callable[[Sequence[Stored], list[TResponseInputItem]], Awaitable[bool]]
"""Puts items in the place of the newest ones, if these still are those; says whether it did."""


def snapshot(stored: Sequence[Stored], limit: int, replace: Replace) -> Snapshot:
    """Return the newest ``limit`` of ``stored``, which were read with one more where there was."""
    newest = stored[-limit:] if limit > 0 else []

    async def replace_suffix(start: int, items: list[TResponseInputItem]) -> bool:
        expected = newest[start:]
        return bool(expected) and await replace(expected, items)

    return Snapshot([one.item for one in newest], len(stored) <= limit, replace_suffix)

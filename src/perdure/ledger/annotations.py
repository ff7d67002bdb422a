"""What a tool says about what it gave: its sources, what of a text is meant.

It is stored with the call's output, so it is there if that is, and once. The item of the output has
it as its ``metadata``, and so has the next message of the run's agent: the answer it went into.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.errors import ConfigurationError, InvalidRequestError
from perdure.ledger.journal import RecordedCall
from perdure.ledger.plain import copied

__all__ = ["AnnotatedCalls", "Annotations"]

MAX_CHARACTERS = 100_000
"""Of the JSON of all that one call says."""
_KEY = "metadata"


class Annotations:
    """What one attempt of a call has said so far."""

    def __init__(self, *, tool: str, run_id: str) -> None:
        self._where = f"Tool {tool} of run {run_id}"
        self._said: dict[str, Any] = {}
        self._over = False
        # Plain tools run in threads, and may go on after a time-out.
        self._lock = threading.Lock()

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Keep it, later values in the place of earlier ones; raises as ``annotate`` does."""
        with self._lock:
            if self._over:
                raise ConfigurationError(
                    f"{self._where} called annotate() after its call was over: call it before the "
                    "tool returns."
                )
            try:
                self._said = copied({**self._said, **metadata}, most=MAX_CHARACTERS)
            except ValueError as error:
                raise InvalidRequestError.at(
                    "/metadata", f"{self._where} called annotate() with what {error}"
                ) from error

    def onto(self, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return an output to store with what was said; from now on nothing is."""
        with self._lock:
            self._over = True
            return {**stored, _KEY: self._said} if stored and self._said else stored


class AnnotatedCalls:
    """What calls of an execution said, by the call at the top that they are, or are beneath."""

    def __init__(self, recorded: Iterable[RecordedCall] = ()) -> None:
        self._said: dict[str, dict[str, Any]] = {}
        for call in sorted(recorded, key=lambda one: one.id):
            self.add(call.scope, call.call_id, call.output)

    def __bool__(self) -> bool:
        return bool(self._said)

    def add(self, scope: str, call_id: str, stored: Mapping[str, Any] | None) -> None:
        """Take what was stored of a call as its output."""
        said = None if stored is None else stored.get(_KEY)
        if said:
            self._said.setdefault(scope.partition("/")[0] or call_id, {}).update(said)

    def onto(
        self, rows: Sequence[dict[str, Any]], *, pending: Iterable[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return rows of a run's items with their ``metadata``.

        An output's is that of its call; the next message of an agent has all since the last one.
        ``pending`` is that of outputs before these rows that no message has followed.
        """
        told = []
        since: dict[str, Any] = {}
        for earlier in pending:
            since.update(earlier)
        for row in rows:
            metadata: dict[str, Any] = {}
            if row["type"] == "tool_call_output":
                metadata = self._said.get(str(row["item"].get("call_id")), {})
                since.update(metadata)
            elif row["type"] == "message_output":
                metadata, since = since, {}
            told.append({**row, _KEY: metadata})
        return told

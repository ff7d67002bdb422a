"""What a tool says it changed: kept while its call runs, written with the call's outcome.

A call whose outcome is not recorded has changed nothing that anybody knows of, and one that runs
again says it again: so each operation is there once, if the outcome is, and not without it.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from perdure.db import uuid7
from perdure.errors import ConfigurationError, InvalidRequestError
from perdure.ledger.plain import copied

__all__ = ["MAX_KIND", "NOT_TEXT", "Operations"]

MAX_KIND = 50
MAX_TARGET = 255
MAX_STATE = 1024 * 1024
"""Characters of a state's JSON."""
NOT_TEXT = re.compile("[\0\ud800-\udfff\ue000]")
"""What no name may hold, as the database could not keep it as it is."""


class Operations:
    """What one attempt of a call has recorded so far; ``kinds`` are those it may."""

    def __init__(self, kinds: frozenset[str], *, tool: str, run_id: str) -> None:
        self._kinds = kinds
        self._where = f"Tool {tool} of run {run_id}"
        self._rows: list[dict[str, Any]] | None = []
        # Plain tools run in threads, and may go on after a time-out.
        self._lock = threading.Lock()

    def add(self, kind: Any, target: Any, previous: Any, new: Any) -> None:
        """Keep one; raises as ``record_operation`` does."""
        if not isinstance(kind, str) or kind not in self._kinds:
            declared = ", ".join(sorted(self._kinds)) or "none"
            raise ConfigurationError(
                f"{self._where} recorded an operation of the kind {kind!r}, and the engine "
                f"declares {declared}. Declare it: Engine(operations=[…, {kind!r}])."
            )
        if (
            not isinstance(target, str)
            or not 1 <= len(target) <= MAX_TARGET
            or NOT_TEXT.search(target)
        ):
            raise self._refused("target", f"has to be text of 1 to {MAX_TARGET} characters.")
        row = {
            "id": str(uuid7()),
            "kind": kind,
            "target": target,
            "previous": self._copy("previous", previous),
            "new": self._copy("new", new),
        }
        with self._lock:
            if self._rows is None:
                raise ConfigurationError(
                    f"{self._where} recorded an operation on {target!r} after its call was over: "
                    "record it before the tool returns."
                )
            self._rows.append(row)

    def close(self) -> list[dict[str, Any]]:
        """Return what was recorded; from now on nothing is."""
        with self._lock:
            rows, self._rows = self._rows or [], None
        return rows

    def _copy(self, name: str, state: Any) -> Any:
        """Return ``state`` as it is now: the tool may go on changing it."""
        try:
            return copied(state, most=MAX_STATE)
        except ValueError as error:
            raise self._refused(name, str(error)) from error

    def _refused(self, name: str, why: str) -> InvalidRequestError:
        return InvalidRequestError.at(
            f"/{name}", f"{self._where} recorded an operation whose {name} {why}"
        )

"""What people let run: the approvals a segment goes on with, checked against what would run.

An approval is bound to a digest of what was shown. It is checked twice: before the SDK goes on,
against the stored state, the ledger's row and the tools of this build, and right before the call
begins, against what the SDK hands over. Nothing that differs is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.errors import StopSegment
from perdure.interruptions.digest import parse_object, same_json
from perdure.interruptions.rules import UNSET

__all__ = ["Approval", "Tampered", "approvals_of"]


class Tampered(StopSegment):
    """What is about to run is not what was approved: stored data was changed from outside."""

    def __init__(self, run_id: UUID, *, tool: str, call_id: str) -> None:
        super().__init__(
            run_id,
            f"Run {run_id}: call {call_id} of {tool} is not what was approved any more: its stored "
            "state or its row in the ledger was changed from outside. It was not executed. Restore "
            "the row from a backup and resume the run, or start another one.",
        )


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that people let run, or a question they answered.

    ``arguments`` are those to run it with, ``original`` those the model wrote, both as they stand
    in the interruption: text where that is no JSON object. ``answer`` is what a question was
    answered with, ``UNSET`` where it is none.
    """

    interruption_id: UUID
    scope: str
    call_id: str
    tool: str
    schema: dict[str, Any] | None
    digest: str
    base_seq: int
    arguments: Any
    original: Any
    answer: Any = UNSET
    bound: bool = True
    """Whether the decision names the very digest the interruption has now."""

    @property
    def edited(self) -> bool:
        """Whether it is to run with other arguments than the model's."""
        return self.arguments is not self.original

    @property
    def amended(self) -> str | None:
        """The arguments to run it with instead of the model's, as JSON text; None: the model's."""
        if not self.edited:
            return None
        return json.dumps(self.arguments, ensure_ascii=False, separators=(",", ":"))

    def allows(self, arguments: Mapping[str, Any] | None, raw: str | None) -> bool:
        """Whether a call may run with these arguments: an object, or the text of one."""
        return _are(self.arguments, arguments, raw)

    def is_about(self, arguments: Mapping[str, Any] | None, raw: str | None) -> bool:
        """Whether the model asked for a call with these arguments."""
        return _are(self.original, arguments, raw)


def _are(shown: Any, arguments: Mapping[str, Any] | None, raw: str | None) -> bool:
    if arguments is None and raw is not None:
        arguments = parse_object(raw)
    if isinstance(shown, Mapping):
        return arguments is not None and same_json(_given(shown), _given(arguments))
    return arguments is None and (raw or "") == (shown or "")


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given: native tools fill in null where the model said nothing."""
    return {key: value for key, value in arguments.items() if value is not None}


def approvals_of(decisions: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Approval]:
    """Return the approvals among ``decisions`` (as segment.sql loads them) by scope and call id."""
    approvals = (
        Approval(
            interruption_id=UUID(row["interruption_id"]),
            scope=row["scope"],
            call_id=row["call_id"],
            tool=row["tool"]["name"],
            schema=row["tool"]["schema"],
            digest=row["digest"],
            base_seq=row["base_seq"],
            arguments=row["tool"]["arguments"],
            original=row["tool"].get("original_arguments", row["tool"]["arguments"]),
            answer=row["answer"] if row["decision"] == "answer" else UNSET,
            bound=row["executes"] in (None, row["digest"]),
        )
        for row in decisions
        if row["decision"] in ("approve", "answer")
    )
    return {(one.scope, one.call_id): one for one in approvals}

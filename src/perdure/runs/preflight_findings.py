"""What a preflight finds: what a run would stop at in a build, and what would go on otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

Kind = Literal[
    "agent_removed",
    "context_rejected",
    "model_unknown",
    "mcp_unavailable",
    "state_rejected",
    "tampered",
    "tool_removed",
    "schema_changed",
    "effect_doubtful",
    "replies_unmatched",
    "task_unknown",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was: ``why`` says what happens, ``do`` what to do about it.

    ``agent`` and ``tool`` are those it is about.
    """

    kind: Kind
    why: str
    do: str
    agent: str
    tool: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the command's JSON shows it."""
        return {
            "kind": self.kind,
            "agent": self.agent,
            "tool": self.tool,
            "why": self.why,
            "do": self.do,
        }


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A run that was looked at, and its ``status`` at that moment.

    ``problem`` is why it could not be resumed, None if it could; ``notices`` are what would be
    otherwise if it is: people asked again, mostly.
    """

    run_id: UUID
    tenant_id: UUID
    status: str
    agent: str
    problem: Finding | None = None
    notices: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as the command's JSON shows it."""
        return {
            "run_id": str(self.run_id),
            "tenant_id": str(self.tenant_id),
            "status": self.status,
            "agent": self.agent,
            "problem": None if self.problem is None else self.problem.as_dict(),
            "notices": [one.as_dict() for one in self.notices],
        }


@dataclass(slots=True)
class PreflightReport:
    """What was found of all runs that have not ended; those nothing was found of are counted."""

    looked_at: dict[str, int] = field(
        default_factory=lambda: {"queued": 0, "running": 0, "interrupted": 0}
    )
    """How many runs were looked at, by status."""
    failing: list[LookedAt] = field(default_factory=list)
    """Those this build could not resume."""
    noticed: list[LookedAt] = field(default_factory=list)
    """Those it resumes, and not quite as the build before."""

    def add(self, one: LookedAt) -> None:
        """Count a run, and keep it where there is something to say of it."""
        self.looked_at[one.status] += 1
        if one.problem is not None:
            self.failing.append(one)
        elif one.notices:
            self.noticed.append(one)

    @property
    def runs(self) -> int:
        """How many runs were looked at."""
        return sum(self.looked_at.values())

    @property
    def ok(self) -> bool:
        """Whether all of them could be resumed."""
        return not self.failing

    def as_dict(self) -> Mapping[str, Any]:
        """Return it as the command's JSON shows it."""
        return {
            "object": "preflight",
            "ok": self.ok,
            "runs": self.runs,
            "looked_at": dict(self.looked_at),
            "failing": [one.as_dict() for one in self.failing],
            "noticed": [one.as_dict() for one in self.noticed],
        }

"""What doctor says: one finding for each thing it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``found`` says how it stands, with figures; ``remedy`` what mends it.

    ``name`` is stable. ``remedy`` is a sentence, a command or a setting, empty where all is well.
    """

    level: Level
    name: str
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding("ok", name, found)


def warning(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that somebody should look at; runs go on."""
    return Finding("warning", name, found, remedy)


def error(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that keeps runs from going on, or a promise from being kept."""
    return Finding("error", name, found, remedy)


def status(findings: Sequence[Finding]) -> Level:
    """Return the worst level among ``findings``; ``ok`` of none."""
    return max((one.level for one in findings), key=LEVELS.index, default="ok")


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the document that ``perdure doctor --json`` prints."""
    return {
        "object": "doctor",
        "status": status(findings),
        "findings": [
            {"name": one.name, "level": one.level, "found": one.found, "remedy": one.remedy or None}
            for one in findings
        ],
    }


def lasting(seconds: float) -> str:
    """Return roughly how long ``seconds`` are: ``0.4 s``, ``12 s``, ``5 min``, ``2 h 11 min``."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, below, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 segment``, ``2 segments``; ``many`` is the plural where it is no mere ``s``."""
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"

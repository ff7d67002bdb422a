"""How long what is kept: ``completed=90d,failed=180d,events=30d``. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from perdure.errors import ConfigurationError

__all__ = ["STATUSES", "Retention", "parse_age", "parse_retention"]

STATUSES = ("completed", "failed", "cancelled")
_AGE = re.compile(r"(\d{1,5})\s*(h|d|w)", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long runs are kept after they ended, by status, and events of ended runs.

    What is not named is kept for ever.
    """

    runs: Mapping[str, timedelta] = field(default_factory=dict)
    events: timedelta | None = None

    def __bool__(self) -> bool:
        return bool(self.runs) or self.events is not None


def parse_age(text: str) -> timedelta | None:
    """Return ``36h``, ``90d``, ``12w`` as a duration, None for what is none."""
    found = _AGE.fullmatch(text.strip())
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def parse_retention(text: str, *, name: str = "PERDURE_RETENTION") -> Retention:
    """Return what a setting says; ``name`` is whose it is, for the error.

    Raises:
        ConfigurationError: a word that is neither a final status nor ``events``, one said twice, or
            a duration that is none.
    """
    ages: dict[str, timedelta] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        what, _, given = part.partition("=")
        what, age = what.strip(), parse_age(given)
        if what not in (*STATUSES, "events") or age is None or what in ages:
            raise ConfigurationError(
                f"{name} has {part!r}. It has to look like completed=90d,failed=180d,events=30d: "
                f"each of {', '.join(STATUSES)} and events once at most, in hours, days or weeks "
                "(36h, 90d, 12w)."
            )
        ages[what] = age
    return Retention(
        {status: age for status, age in ages.items() if status != "events"}, ages.get("events")
    )

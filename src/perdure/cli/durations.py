"""Times people type: ``2h`` from now, or a moment. Pure."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d{1,9})\s*(s|min|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_or_moment(text: str) -> int | str:
    """Return ``90s``, ``15m``, ``2h``, ``7d``, ``2w`` in seconds, and any other text as it is."""
    found = _DURATION.fullmatch(text.strip())
    return int(found[1]) * _SECONDS[found[2]] if found else text.strip()

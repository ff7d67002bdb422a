"""JSON that a tool hands over beside its output: copied at once, as it may go on changing it."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["copied"]

MAX_DEPTH = 64


def copied(value: Any, *, most: int) -> Any:
    """Return a copy of JSON that shares nothing with ``value``.

    Raises:
        ValueError: it is no JSON, longer than ``most`` characters, or nested deeper than 64; the
            message goes on after the name of what it is.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}.") from error
    if len(text) > most:
        raise ValueError(f"is JSON of {len(text)} characters; {most} are allowed.")
    copy = json.loads(text)
    if _is_deeper(copy, MAX_DEPTH):
        raise ValueError(f"is nested deeper than {MAX_DEPTH}.")
    return copy


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)

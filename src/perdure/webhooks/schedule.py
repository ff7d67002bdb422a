"""When a delivery is tried again, and what an answer means. Pure.

The delays are those the Standard Webhooks specification suggests: about three days of trying.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DELAYS_SECONDS", "Sent", "Verdict", "judge"]

DELAYS_SECONDS = (
    5.0,
    5 * 60.0,
    30 * 60.0,
    2 * 3600.0,
    5 * 3600.0,
    10 * 3600.0,
    14 * 3600.0,
    20 * 3600.0,
    24 * 3600.0,
)
"""How long after each attempt that failed the next one is made; after the last there is none."""
JITTER = 0.1
"""By how much of itself a delay is longer at most: what failed together does not return so."""
LONGEST_WISH_SECONDS = 24 * 3600.0
"""How long a receiver may ask to be left alone."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one attempt.

    ``status_code`` is None where there was no answer, ``error`` then says why. ``response`` is the
    beginning of the answer's body, ``retry_after`` (seconds) what it asked for.
    """

    latency_ms: int
    status_code: int | None = None
    error: str | None = None
    response: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt means for its delivery: ``retry_seconds`` is the delay, with ``pending``."""

    status: Literal["delivered", "pending", "failed"]
    error: str | None = None
    retry_seconds: float | None = None
    disable: bool = False


def judge(sent: Sent, tries: int, delays: tuple[float, ...] = DELAYS_SECONDS) -> Verdict:
    """Return what the attempt numbered ``tries`` (from 1 on) means.

    Any 2xx is a success. 410 ends the webhook. Everything else, redirects too, is tried again for
    as long as ``delays`` last.
    """
    code = sent.status_code
    if code is not None and 200 <= code < 300:
        return Verdict("delivered")
    if code == 410:
        return Verdict("failed", "It answered 410 Gone.", disable=True)
    if code is None:
        error = sent.error or "There was no answer."
    elif 300 <= code < 400:
        error = f"It answered {code}: redirects are not followed."
    else:
        error = f"It answered {code}."
    if tries > len(delays):
        return Verdict("failed", error)
    wish = min(sent.retry_after or 0.0, LONGEST_WISH_SECONDS) if code in (429, 503) else 0.0
    return Verdict("pending", error, retry_seconds=max(delays[tries - 1], wish))

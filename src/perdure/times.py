"""Moments as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def rfc3339(moment: datetime | str) -> str: ...
@overload
def rfc3339(moment: datetime | str | None) -> str | None: ...
def rfc3339(moment: datetime | str | None) -> str | None:
    """Return a moment as RFC 3339 in UTC with microseconds, ending in ``Z``; None stays None.

    Takes an aware datetime, or the text Postgres puts into JSON for a ``timestamptz``.
    """
    if moment is None:
        return None
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

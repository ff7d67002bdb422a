"""What was used and spent in a period, in groups: by agent, model, user, day. Within one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal, get_args
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError
from perdure.times import rfc3339

__all__ = [
    "COUNTS",
    "GROUPS",
    "MAX_DAYS",
    "MAX_ROWS",
    "GroupBy",
    "UsageOfPeriod",
    "Wanted",
    "pieces",
    "usage_of_period",
]

_SQL = load_sql("perdure.ledger", "usage.sql")

GroupBy = Literal["agent", "model", "user", "day"]
GROUPS: Final[tuple[GroupBy, ...]] = get_args(GroupBy)
_FIELDS: Final = {"agent": "agent", "model": "model", "user": "user_id", "day": "day"}
MAX_ROWS = 1000
"""Rows given at a time."""
MAX_DAYS = 400
"""How long a period may be that is asked for day by day."""
_TICK = timedelta(microseconds=1)
COUNTS: Final = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
)
"""What is counted of requests, wherever it is shown."""
_SUMS = ("requests", "unpriced_requests", *COUNTS[1:])


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which usage, in which groups, and which rows of them.

    ``since`` is inclusive and by default the beginning of the day (UTC) 30 days before ``until``,
    which is exclusive and by default now. ``agent``, ``model``, ``user_id``: only that one's.
    """

    group_by: Sequence[GroupBy] = ()
    since: datetime | None = None
    until: datetime | None = None
    agent: str | None = None
    model: str | None = None
    user_id: str | None = None
    limit: int = MAX_ROWS
    offset: int = 0


@dataclass(frozen=True, slots=True)
class UsageOfPeriod:
    """Rows as the API shows them, and of which period they are."""

    since: datetime
    until: datetime
    rows: Sequence[dict[str, Any]]
    has_more: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the list as the API shows it."""
        return {
            "object": "list",
            "data": list(self.rows),
            "has_more": self.has_more,
            "from": rfc3339(self.since),
            "to": rfc3339(self.until),
        }


async def usage_of_period(conn: Connection, *, tenant_id: UUID, wanted: Wanted) -> UsageOfPeriod:
    """Return what was used, by day and then the dearest first.

    Raises:
        InvalidRequestError: the period ends before it begins, or has too many days.
    """
    async with conn.transaction():
        await conn.execute(_SQL["one_moment"])
        given = {"since": wanted.since, "until": wanted.until}
        [period] = await (await conn.execute(_SQL["period"], given)).fetchall()
        since, until, now = period["since"], period["until"], period["now"]
        _check(since, until, wanted.group_by)
        params = {
            "tenant_id": tenant_id,
            "group_by": list(wanted.group_by),
            "agent": _stored(wanted.agent),
            "model": _stored(wanted.model),
            "user_id": _stored(wanted.user_id),
            "most": wanted.limit + 1,
            "offset": wanted.offset,
            # Today is whole: nothing is later than now.
            **pieces(
                since,
                until if until < now else max(until, _next_midnight(now)),
                period["closed_to"],
            ),
        }
        rows = await (await conn.execute(_SQL["usage"], params, prepare=False)).fetchall()
    return UsageOfPeriod(
        since=since,
        until=until,
        rows=[_row(row, wanted.group_by) for row in rows[: wanted.limit]],
        has_more=len(rows) > wanted.limit,
    )


def pieces(since: datetime, upto: datetime, closed_to: date) -> dict[str, date | datetime]:
    """Return what a period consists of: whole days, and what is read request by request.

    The latter in three parts, of which some may be empty (from >= to): ``open`` is what is not
    closed, ``head`` and ``tail`` are the two ends of the period where those are parts of closed
    days. ``closed_to`` is the first day (UTC) that is not closed.
    """
    closed_at = _midnight(closed_to)
    first, end = _next_midnight(since - _TICK), _midnight(upto.astimezone(UTC).date())
    return {
        "first_day": first.date(),
        "end_day": end.date(),
        "open_from": max(since, closed_at),
        "open_to": upto,
        "head_from": since,
        "head_to": min(first, closed_at, upto),
        "tail_from": max(first, end),
        "tail_to": min(upto, closed_at),
    }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _next_midnight(moment: datetime) -> datetime:
    return _midnight(moment.astimezone(UTC).date() + timedelta(days=1))


def _check(since: datetime, until: datetime, group_by: Sequence[GroupBy]) -> None:
    for name, moment in (("from", since), ("to", until)):
        if not 1970 <= moment.astimezone(UTC).year < 9000:
            raise InvalidRequestError.at(f"/query/{name}", "is no time there is usage of.")
    if since > until:
        raise InvalidRequestError.at("/query/from", "is after the end of the period.")
    if "day" in group_by and until - since > timedelta(days=MAX_DAYS):
        raise InvalidRequestError.at(
            "/query/from", f"is more than {MAX_DAYS} days before the end; by day that is too long."
        )


def _stored(text: str | None) -> str | None:
    return None if text is None else jsonsafe.protect_text(text)


def _row(row: Any, group_by: Sequence[GroupBy]) -> dict[str, Any]:
    found = jsonsafe.loads(row["groups"])
    groups = {_FIELDS[group]: found[_FIELDS[group]] for group in GROUPS if group in group_by}
    sums = {name: int(row[name]) for name in _SUMS}
    return {"object": "usage_sum", **groups, **sums, "cost_usd": row["cost_usd"]}

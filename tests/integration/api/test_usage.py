"""What runs used and cost over a period, over HTTP: exact, whatever is closed and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, Pool
from perdure.ledger.usage import MAX_ROWS, pieces
from perdure.runs import store
from perdure.web.usage_answers import UsageSums
from perdure.worker.closing import close_day
from tests.factories import insert_run, insert_tenant
from tests.integration.api.reading import read

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]

_SUMS = ("requests", "unpriced_requests", "input_tokens", "total_tokens")


async def used(
    conn: Connection, run_id: UUID, *, model: str, cost: str | None, hours_ago: float
) -> None:
    """One request of a run, so long ago: 100 tokens in, 20 out."""
    await conn.execute(
        """
        WITH reply AS (
            INSERT INTO perdure.model_responses (id, run_id, tenant_id, segment, base_seq, scope,
                agent, input_hash, model, output, latency_ms)
            SELECT perdure.uuid7(), id, tenant_id, 1, 0, '', agent, 'h', %(model)s, '[]', 1
            FROM perdure.runs WHERE id = %(run)s
            RETURNING *
        )
        INSERT INTO perdure.request_usage_entries (id, run_id, model_response_id, tenant_id, agent,
            model, input_tokens, output_tokens, total_tokens, cost_usd, price, price_date,
            price_source, created_at)
        SELECT id, run_id, id, tenant_id, agent, model, 100, 20, 120, %(cost)s::numeric,
            CASE WHEN %(cost)s IS NOT NULL THEN '{"input_mtok": "1"}'::jsonb END,
            CASE WHEN %(cost)s IS NOT NULL THEN '2026-01-01'::date END,
            CASE WHEN %(cost)s IS NOT NULL THEN 'own' END,
            now() - make_interval(secs => %(ago)s * 3600)
        FROM reply
        """,
        {"run": run_id, "model": model, "cost": cost, "ago": hours_ago},
    )


async def sums(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = read(UsageSums, await client.get("/v1/usage", params=query))
    rows: list[dict[str, Any]] = answer["data"]
    return rows


async def total(client: httpx.AsyncClient, **query: Any) -> tuple[Any, ...]:
    """Requests, unpriced ones, tokens in, all tokens, cost: of the one row there is."""
    [row] = await sums(client, **query)
    return (*(row[name] for name in _SUMS), row["cost_usd"])


async def test_usage_of_a_period_in_groups(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection, pool: Pool
) -> None:
    assert await sums(client) == []
    desk = await insert_run(conn, status="completed", agent="desk", user_id="bob")
    help_ = await insert_run(conn, status="completed", agent="help")
    gone = await insert_run(conn, status="completed", agent="help", user_id="eve")
    for hours in (1, 30, 54, 54, 80):
        await used(conn, desk, model="m1", cost="0.10", hours_ago=hours)
        await used(conn, help_, model="m2", cost=None, hours_ago=hours)
        await used(conn, gone, model="m1", cost="0.000001", hours_ago=hours)
    await used(conn, desk, model="m1", cost="7", hours_ago=31 * 24 + 25)
    other_tenant = await insert_tenant(conn, "acme")
    other = await client_for("runs:read", tenant_id=other_tenant)
    theirs = await insert_run(conn, tenant_id=other_tenant, status="completed", agent="desk")
    await used(conn, theirs, model="m1", cost="99", hours_ago=1)
    # As if Perdure had been here from the first request on.
    await conn.execute(
        "UPDATE perdure.usage_closing SET closed_to = (SELECT min(created_at) AT TIME ZONE 'UTC'"
        " FROM perdure.request_usage_entries)::date"
    )

    now = datetime.now(UTC)
    periods: list[dict[str, str]] = [
        {},
        {"from": (now - timedelta(days=60)).date().isoformat()},
        *(
            {"from": (now - timedelta(hours=one)).isoformat(), **end}
            for one in (2, 55, 81)
            for end in ({}, {"to": (now - timedelta(hours=0.5)).isoformat()})
        ),
        {
            "from": (now - timedelta(hours=79)).isoformat(),
            "to": (now - timedelta(hours=31)).isoformat(),
        },
        {
            "from": (now - timedelta(hours=53.9)).isoformat(),
            "to": (now - timedelta(hours=53.8)).isoformat(),
        },
        {
            "from": (now - timedelta(hours=80)).date().isoformat(),
            "to": (now - timedelta(hours=30)).date().isoformat(),
        },
    ]
    groups = ("day", "agent", "model", "user", "day,agent,model,user")

    async def everything() -> list[Any]:
        return [
            [await sums(client, **period, **({"group_by": group} if group else {}))]
            for period in periods
            for group in ("", *groups)
        ]

    open_ = await everything()
    [[first], *_] = open_
    assert first[0]["requests"] == 15
    by_agent = await sums(client, group_by="agent")
    assert [(one["agent"], one["requests"], one["cost_usd"]) for one in by_agent] == [
        ("desk", 5, "0.50"),
        ("help", 10, "0.000005"),
    ]
    by_user = await sums(client, group_by=["user", "model"])
    assert [(one["user_id"], one["model"], one["cost_usd"]) for one in by_user] == [
        ("bob", "m1", "0.50"),
        ("eve", "m1", "0.000005"),
        (None, "m2", None),
    ]
    assert by_user[2]["unpriced_requests"] == by_user[2]["requests"] == 5
    assert set(by_user[0]) == {
        *("object", "model", "user_id", "requests", "unpriced_requests", "cost_usd"),
        *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"),
        *("reasoning_tokens", "total_tokens"),
    }
    days = await sums(client, group_by="day")
    assert [one["day"] for one in days] == sorted({one["day"] for one in days})
    whole = await total(client, **{"from": "2020-01-01"})
    assert whole == (16, 5, 1600, 1920, "7.500005")
    assert await total(client, user_id="bob", model="m1", agent="desk") == (5, 0, 500, 600, "0.50")
    assert await sums(client, user_id="bob", model="m2") == []
    assert await total(other) == (1, 0, 100, 120, "99")
    cut = read(UsageSums, await client.get("/v1/usage?group_by=day,agent&limit=2"))
    assert (len(cut["data"]), cut["has_more"]) == (2, True)
    rest = await sums(client, group_by="day,agent", offset=2)
    assert cut["data"] + rest == await sums(client, group_by="day,agent")
    assert len(rest) < MAX_ROWS

    # Days that are closed say the same; a run that is deleted was still paid for.
    while await close_day(pool):
        pass
    closed = await everything()
    assert closed == open_
    assert await total(other) == (1, 0, 100, 120, "99")
    await store.delete_run(conn, tenant_id=DEFAULT_TENANT, run_id=gone)
    assert await total(client, **{"from": "2020-01-01"}) == whole
    assert await sums(client, group_by=["user", "model"]) == by_user
    left = await conn.execute(
        "SELECT sum(requests)::int AS n, sum(estimated_cost) AS cost FROM perdure_read.usage_by_day"
        " WHERE tenant_id = %s",
        (DEFAULT_TENANT,),
    )
    assert await left.fetchall() == [{"n": 16, "cost": Decimal("7.500005")}]


async def test_a_day_is_closed_once_with_what_deleted_runs_left(
    client: httpx.AsyncClient, conn: Connection, pool: Pool
) -> None:
    kept, gone = [await insert_run(conn, status="completed", user_id="bob") for _ in range(2)]
    for run in (kept, gone):
        await used(conn, run, model="m", cost="1", hours_ago=60)
    await conn.execute(
        "UPDATE perdure.usage_closing SET closed_to = ((now() AT TIME ZONE 'UTC')::date - 3)"
    )
    # Deleted by the one while the other closes the day: it waits, and counts them once.
    async with pool.connection() as other, other.transaction():
        await store.delete_run(other, tenant_id=DEFAULT_TENANT, run_id=gone)
        async with conn.transaction():
            due = await conn.execute("SELECT FROM perdure.usage_closing FOR UPDATE SKIP LOCKED")
            assert await due.fetchall() == []
    closed = 0
    while await close_day(pool):
        closed += 1
    assert 2 <= closed <= 3
    assert not await close_day(pool)
    assert await total(client) == (2, 0, 200, 240, "2")
    await store.delete_run(conn, tenant_id=DEFAULT_TENANT, run_id=kept)
    assert await total(client) == (2, 0, 200, 240, "2")


def test_a_period_is_cut_without_gap_or_overlap() -> None:
    today = datetime(2026, 11, 22, tzinfo=UTC)
    moments = [
        today - timedelta(days=day, hours=hour) for day in (4, 3, 1, 0, -1) for hour in (0, 5)
    ]
    for since in moments:
        for upto in moments:
            for closed in moments:
                cut: Any = pieces(since, upto, closed.date())
                spans = [
                    (cut[f"{name}_from"], cut[f"{name}_to"]) for name in ("open", "head", "tail")
                ]
                days = [cut[name] for name in ("first_day", "end_day")]
                for at in moments:
                    in_pieces = sum(one <= at < other for one, other in spans)
                    whole_day = days[0] <= at.date() < days[1]
                    is_closed = at < datetime.combine(closed.date(), time(), UTC)
                    wanted = since <= at < upto
                    assert in_pieces + (whole_day and is_closed) == wanted, (since, upto, closed)

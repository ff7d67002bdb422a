"""``/metrics``, scraped from a real server and read by the library's own parser."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from perdure.db import Connection
from perdure.runs.stuck import OPEN_KINDS
from perdure.web import metrics
from tests.factories import insert_reply, insert_run, insert_stop, insert_tenant
from tests.integration.api.test_server import served

DEADLINE = 30.0


def samples(text: str) -> dict[tuple[str, str], float]:
    """Our samples by name and the value of their one label."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("perdure_")
    }


async def _fill(conn: Connection) -> None:
    await insert_run(conn, status="interrupted")
    uncertain = await insert_run(conn, status="interrupted")
    await insert_stop(conn, uncertain, type="uncertain_effect")
    await conn.execute("UPDATE perdure.interruptions SET requested_at = now() - interval '70 s'")
    await insert_stop(conn, await insert_run(conn, status="interrupted"), type="budget")
    done = await insert_run(conn, status="completed")
    gone = await insert_run(conn, status="completed")
    for run in (done, gone):
        await insert_reply(conn, run)
    await conn.execute("DELETE FROM perdure.runs WHERE id = %s", (gone,))
    await conn.execute(
        "INSERT INTO perdure.usage_daily SELECT id, '2026-01-01', 'an-agent', 'm', 'a-user', 40, 3,"
        " 400, 100, 0, 200, 0, 600, 1.5 FROM perdure.tenants LIMIT 1"
    )
    await insert_run(conn, status="failed", error_type="quarantined")
    queued = await insert_run(conn, status="queued", user_id="a-user", agent="an-agent")
    dying = await insert_run(
        conn, status="running", tenant_id=await insert_tenant(conn, "a-tenant")
    )
    late = await insert_run(conn, status="queued")
    for change, run in (
        ("created_at = now() - interval '90 s'", queued),
        ("stalled = 3", dying),
        ("status = 'scheduled', due_at = now() - interval '1 minute'", late),
    ):
        await conn.execute(
            f"UPDATE perdure.segments SET {change} WHERE run_id = %s".encode(), (run,)
        )
    await conn.execute(
        "INSERT INTO perdure.executors (id, host, pid, version, lease_until, lost_at, stopped_at)"
        " VALUES ('a', '', 1, '', now() + interval '1 h', NULL, NULL),"
        " ('b', '', 1, '', now() - interval '1 s', NULL, NULL),"
        " ('c', '', 1, '', now() - interval '1 s', now(), NULL),"
        " ('d', '', 1, '', now() - interval '1 s', NULL, now())"
    )
    for kind in ("taken_over", "taken_over", "unheld_claim"):
        await conn.execute(
            "INSERT INTO perdure.repairs (id, kind, run_id, segment, repaired_by)"
            " VALUES (gen_random_uuid(), %s, %s, 1, 'a')",
            (kind, dying),
        )
    await conn.execute("INSERT INTO perdure.repairs_purged VALUES ('taken_over', 40)")
    await conn.execute(
        "INSERT INTO perdure.webhooks (id, tenant_id, url, events, secret)"
        " SELECT perdure.uuid7(), id, 'https://example.com/', '{run.failed}', ''"
        " FROM perdure.tenants"
    )
    await conn.execute(
        "INSERT INTO perdure.webhook_deliveries (id, tenant_id, webhook_id, event, status,"
        " finished_at) SELECT perdure.uuid7(), w.tenant_id, w.id, 'run.failed', status, at"
        " FROM (SELECT * FROM perdure.webhooks LIMIT 1) w, (VALUES ('pending', NULL::timestamptz),"
        " ('pending', NULL), ('failed', now()), ('delivered', now())) AS d (status, at)"
    )


async def test_a_scrape(app: FastAPI, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEPT_TIMES", 0)
    async with (
        asyncio.timeout(DEADLINE),
        served(app) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        empty = samples((await client.get("/metrics")).text)
        await _fill(conn)
        answer = await client.get("/metrics")
        newer = await client.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    read = samples(answer.text)
    assert 90 <= read.pop(("perdure_queue_oldest_seconds", "")) < 90 + DEADLINE
    assert 60 <= read.pop(("perdure_schedule_late_seconds", "")) < 60 + DEADLINE
    oldest = ("perdure_interruptions_oldest_seconds", "uncertain_effect")
    assert 70 <= read[oldest] < 70 + DEADLINE
    assert 0 <= read["perdure_interruptions_oldest_seconds", "budget"] < DEADLINE
    read[oldest] = read["perdure_interruptions_oldest_seconds", "budget"] = 0
    expected: dict[tuple[str, str], float] = {
        ("perdure_runs", "interrupted"): 3,
        ("perdure_runs", "queued"): 2,
        ("perdure_runs", "running"): 1,
        ("perdure_runs_quarantined", ""): 1,
        ("perdure_segments", "queued"): 1,
        ("perdure_segments", "running"): 1,
        ("perdure_segments", "scheduled"): 1,
        ("perdure_segments_stalled", ""): 1,
        **{("perdure_segments_stuck", kind): 0 for kind in OPEN_KINDS},
        ("perdure_segments_stuck", "missing_workflow"): 1,
        **{("perdure_executors", state): 1 for state in metrics.EXECUTOR_STATES},
        **{("perdure_repairs_total", kind): 0 for kind in metrics.REPAIRS},
        ("perdure_repairs_total", "taken_over"): 42,
        ("perdure_repairs_total", "unheld_claim"): 1,
        ("perdure_uncertain_effects", ""): 1,
        **{("perdure_interruptions_waiting", kind): 0 for kind in metrics.WAITING},
        ("perdure_interruptions_waiting", "uncertain_effect"): 1,
        ("perdure_interruptions_waiting", "budget"): 1,
        **{("perdure_interruptions_oldest_seconds", kind): 0 for kind in metrics.WAITING},
        # One request that stands, one of a run that is deleted, and a day that is closed.
        ("perdure_model_requests_total", ""): 1 + 1 + 40,
        ("perdure_model_requests_unpriced_total", ""): 1 + 1 + 3,
        ("perdure_tokens_total", "input"): 9 + 9 + 300,
        ("perdure_tokens_total", "cached_input"): 1 + 1 + 100,
        ("perdure_tokens_total", "output"): 10 + 10 + 200,
        ("perdure_cost_usd_total", ""): 1.5,
        ("perdure_deliveries", "pending"): 2,
        ("perdure_deliveries", "failed"): 1,
    }
    assert {
        name: value for name, value in read.items() if name[0] != "perdure_build_info"
    } == expected
    # Every series is there from the first scrape on, so that a first repair is seen as a rise.
    assert set(empty) == {
        *read,
        ("perdure_queue_oldest_seconds", ""),
        ("perdure_schedule_late_seconds", ""),
    }
    assert sum(empty.values()) == 1
    for secret in ("a-user", "an-agent", "a-tenant"):
        assert secret not in answer.text
    assert "process_open_fds" in answer.text

    assert newer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in open_metrics(newer.text)}  # type: ignore[no-untyped-call]
    assert families["perdure_repairs"] == "counter"
    assert {kind for name, kind in families.items() if name.startswith("perdure_")} == {
        "counter",
        "gauge",
        "info",
    }


async def test_the_kinds_are_those_of_the_table(conn: Connection) -> None:
    row = await (
        await conn.execute(
            "SELECT pg_get_constraintdef(oid) AS def FROM pg_constraint"
            " WHERE conname = 'repairs_kind_check'"
        )
    ).fetchone()
    assert row is not None
    assert set(row["def"].split("'")[1::2]) == set(metrics.REPAIRS)


class Counting:
    """Connections of an app, counted."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.borrowed = 0

    def connection(self) -> Any:
        self.borrowed += 1
        return self._api.connection()


async def test_many_scrapes_are_read_once(app: FastAPI) -> None:
    counting = Counting(app.state.api)
    app.state.scrapes = metrics.Scrapes(counting)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert counting.borrowed == 1


async def test_no_reader_is_left_waiting_when_the_first_one_leaves(app: FastAPI) -> None:
    scrapes: metrics.Scrapes = app.state.scrapes
    first = asyncio.create_task(scrapes.read())
    second = asyncio.create_task(scrapes.read())
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(DEADLINE):
        assert (await second)["waiting"] == {}

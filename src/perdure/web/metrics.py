"""``/metrics``: what is queued, running, dying and waiting, for Prometheus. Asks for no key.

No label names a tenant, a user, an agent or a run: whoever may scrape sees how much there is, not
whose it is. All of it is read from the database when it is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.responses import Response

from perdure import __version__
from perdure.db import Connection, load_sql
from perdure.runs.stuck import OPEN_KINDS, find_stuck
from perdure.web.state import Api

_SQL = load_sql("perdure.web", "metrics.sql")

RUN_STATUSES = ("queued", "running", "interrupted")
SEGMENT_STATUSES = ("scheduled", "queued", "running")
DELIVERY_STATUSES = ("pending", "failed")
EXECUTOR_STATES = ("living", "expired", "lost", "stopped")
WAITING = ("tool_approval", "question", "uncertain_effect", "budget")
REPAIRS = (
    "taken_over",
    "unheld_claim",
    "ended_workflow",
    "missing_workflow",
    "misplaced_workflow",
    "missing_segment",
)

MOST_STUCK = 1000
"""So many of each look are counted: beyond that the number does not matter."""
KEPT_TIMES = 50
KEPT_SECONDS = 15.0

Row = Mapping[str, Any]

router = APIRouter(tags=["health"])

_process = CollectorRegistry()
ProcessCollector(registry=_process)
PlatformCollector(registry=_process)
GCCollector(registry=_process)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text."}},
)
async def metrics(request: Request) -> Response:
    """Answer how much there is of everything, as Prometheus scrapes it."""
    scrapes: Scrapes = request.app.state.scrapes
    row = await scrapes.read()
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_Scrape(row)), headers={"Content-Type": media_type})


class Scrapes:
    """Reads the row of a scrape, one at a time for all who wait for it, and keeps it for a while.

    Nobody is asked for a key here, and counting a million parked runs takes a third of a second:
    what was read is kept for ``KEPT_TIMES`` as long as reading it took. So all who ask together
    take one connection and a fiftieth of a core of the database.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._reading: asyncio.Future[Row] | None = None
        self._row: Row = {}
        self._fresh_until = 0.0
        self._spent: Row = {}
        self._spent_until = 0.0

    async def read(self) -> Row:
        """Return the row, ``KEPT_SECONDS`` old at most.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        if time.monotonic() < self._fresh_until:
            return self._row
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
            self._reading.add_done_callback(self._forget)
        return await asyncio.shield(self._reading)

    def _forget(self, reading: asyncio.Future[Row]) -> None:
        self._reading = None
        if not reading.cancelled():
            # Whoever waited may have left: nobody else has to hear of it.
            reading.exception()

    async def _read(self) -> Row:
        async with self._api.connection() as conn:
            await self._read_spent(conn)
            # In a pipeline the two go out together: one round trip.
            async with conn.pipeline():
                began = time.monotonic()
                cursor = await conn.execute(_SQL["scrape"])
                stuck = await find_stuck(conn, max_found=MOST_STUCK)
                row = await cursor.fetchone()
                ended = time.monotonic()
        assert row is not None  # noqa: S101 - an aggregate always has one
        counted = {"stuck": Counter(one.kind for one in stuck), "spent": self._spent}
        self._row = row = {**row, **counted}
        self._fresh_until = ended + min(KEPT_SECONDS, KEPT_TIMES * (ended - began))
        return row

    async def _read_spent(self, conn: Connection) -> None:
        """Read the sums of usage, which take the longer the more was used since yesterday."""
        if time.monotonic() < self._spent_until:
            return
        began = time.monotonic()
        row = await (await conn.execute(_SQL["spent"])).fetchone()
        ended = time.monotonic()
        assert row is not None  # noqa: S101 - an aggregate always has one
        self._spent = row
        self._spent_until = ended + KEPT_TIMES * (ended - began)


class _Scrape(Collector):
    """The metrics of one row, and those of this process."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def collect(self) -> Iterable[Metric]:
        """Give each family; every label value there can be is there, if only with 0."""
        yield from families(self._row)
        yield from _process.collect()


def families(row: Row) -> Iterator[Metric]:
    """Give the metrics of a row of statement ``scrape``."""
    yield InfoMetricFamily("perdure_build", "The build that answers.", {"version": __version__})
    yield _by(
        GaugeMetricFamily, "perdure_runs", "Unfinished runs.", "status", RUN_STATUSES, row["runs"]
    )
    yield GaugeMetricFamily(
        "perdure_runs_quarantined",
        "Runs failed because each process that ran them died, not resumed or deleted since.",
        row["quarantined"],
    )
    yield _by(
        GaugeMetricFamily,
        "perdure_segments",
        "Segments that have to run, now or later.",
        "status",
        SEGMENT_STATUSES,
        row["segments"],
    )
    yield GaugeMetricFamily(
        "perdure_segments_stalled",
        "Segments that died three times in a row, or alone, with nothing recorded between.",
        row["stalled"],
    )
    yield _by(
        GaugeMetricFamily,
        "perdure_segments_stuck",
        "Segments that nobody runs although somebody should.",
        "kind",
        OPEN_KINDS,
        row["stuck"],
    )
    yield GaugeMetricFamily(
        "perdure_queue_oldest_seconds",
        "How long the oldest queued segment has waited for a worker; 0 without one.",
        row["queue_oldest_seconds"] or 0.0,
    )
    yield GaugeMetricFamily(
        "perdure_schedule_late_seconds",
        "How late the scheduled segment is that should have been queued first; 0 if none is late.",
        row["schedule_late_seconds"] or 0.0,
    )
    yield _by(
        GaugeMetricFamily,
        "perdure_executors",
        "Worker processes: living, silent beyond their lease, declared lost, stopped.",
        "state",
        EXECUTOR_STATES,
        row["executors"],
    )
    yield _by(
        CounterMetricFamily,
        "perdure_repairs",
        "Segments nobody ran that were set going again.",
        "kind",
        REPAIRS,
        row["repairs"],
    )
    waiting = row["waiting"]
    yield GaugeMetricFamily(
        "perdure_uncertain_effects",
        "Effects that wait for a person to say what became of them.",
        waiting.get("uncertain_effect", {}).get("waiting", 0),
    )
    yield _by(
        GaugeMetricFamily,
        "perdure_interruptions_waiting",
        "Questions that wait for a person.",
        "type",
        WAITING,
        {kind: one["waiting"] for kind, one in waiting.items()},
    )
    yield _by(
        GaugeMetricFamily,
        "perdure_interruptions_oldest_seconds",
        "How long the oldest question has waited for a person; 0 without one.",
        "type",
        WAITING,
        {kind: one["oldest"] for kind, one in waiting.items()},
    )
    yield from _spent(row["spent"])
    yield _by(
        GaugeMetricFamily,
        "perdure_deliveries",
        "Deliveries to webhooks that are to be made, and that failed and are kept.",
        "status",
        DELIVERY_STATUSES,
        row["deliveries"],
    )


def _spent(spent: Row) -> Iterator[Metric]:
    for name, documentation, column in (
        ("perdure_model_requests", "Requests to models that were answered.", "requests"),
        (
            "perdure_model_requests_unpriced",
            "Those whose price is not known: they are not in the cost.",
            "unpriced_requests",
        ),
        ("perdure_cost_usd", "What the requests cost whose price is known, in USD.", "cost_usd"),
    ):
        yield CounterMetricFamily(name, documentation, spent[column] or 0)
    yield _by(
        CounterMetricFamily,
        "perdure_tokens",
        "Tokens that models read and wrote; cached ones were read from providers' caches.",
        "kind",
        ("input", "cached_input", "output"),
        {
            # Each token once, so that they may be summed.
            "input": (spent["input_tokens"] or 0) - (spent["cached_input_tokens"] or 0),
            "cached_input": spent["cached_input_tokens"] or 0,
            "output": spent["output_tokens"] or 0,
        },
    )


def _by(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    documentation: str,
    label: str,
    values: Iterable[str],
    counts: Mapping[str, float],
) -> Metric:
    made = family(name, documentation, labels=[label])
    for value in sorted({*values, *counts}):
        made.add_metric([value], counts.get(value, 0))
    return made

"""Rules about who runs what: executors, and the segments that wait for one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.cli.doctor.findings import Finding, counted, error, lasting, ok, warning

TAKEOVER_SECONDS = 15.0
"""How long after its lease a dead executor's segments may still be on their way to another."""
QUEUED_SECONDS = 60.0
LATE_SECONDS = 10.0
_SHOWN = 5
_WORKER = "perdure worker TARGET"

Row = Mapping[str, Any]


def judge_executors(executors: Sequence[Row], queue: Row) -> list[Finding]:
    """Judge who lives, who died, and who died without anybody noticing.

    ``executors`` are rows of statement ``executors``, ``queue`` is the one of ``queue``.
    """
    expired = [one for one in executors if one["state"] == "expired"]
    return [_living(executors, queue), _expired(expired), _lost(executors)]


def _living(executors: Sequence[Row], queue: Row) -> Finding:
    name = "workers"
    living = [one for one in executors if one["state"] == "living"]
    open_ = queue["queued"] + queue["running"] + queue["late"]
    if not living and open_:
        return error(
            name, f"no worker is alive, and {counted(open_, 'segment')} would have to run", _WORKER
        )
    if not living:
        return warning(name, "no worker is alive; nothing waits for one now", _WORKER)
    busy = sum(one["running"] for one in living)
    return ok(name, f"{len(living)} alive, running {counted(busy, 'segment')}: {_names(living)}")


def _expired(expired: Sequence[Row]) -> Finding:
    name = "leases"
    if not expired:
        return ok(name, "every worker that is not alive has stopped or was taken over")
    held = sum(one["running"] for one in expired)
    longest = max(-one["seconds_left"] for one in expired)
    found = (
        f"{counted(len(expired), 'worker')} whose lease is over, by up to {lasting(longest)}, "
        f"holding {counted(held, 'segment')}, and nobody has taken over: {_names(expired)}"
    )
    if held and longest > TAKEOVER_SECONDS:
        return error(name, found, f"Any living worker takes over: {_WORKER}")
    return warning(name, found, f"A living worker takes over in seconds; have one: {_WORKER}")


def _lost(executors: Sequence[Row]) -> Finding:
    lost = [one for one in executors if one["state"] == "lost"]
    stopped = sum(one["state"] == "stopped" for one in executors)
    found = f"in the last 24 hours {stopped} stopped and {len(lost)} died"
    return ok("former_workers", f"{found}: {_names(lost)}" if lost else found)


def _names(executors: Sequence[Row]) -> str:
    shown = ", ".join(str(one["id"]) for one in executors[:_SHOWN])
    return f"{shown}, …" if len(executors) > _SHOWN else shown


def judge_queue(queue: Row, running: Sequence[Row]) -> list[Finding]:
    """Judge what waits and what runs: the row of ``queue``, the rows of ``running``."""
    return [_queued(queue), _scheduled(queue), _running(running)]


def _queued(queue: Row) -> Finding:
    name = "queue"
    if not queue["queued"]:
        return ok(name, "no segment waits for a worker")
    oldest = queue["oldest_seconds"]
    found = (
        f"{counted(queue['queued'], 'segment waits', 'segments wait')} for a worker, "
        f"the oldest for {lasting(oldest)}"
    )
    if oldest <= QUEUED_SECONDS:
        return ok(name, found)
    return warning(name, found, f"Start more workers, or raise --concurrency: {_WORKER}")


def _scheduled(queue: Row) -> Finding:
    name = "scheduled"
    late, later = queue["late"], queue["scheduled"] - queue["late"]
    if not late:
        return ok(name, f"{counted(later, 'segment')} to start later, none late")
    found = (
        f"{counted(late, 'segment')} late, the latest by {lasting(queue['latest_seconds'])}; "
        f"{later} to start later"
    )
    return warning(name, found, f"A worker starts what is due; have one: {_WORKER}")


def _running(running: Sequence[Row]) -> Finding:
    name = "running"
    total = sum(one["segments"] for one in running)
    if not total:
        return ok(name, "no segment is running")
    shown = [
        f"{one['segments']} under {one['executor_id'] or 'nobody'}" for one in running[:_SHOWN]
    ]
    more = ["…"] if len(running) > _SHOWN else []
    return ok(name, f"{counted(total, 'segment')}: {', '.join(shown + more)}")

"""Rules about runs that need somebody: stuck, dying, uncertain. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from perdure.cli.doctor.findings import Finding, counted, error, lasting, ok, warning
from perdure.runs.stuck import UNREPAIRED, Stuck

SWEPT_SECONDS = 60.0
"""How long a stuck run may wait for the sweeper of a living worker."""
MANY_REPAIRS = 20
_SHOWN = 3

Row = Mapping[str, Any]


def judge_stuck(stuck: Sequence[Stuck], *, now: datetime) -> list[Finding]:
    """Judge what the sweeper would repair, and what nobody can; ``now`` is the database's."""
    lost = [one for one in stuck if one.kind in UNREPAIRED]
    waiting = [one for one in stuck if one.kind not in UNREPAIRED]
    age = max(((now - one.since).total_seconds() for one in waiting), default=0.0)
    return [
        _stuck(
            "stuck_runs",
            waiting,
            now,
            "A living worker sets them going by itself: perdure worker TARGET",
            error if age > SWEPT_SECONDS else warning,
        ),
        _stuck(
            "contradictory_runs",
            lost,
            now,
            "Nobody knows what was meant: look at them (perdure runs show ID), cancel those "
            "that are not needed (perdure runs cancel ID), and find out who wrote to the tables.",
            error,
        ),
    ]


def _stuck(
    name: str,
    stuck: Sequence[Stuck],
    now: datetime,
    remedy: str,
    level: Callable[[str, str, str], Finding],
) -> Finding:
    if not stuck:
        return ok(name, "none")
    longest = max((now - one.since).total_seconds() for one in stuck)
    found = (
        f"{counted(len(stuck), 'segment')} nobody runs ({_kinds(Counter(s.kind for s in stuck))}), "
        f"the longest for {lasting(longest)}: "
        + "; ".join(f"{one.run_id}:{one.segment} {one.text}" for one in stuck[:_SHOWN])
    )
    return level(name, found, remedy)


def judge_sweeps(sweeps: Sequence[Row], *, living: bool) -> Finding:
    """Judge the rows of statement ``sweeps``: do workers look, if there are any (``living``)?"""
    name = "sweeper"
    overdue = max((row["overdue_seconds"] for row in sweeps), default=0.0)
    if overdue <= SWEPT_SECONDS:
        return ok(name, "workers look for stuck runs in time")
    found = f"nobody has looked for stuck runs since {lasting(overdue)} after it was due"
    if not living:
        return ok(name, f"{found}: no worker is alive")
    return warning(name, found, "Look into the workers' logs for why, and restart them.")


def judge_repairs(repairs: Sequence[Row]) -> Finding:
    """Judge the rows of statement ``repairs``: how many of the last 24 hours, by kind."""
    name = "repairs"
    if not repairs:
        return ok(name, "none in the last 24 hours")
    total = sum(row["repairs"] for row in repairs)
    newest = min(row["newest_seconds"] for row in repairs)
    kinds = _kinds({row["kind"]: row["repairs"] for row in repairs})
    found = f"{total} in the last 24 hours ({kinds}), the last {lasting(newest)} ago"
    if total < MANY_REPAIRS:
        return ok(name, found)
    return warning(
        name,
        found,
        "The runs went on; look into the logs of workers and Postgres for why so many were needed.",
    )


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in sorted(counts.items()))


def judge_dying(dying: Sequence[Row]) -> Finding:
    """Judge the rows of statement ``dying``: open segments whose executions die."""
    name = "dying_segments"
    if not dying:
        return ok(name, "no open segment has lost its process")
    shown = "; ".join(
        f"{row['run_id']}:{row['seq']} begun {counted(row['executions'], 'time')}, {_deaths(row)}"
        for row in dying[:_SHOWN]
    )
    total = dying[0]["total"]
    found = f"{counted(total, 'segment')} whose process died before anything was recorded: {shown}"
    return warning(
        name,
        found,
        "Look at what it was doing (perdure runs show ID) and into the workers' logs; "
        "perdure runs cancel ID ends it.",
    )


def _deaths(row: Row) -> str:
    alone = row["alone_deaths"]
    return f"died {row['stalled']} in a row" + (f", {alone} alone" if alone else "")


def judge_quarantined(row: Row) -> Finding:
    """Judge the row of statement ``quarantined``."""
    name = "quarantined"
    if not row["runs"]:
        return ok(name, "no run is failed as quarantined")
    newest = ", ".join(str(id_) for id_ in row["newest"])
    return warning(
        name,
        f"{counted(row['runs'], 'run')} failed because each process that ran it died: {newest}",
        "Mend what kills the process, then: perdure runs resume ID; or perdure runs delete ID",
    )


def judge_uncertain(row: Row) -> Finding:
    """Judge the row of statement ``uncertain``: effects nobody knows the outcome of."""
    name = "uncertain_effects"
    if not row["effects"]:
        return ok(name, "none waits for a person")
    return warning(
        name,
        f"{counted(row['effects'], 'effect waits', 'effects wait')} for a person to say what "
        f"became of it, the longest for {lasting(row['oldest_seconds'])}",
        "perdure inbox, then: perdure resolve ID --outcome done|not_done|abandon",
    )


def judge_keys(active: int, *, loopback: bool) -> Finding:
    """Judge how many keys may be used; ``loopback`` says that the database is on this machine."""
    name = "keys"
    if active:
        return ok(name, f"{active} in use")
    found = "no key: `perdure dev` needs none, `perdure serve` answers nobody"
    if loopback:
        return ok(name, found)
    return warning(name, found, "perdure keys create --name NAME")

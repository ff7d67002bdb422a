"""What came of a trial: counted from the outside log, the runs' records and the blows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from chaos import script
from chaos.herd import Blows
from chaos.side import ENDED, RunRecord
from chaos.world import Log

_MOMENT_SECONDS = 2.0
Effects = Mapping[tuple[str, str], Sequence[dict[str, Any]]]


@dataclass
class Verdict:
    """The figures of a trial; times in seconds."""

    side: str
    seed: int
    seconds: float
    kills: int
    kills_in_mid_run: int
    stops: int
    restarts: int
    ended_without_database: int
    ended_otherwise: int
    started: int
    statuses: dict[str, int]
    errors: dict[str, int]
    ran_alone: int
    lost: int
    wrong_output: int
    effects: int
    silently_repeated: int
    repeated_at_most_once: int
    repeated_keys: int
    repeated_rows: int
    missing: int
    repeated_after_not_done: int
    asked: int
    asked_had_happened: int
    asked_had_not: int
    requests: int
    requests_repeated: int
    paid_again: int
    paid_again_by_paused: int
    takeovers: int
    takeover_p50: float | None
    takeover_p99: float | None
    takeover_max: float | None
    paused_takeovers: int
    paused_takeover_p50: float | None
    paused_takeover_max: float | None
    stuck_p50: float | None
    stuck_p99: float | None
    stuck_max: float | None
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, repeated silently, skipped or ended wrongly."""
        return not self.violations

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON, the verdict included."""
        return {**asdict(self), "passed": self.passed}


def judge(
    side: str, seed: int, seconds: float, runs: Sequence[RunRecord], log: Log, blows: Blows
) -> Verdict:
    """Return what came of a trial that took ``seconds``."""
    lost = [run for run in runs if run.status not in (*ENDED, "interrupted")]
    failed = [run for run in runs if run.status in ("failed", "cancelled")]
    wrong = [
        run
        for run in runs
        if run.status == "completed" and run.output != script.expected(run.order)
    ]
    once, keys, rows, late = _repeated(runs, log.effects)
    missing = _missing(runs, log.effects)
    again, by_paused, repeated = _paid_again(runs, log, blows)
    took, hit = takeovers(runs, blows.kills)
    paused = [(pause.pid, pause.at) for pause in blows.pauses]
    paused_took, _ = takeovers(runs, paused)
    stuck = [longest_gap(run, times) for run, times in _moments(runs, log)]
    done, not_done = (
        sum(len(run.done) for run in runs),
        sum(len(run.not_done) for run in runs),
    )
    otherwise = sum(not _database_away(blows, at) for _, at in blows.ended_by_themselves)
    violations = [
        *(f"order {run.order} was lost: {run.status}" for run in lost),
        *(f"order {run.order} {run.status}: {run.error}" for run in failed),
        *(f"order {run.order} came to {run.output!r}" for run in wrong),
        *once,
        *keys,
        *rows,
        *missing,
    ]
    return Verdict(
        side=side,
        seed=seed,
        seconds=seconds,
        kills=len(blows.kills),
        kills_in_mid_run=hit,
        stops=len(blows.pauses),
        restarts=len(blows.restarts),
        ended_without_database=len(blows.ended_by_themselves) - otherwise,
        ended_otherwise=otherwise,
        started=len(runs),
        statuses=dict(Counter(run.status for run in runs)),
        errors=dict(Counter(run.error.partition(":")[0] for run in failed)),
        ran_alone=len({line["order"] for line in log.lines if line["pid"] not in blows.born}),
        lost=len(lost),
        wrong_output=len(wrong),
        effects=sum(len(lines) for lines in log.effects.values()),
        silently_repeated=len(once) + len(keys) + len(rows),
        repeated_at_most_once=len(once),
        repeated_keys=len(keys),
        repeated_rows=len(rows),
        missing=len(missing),
        repeated_after_not_done=late,
        asked=done + not_done,
        asked_had_happened=done,
        asked_had_not=not_done,
        requests=sum(line["kind"] == "asked" for line in log.lines),
        requests_repeated=repeated,
        paid_again=again,
        paid_again_by_paused=by_paused,
        takeovers=len(took),
        takeover_p50=percentile(took, 0.5),
        takeover_p99=percentile(took, 0.99),
        takeover_max=percentile(took, 1),
        paused_takeovers=len(paused_took),
        paused_takeover_p50=percentile(paused_took, 0.5),
        paused_takeover_max=percentile(paused_took, 1),
        stuck_p50=percentile(stuck, 0.5),
        stuck_p99=percentile(stuck, 0.99),
        stuck_max=percentile(stuck, 1),
        violations=violations,
    )


def _database_away(blows: Blows, at: float) -> bool:
    """Whether the database was away ``at``, or had been until a moment before."""
    return any(since <= at <= until + _MOMENT_SECONDS for since, until in blows.restarts)


def silent_repeats(lines: Sequence[dict[str, Any]], not_done: int) -> tuple[int, int]:
    """Return how often an effect that must not repeat did so silently, and how often not.

    ``lines`` are its lines in the log, ``not_done`` how often a person said that it had not
    happened. Each such answer is about one attempt; the line of an attempt that was answered so
    came late, from a process nobody knew to be alive, and is not silent.
    """
    extra = max(0, len(lines) - 1)
    late = min(extra, sum(line["attempt"] <= not_done for line in lines))
    return extra - late, late


def _repeated(
    runs: Sequence[RunRecord], effects: Effects
) -> tuple[list[str], list[str], list[str], int]:
    once, keys, rows, late = [], [], [], 0
    for run in runs:
        for id, (call, _) in script.calls_of(run.order).items():
            lines = effects.get((run.order, id), ())
            where = f"order {run.order}: {call.tool} {id}"
            if call.effect == "at_most_once":
                said = sum(call_id == id for call_id in run.not_done.values())
                silent, after = silent_repeats(lines, said)
                late += after
                at = ", ".join(f"{line['at']:.3f} by {line['pid']}" for line in lines)
                once += [f"{where} happened {len(lines)} times: {at}"] * silent
            elif call.effect == "idempotent":
                different = len({line["key"] for line in lines})
                keys += [f"{where} had {different} keys"] * max(0, different - 1)
        rows += [f"order {run.order} has {run.bookings} bookings"] * max(0, run.bookings - 1)
    return once, keys, rows, late


def _missing(runs: Sequence[RunRecord], effects: Effects) -> list[str]:
    missing = []
    for run in runs:
        if run.status != "completed":
            continue
        for id, (call, _) in script.calls_of(run.order).items():
            outside = call.effect in ("read", "idempotent", "at_most_once")
            if outside and not effects.get((run.order, id)):
                missing.append(f"order {run.order}: {call.tool} {id} never happened")
        if not run.bookings:
            missing.append(f"order {run.order} was not booked")
    return missing


def _paid_again(runs: Sequence[RunRecord], log: Log, blows: Blows) -> tuple[int, int, int]:
    """Return the requests made although the run was known to be past them, and all repeated ones.

    A run is past a reply once something that follows from it has happened: a call it asks for,
    the next request, or the run's end. Those a worker made that had been paused come second.
    """
    paused = {pause.pid for pause in blows.pauses}
    ended = {run.order: run.finished_at for run in runs}
    furthest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    again = by_paused = repeated = 0
    for line in sorted(log.lines, key=lambda line: line["at"]):
        if line["kind"] == "effect":
            order = line["order"]
            depth = script.calls_of(order)[line["call"]][1]
        elif line["kind"] == "asked":
            order, depth = line["order"], line["depth"]
            end = ended.get(order)
            past = furthest.get(order, -1) > depth or (end is not None and line["at"] > end)
            if past and line["pid"] in paused:
                by_paused += 1
            elif past:
                again += 1
            repeated += (order, depth) in seen
            seen.add((order, depth))
        else:
            continue
        furthest[order] = max(furthest.get(order, -1), depth)
    return again, by_paused, repeated


def takeovers(
    runs: Iterable[RunRecord], lost: Iterable[tuple[int, float]]
) -> tuple[list[float], int]:
    """Return how long runs took to begin elsewhere once the process they were in was ``lost``.

    ``lost`` are process ids with the time. Second comes how many of the processes had a run.
    """
    by_process: defaultdict[int, list[tuple[RunRecord, int]]] = defaultdict(list)
    for run in runs:
        for place, (_, pid) in enumerate(run.begins):
            by_process[pid].append((run, place))
    took, hit = [], 0
    for pid, at in lost:
        had = False
        for run, place in by_process[pid]:
            if not _working(run, place, at):
                continue
            had = True
            if place + 1 < len(run.begins) and run.begins[place + 1][1] != pid:
                took.append(run.begins[place + 1][0] - at)
        hit += had
    return took, hit


def _working(run: RunRecord, place: int, at: float) -> bool:
    """Whether the execution that began as the ``place``-th of ``run`` was under way ``at``."""
    began = run.begins[place][0]
    following = run.begins[place + 1][0] if place + 1 < len(run.begins) else None
    if began > at or (following is not None and following <= at):
        return False
    if run.finished_at is not None and run.finished_at <= at:
        return False
    return not any(began <= since <= at for since, _ in run.waits)


def _moments(runs: Sequence[RunRecord], log: Log) -> Iterable[tuple[RunRecord, list[float]]]:
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for line in log.lines:
        seen[line["order"]].append(line["at"])
    for run in runs:
        times = [run.started_at, *(at for at, _ in run.begins), *seen[run.order]]
        if run.finished_at is not None:
            times.append(run.finished_at)
        yield run, sorted(times)


def longest_gap(run: RunRecord, times: Sequence[float]) -> float:
    """Return the longest time nothing of ``run`` was seen while no person was waited for.

    ``times`` are when something was, in order.
    """
    moments = sorted([*times, *(at for wait in run.waits for at in wait if at is not None)])
    return max(
        (
            after - before
            for before, after in pairwise(moments)
            if not any(since <= before and (until or after) >= after for since, until in run.waits)
        ),
        default=0.0,
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that ``share`` (0 to 1) of ``values`` do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]

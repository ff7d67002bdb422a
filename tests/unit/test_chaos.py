"""The trial's own arithmetic: what it draws, what it counts, what it shows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from chaos import script
from chaos.__main__ import parse, plan_of
from chaos.herd import Blows, Pause
from chaos.page import BEGIN, END, PAGE, command, markdown, put_into
from chaos.plan import Plan, schedule
from chaos.side import RunRecord
from chaos.verdict import Verdict, judge, longest_gap, percentile, silent_repeats, takeovers
from chaos.world import Log

ORDER = "4"


def test_a_seed_says_all_that_happens() -> None:
    plan = Plan(kills=5, stops=3, restarts=2, runs=7, seed=9)
    assert schedule(plan) == schedule(plan)
    drawn = schedule(plan)
    kinds = [blow.kind for blow in drawn.blows]
    assert (kinds.count("kill"), kinds.count("stop"), kinds.count("restart")) == (5, 3, 2)
    assert [blow.at for blow in drawn.blows] == sorted(blow.at for blow in drawn.blows)
    assert all(plan.shortest_stop <= blow.seconds <= plan.longest_stop for blow in drawn.blows)
    assert len(drawn.starts) == 7
    assert drawn.starts[-1] <= drawn.blows[-1].at
    assert schedule(Plan(kills=5, stops=3, restarts=2, runs=7, seed=10)) != drawn


def test_the_command_line_says_what_is_planned() -> None:
    options = parse(["--kills", "7", "--stops", "0", "--seed", "3", "--longest-stop", "0.1"])
    plan = plan_of(options)
    assert (plan.kills, plan.stops, plan.seed) == (7, 0, 3)
    assert (plan.shortest_stop, plan.longest_stop) == (0.1, 0.1)
    with pytest.raises(SystemExit):
        parse(["--runs", "0"])
    with pytest.raises(SystemExit):
        parse(["--kills", "-1"])


@pytest.mark.parametrize("order", ["0", "1", "2", "3"])
def test_the_script_comes_to_its_end(order: str) -> None:
    agent, outputs, depth = script.FIRST, dict[str, str](), -1
    calls = script.calls_of(order)
    while (said := script.reply(agent, order, outputs)).calls:
        assert said.depth > depth
        depth = said.depth
        for call in said.calls:
            assert calls[call.id] == (call, depth + 1)
            outputs[call.id] = script.returned(call, order)
            if call.effect == "handoff":
                agent = "desk"
            elif call.effect == "nested":
                inner = dict[str, str]()
                for nested in script.reply("researcher", order, inner).calls:
                    inner[nested.id] = script.returned(nested, order)
                outputs[call.id] = script.reply("researcher", order, inner).text
    assert said.text == script.expected(order)


def _line(kind: str, at: float, pid: int = 1, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "at": at, "pid": pid, "order": ORDER, **fields}


def _effect(call: str, at: float, *, attempt: int = 1, pid: int = 1, key: str = "") -> Any:
    return _line("effect", at, pid, call=call, key=key or call, attempt=attempt)


def _whole() -> list[dict[str, Any]]:
    """Every line of an undisturbed run, a second between one depth and the next."""
    lines = []
    for call, depth in script.calls_of(ORDER).values():
        if call.effect not in ("handoff", "nested"):
            lines.append(_effect(call.id, depth))
    depths = {depth - 1 for _, depth in script.calls_of(ORDER).values()}
    lines += [_line("asked", depth, agent="", depth=depth) for depth in depths]
    return lines


def _log(tmp_path: Path, lines: list[dict[str, Any]]) -> Log:
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = Log(path)
    log.read_on()
    return log


def _run(**fields: Any) -> RunRecord:
    whole: dict[str, Any] = {
        "order": ORDER,
        "started_at": -1.0,
        "status": "completed",
        "output": script.expected(ORDER),
        "finished_at": 100.0,
        "begins": [(-0.5, 1)],
        "bookings": 1,
    }
    return RunRecord(**{**whole, **fields})


def _judge(tmp_path: Path, lines: list[Any], run: RunRecord, blows: Blows | None = None) -> Verdict:
    return judge("x", 1, 100.0, [run], _log(tmp_path, lines), blows or Blows())


def test_an_undisturbed_run_violates_nothing(tmp_path: Path) -> None:
    verdict = _judge(tmp_path, _whole(), _run())
    assert verdict.violations == []
    assert verdict.passed
    assert (verdict.requests_repeated, verdict.paid_again) == (0, 0)


@pytest.mark.parametrize(
    ("more", "fields", "said"),
    [
        ([_effect("d2", 6)], {}, "ship d2 happened 2 times"),
        ([_effect("s2", 7.5, attempt=2)], {}, "write s2 happened 2 times"),
        ([_effect("d1", 6, key="another")], {}, "notify d1 had 2 keys"),
        ([], {"bookings": 2}, "has 2 bookings"),
        ([], {"bookings": 0}, "was not booked"),
        ([], {"status": "running"}, "was lost"),
        ([], {"status": "failed", "error": "quarantined: it died"}, "quarantined"),
        ([], {"output": "something else"}, "came to 'something else'"),
    ],
)
def test_what_must_not_be_is_found(
    tmp_path: Path, more: list[Any], fields: dict[str, Any], said: str
) -> None:
    verdict = _judge(tmp_path, _whole() + more, _run(**fields))
    assert not verdict.passed
    [violation] = verdict.violations
    assert said in violation


def test_an_effect_that_never_happened_is_found(tmp_path: Path) -> None:
    lines = [line for line in _whole() if line.get("call") != "r1"]
    [violation] = _judge(tmp_path, lines, _run()).violations
    assert "refund r1 never happened" in violation


def test_what_may_repeat_may(tmp_path: Path) -> None:
    again = [_effect("d1", 6, attempt=2), _effect("t1", 2, attempt=2)]
    assert _judge(tmp_path, _whole() + again, _run()).passed


@pytest.mark.parametrize(
    ("attempts", "not_done", "found"),
    [
        ([1], 0, (0, 0)),
        ([2], 1, (0, 0)),
        ([1, 2], 0, (1, 0)),
        ([2, 1], 1, (0, 1)),
        ([2, 2], 1, (1, 0)),
        ([2, 3], 1, (1, 0)),
        ([], 1, (0, 0)),
    ],
)
def test_only_what_nobody_was_asked_about_is_silent(
    attempts: list[int], not_done: int, found: tuple[int, int]
) -> None:
    lines = [_effect("d2", n, attempt=attempt) for n, attempt in enumerate(attempts)]
    assert silent_repeats(lines, not_done) == found


def test_a_request_the_run_was_past_is_told_from_one_under_way(tmp_path: Path) -> None:
    under_way = _line("asked", 6.2, agent="", depth=6)
    verdict = _judge(tmp_path, [*_whole(), under_way], _run())
    assert (verdict.requests_repeated, verdict.paid_again) == (1, 0)
    past = _line("asked", 8.5, agent="", depth=6)
    verdict = _judge(tmp_path, [*_whole(), past], _run())
    assert (verdict.paid_again, verdict.paid_again_by_paused) == (1, 0)
    blows = Blows(pauses=[Pause(1, 2.0, 8.4)])
    verdict = _judge(tmp_path, [*_whole(), past], _run(), blows)
    assert (verdict.paid_again, verdict.paid_again_by_paused) == (0, 1)
    after = _line("asked", 101, agent="", depth=14)
    assert _judge(tmp_path, [*_whole(), after], _run()).paid_again == 1


def test_a_worker_that_ends_without_its_database_is_told_from_others(tmp_path: Path) -> None:
    blows = Blows(restarts=[(5.0, 6.0)], ended_by_themselves=[(1, 5.5), (2, 7.0), (3, 30.0)])
    verdict = _judge(tmp_path, _whole(), _run(), blows)
    assert (verdict.ended_without_database, verdict.ended_otherwise) == (2, 1)


def test_a_run_that_went_on_in_another_process_than_a_worker_is_counted(tmp_path: Path) -> None:
    assert _judge(tmp_path, _whole(), _run(), Blows(born={1})).ran_alone == 0
    elsewhere = _effect("d1", 6, attempt=2, pid=77)
    assert _judge(tmp_path, [*_whole(), elsewhere], _run(), Blows(born={1})).ran_alone == 1


def test_a_takeover_lasts_from_a_death_to_the_next_begin() -> None:
    run = _run(begins=[(1.0, 7), (4.0, 8), (9.0, 7)], finished_at=20.0)
    assert takeovers([run], [(7, 2.5)]) == ([1.5], 1)
    # It did not have the run any more, or not yet; the run waited, or had ended.
    assert takeovers([run], [(7, 5.0)]) == ([], 0)
    assert takeovers([run], [(7, 0.5)]) == ([], 0)
    assert takeovers([_run(begins=[(1.0, 7), (4.0, 8)], waits=[(2.0, 4.0)])], [(7, 3.0)]) == ([], 0)
    assert takeovers([run], [(7, 21.0)]) == ([], 0)
    # Nobody began it again: the worker had a run, and no takeover is known.
    assert takeovers([_run(begins=[(1.0, 7)])], [(7, 2.0)]) == ([], 1)


def test_a_run_stands_still_only_where_nobody_is_waited_for() -> None:
    run = _run(waits=[(3.0, 9.0)])
    assert longest_gap(run, [0.0, 1.0, 3.0, 9.5, 12.0]) == 2.5
    assert longest_gap(_run(), [0.0, 1.0, 5.0]) == 4.0


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile(range(1, 101), share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([], 0.5) is None


def test_a_log_is_read_line_by_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path)
    log.read_on()
    whole = json.dumps(_effect("d2", 1)) + "\n"
    path.write_text(whole + whole[:10])
    log.read_on()
    assert len(log.lines) == 1
    path.write_text(whole + whole)
    log.read_on()
    assert len(log.effects[ORDER, "d2"]) == 2


def test_the_page_shows_figures_between_its_marks(tmp_path: Path) -> None:
    figures = _judge(tmp_path, _whole(), _run()).as_json()
    plan = Plan(kills=7, every=0.5)
    document: dict[str, Any] = {
        "machine": {"cores": 2, "system": "Linux"},
        "plan": dataclasses.asdict(plan),
        "trials": [figures, figures],
    }
    new = put_into(f"before\n{BEGIN}\nold\n{END}\nafter\n", document)
    assert new.startswith(f"before\n{BEGIN}\n```sh\n")
    assert new.endswith(f"{markdown([figures, figures])}{END}\nafter\n")
    assert "| **runs lost** | 0 | 0 |" in new
    assert "old" not in new
    with pytest.raises(ValueError, match="has no"):
        put_into("nothing", document)
    put_into(PAGE.read_text(encoding="utf-8"), document)
    # The command it shows is the plan again.
    assert command(document["plan"], [figures]).endswith(
        "-m chaos --kills 7 --every 0.5 --json > figures.json"
    )
    assert plan_of(parse(command(document["plan"], [figures, figures]).split()[3:-2])) == plan

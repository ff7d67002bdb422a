"""What doctor makes of what it reads."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perdure.cli.doctor import audit, installation, report, runs, schema, server, where, workers
from perdure.cli.doctor.findings import Finding, as_json, lasting, ok, status, warning
from perdure.errors import ConfigurationError
from perdure.migrate import Applied, Migration, Status
from perdure.runs.stuck import Stuck

RUN = UUID("01a20131-4a27-77ae-b605-6e01616eb463")
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)

SERVER = {
    "version": "18.1 (Debian)",
    "version_number": 180001,
    "database": '"my app"',
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "client": "10.0.0.7",
    "client_is_here": False,
    "listens_here_only": False,
    "tcp_keepalives_idle": 3,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 3,
    "backend_pid": 4711,
    "max_connections": 100,
    "most": 97,
    "used": 12,
    "used_here": 10,
}
SLOW = {"tcp_keepalives_idle": 7200, "tcp_keepalives_interval": 75, "tcp_keepalives_count": 9}
QUEUE = {
    "queued": 0,
    "running": 0,
    "scheduled": 0,
    "late": 0,
    "oldest_seconds": 1.0,
    "latest_seconds": 1.0,
}


def executor(state: str, running: int = 0, seconds_left: float = 5.0) -> dict[str, Any]:
    return {
        "id": f"host-1-{state}",
        "state": state,
        "running": running,
        "seconds_left": seconds_left,
    }


def the(name: str, findings: list[Finding]) -> Finding:
    [found] = [one for one in findings if one.name == name]
    return found


def judged(finding: Finding, level: str, *said: str) -> None:
    """Check a finding: its level, words of it, and that what is not well has a remedy."""
    assert finding.level == level, finding
    assert bool(finding.remedy) == (level != "ok"), finding
    for words in said:
        assert words in f"{finding.found} → {finding.remedy}"


@pytest.mark.parametrize(
    ("change", "name", "level", "said"),
    [
        ({}, "database", "ok", "PostgreSQL 18.1 (Debian) at db:5432/app"),
        ({"version_number": 140012}, "database", "error", "too old"),
        ({"version_number": 150000}, "database", "ok", "PostgreSQL"),
        ({"version_number": 190000}, "database", "warning", "15 to 18"),
        ({}, "fsync", "ok", "on"),
        ({"fsync": "off"}, "fsync", "error", "ALTER SYSTEM SET fsync = on"),
        ({"full_page_writes": "off"}, "full_page_writes", "error", "half written"),
        ({"synchronous_commit": "remote_apply"}, "synchronous_commit", "ok", "remote_apply"),
        (
            {"synchronous_commit": "off"},
            "synchronous_commit",
            "error",
            'ALTER DATABASE "my app" SET synchronous_commit = on',
        ),
        ({"client": None}, "connection", "warning", "Unix socket"),
        ({}, "connection", "ok", "10.0.0.7"),
        ({}, "tcp_keepalives", "ok", "6.0 s"),
        (SLOW, "tcp_keepalives", "warning", "2 h 11 min"),
        (SLOW, "tcp_keepalives", "warning", 'ALTER DATABASE "my app" SET tcp_keepalives_idle = 3'),
        ({**SLOW, "client": None, "client_is_here": True}, "tcp_keepalives", "ok", "not needed"),
        ({**SLOW, "client_is_here": True}, "tcp_keepalives", "warning", "vanishes"),
        (
            {**SLOW, "client_is_here": True, "listens_here_only": True},
            "tcp_keepalives",
            "ok",
            "this machine alone",
        ),
        ({}, "pooler", "ok", "none"),
        ({"backend_pid": 4712}, "pooler", "warning", "by session"),
        ({}, "connections", "ok", "12 of 97 in use, 10 of them"),
        ({"used": 78}, "connections", "warning", "max_connections (100)"),
    ],
)
def test_the_server(change: dict[str, Any], name: str, level: str, said: str) -> None:
    findings = server.judge_server({**SERVER, **change}, backend_pid=4711, where="db:5432/app")

    judged(the(name, findings), level, said)


@pytest.mark.parametrize(
    ("ahead", "round_trip", "level", "said"),
    [
        (0.01, 0.002, "ok", "0.010 s ahead of"),
        (-1.9, 0.0, "ok", "1.900 s behind"),
        (2.4, 1.0, "ok", "give or take 0.500 s"),
        (-2.1, 0.01, "warning", "nothing but the order of ids depends on it"),
        (3600.0, 0.01, "warning", "NTP"),
    ],
)
def test_the_clock(ahead: float, round_trip: float, level: str, said: str) -> None:
    judged(server.judge_clock(ahead, round_trip), level, said)


def test_versions() -> None:
    good, bad, unknown = installation.judge_versions(
        {"dbos": "3.4.17", "openai-agents": "0.25.0", "psycopg": None}
    )

    judged(good, "ok", "dbos 3.4.17")
    judged(bad, "warning", "tested with 0.24 alone", "pip install 'openai-agents==0.24.*'")
    judged(unknown, "warning", "version is unknown")
    [not_it] = installation.judge_versions({"dbos": "3.40.0"})
    judged(not_it, "error", "dbos 3.40.0")
    assert status(installation.versions()) == "ok"


def test_the_versions_are_those_this_build_asks_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = "\n".join(project["dependencies"])
    for name, minor in installation.TESTED.items():
        assert f"{name}>={minor}," in asked.replace("[binary,pool]", "")


def migrations(*names: str) -> tuple[Migration, ...]:
    return tuple(Migration(n, name, "", "sha256:0") for n, name in enumerate(names, 1))


@pytest.mark.parametrize(
    ("given", "level", "said"),
    [
        (Status([Applied(1, "runs", None, NOW)], []), "ok", "1 applied, the last is 0001_runs"),
        (
            Status([], migrations("runs", "more")),
            "error",
            "lacks 2 migrations: 0001_runs, 0002_more",
        ),
        (Status([], migrations("runs")), "error", "perdure migrate"),
        (
            Status([], [], "Migration 0001_runs was changed after it was applied. Restore it."),
            "error",
            "changed after it was applied → Restore it.",
        ),
    ],
)
def test_migrations(given: Status, level: str, said: str) -> None:
    judged(schema.judge_migrations(given), level, said)


@pytest.mark.parametrize(
    ("has", "level", "said"),
    [
        (0, "error", "perdure migrate"),
        (103, "error", "are at 103, this build needs 104"),
        (104, "ok", "104 applied"),
        (105, "warning", "newer than this build's 104"),
    ],
)
def test_tables_of_dbos(has: int, level: str, said: str) -> None:
    judged(schema.judge_dbos(has, 104), level, said)


@pytest.mark.parametrize(
    ("executors", "queue", "name", "level", "said"),
    [
        ([], {}, "workers", "warning", "nothing waits"),
        ([], {"scheduled": 3}, "workers", "warning", "nothing waits"),
        ([], {"queued": 1}, "workers", "error", "1 segment would have to run"),
        ([executor("expired")], {"running": 2}, "workers", "error", "2 segments"),
        ([], {"scheduled": 3, "late": 2}, "workers", "error", "2 segments"),
        ([executor("living", 3)], {"queued": 1}, "workers", "ok", "1 alive, running 3 segments"),
        ([executor("living")] * 7, {}, "workers", "ok", "7 alive"),
        ([executor("living")], {}, "leases", "ok", "taken over"),
        ([executor("expired", 0, -3600.0)], {}, "leases", "warning", "holding 0 segments"),
        ([executor("expired", 2, -3.0)], {}, "leases", "warning", "over, by up to 3.0 s"),
        ([executor("expired", 2, -16.0)], {}, "leases", "error", "nobody has taken over"),
        (
            [executor("lost"), executor("stopped")],
            {},
            "former_workers",
            "ok",
            "1 stopped and 1 died",
        ),
        ([], {}, "queue", "ok", "no segment waits"),
        ([], {"queued": 2, "oldest_seconds": 59.0}, "queue", "ok", "2 segments wait"),
        ([], {"queued": 1, "oldest_seconds": 90.0}, "queue", "warning", "1 min 30 s"),
        ([], {"scheduled": 4}, "scheduled", "ok", "4 segments to start later, none late"),
        (
            [],
            {"scheduled": 4, "late": 1, "latest_seconds": 20.0},
            "scheduled",
            "warning",
            "1 segment late, the latest by 20 s; 3 to start later",
        ),
    ],
)
def test_workers_and_queues(
    executors: list[Any], queue: dict[str, Any], name: str, level: str, said: str
) -> None:
    row = {**QUEUE, **queue}
    findings = [*workers.judge_executors(executors, row), *workers.judge_queue(row, [])]

    judged(the(name, findings), level, said)


def test_what_runs_where() -> None:
    rows = [{"executor_id": f"host-{n}", "segments": 7 - n} for n in range(6)]
    found = the("running", workers.judge_queue(QUEUE, rows))

    judged(found, "ok", "27 segments: 7 under host-0", "3 under host-4, …")
    assert "host-5" not in found.found
    [unnamed] = [{"executor_id": None, "segments": 1}]
    judged(the("running", workers.judge_queue(QUEUE, [unnamed])), "ok", "1 under nobody")


def stuck(seconds: float, kind: str = "missing_workflow") -> Stuck:
    since = NOW - timedelta(seconds=seconds)
    return Stuck(kind, RUN, 2, since, executor_id=None, status=None, text="its workflow is gone")


def test_stuck_runs() -> None:
    def seen(*found: Stuck) -> list[Finding]:
        return runs.judge_stuck(found, now=NOW)

    assert [(one.name, one.level) for one in seen()] == [
        ("stuck_runs", "ok"),
        ("contradictory_runs", "ok"),
    ]
    judged(seen(stuck(20))[0], "warning", f"{RUN}:2 its workflow is gone")
    judged(
        seen(stuck(20), stuck(200), stuck(999, "no_open_segment"))[0],
        "error",
        "2 segments nobody runs (missing_workflow 2), the longest for 3 min 20 s",
        "perdure worker TARGET",
    )
    judged(
        seen(stuck(20, "no_open_segment"))[1],
        "error",
        "1 segment nobody runs (no_open_segment 1)",
        "perdure runs cancel",
    )


@pytest.mark.parametrize(
    ("overdue", "living", "level", "said"),
    [
        ([-4.0, -300.0], True, "ok", "in time"),
        ([61.0, -300.0], True, "warning", "1 min 1 s"),
        ([61.0], False, "ok", "no worker is alive"),
    ],
)
def test_the_sweeper(overdue: list[float], living: bool, level: str, said: str) -> None:
    rows = [{"overdue_seconds": seconds} for seconds in overdue]

    judged(runs.judge_sweeps(rows, living=living), level, said)


@pytest.mark.parametrize(
    ("repairs", "level", "said"),
    [
        ([], "ok", "none in the last 24 hours"),
        ([("taken_over", 2, 90.0), ("ended_workflow", 1, 3.0)], "ok", "3 in the last 24 hours"),
        ([("taken_over", 2, 90.0)], "ok", "(taken_over 2), the last 1 min 30 s ago"),
        ([("unheld_claim", 20, 9.0)], "warning", "logs of workers"),
    ],
)
def test_repairs(repairs: list[tuple[str, int, float]], level: str, said: str) -> None:
    rows = [{"kind": k, "repairs": n, "newest_seconds": s} for k, n, s in repairs]

    judged(runs.judge_repairs(rows), level, said)


def test_runs_that_need_somebody() -> None:
    dying = {"run_id": RUN, "seq": 3, "executions": 4, "stalled": 3, "alone_deaths": 1, "total": 12}
    judged(runs.judge_dying([]), "ok")
    judged(
        runs.judge_dying([dying]),
        "warning",
        "12 segments",
        f"{RUN}:3 begun 4 times, died 3 in a row, 1 alone",
    )
    judged(runs.judge_quarantined({"runs": 0, "newest": None}), "ok")
    judged(runs.judge_quarantined({"runs": 1, "newest": [RUN]}), "warning", str(RUN), "runs resume")
    judged(runs.judge_uncertain({"effects": 0, "oldest_seconds": None}), "ok")
    judged(
        runs.judge_uncertain({"effects": 2, "oldest_seconds": 90_000.0}),
        "warning",
        "2 effects wait",
        "1 d 1 h",
        "perdure inbox",
    )
    judged(runs.judge_keys(3, loopback=False), "ok", "3 in use")
    judged(runs.judge_keys(0, loopback=True), "ok", "needs none")
    judged(runs.judge_keys(0, loopback=False), "warning", "perdure keys create")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (7875, "2 h 11 min"),
        (86_400, "1 d"),
        (200_000, "2 d 7 h"),
    ],
)
def test_how_long(seconds: float, shown: str) -> None:
    assert lasting(seconds) == shown


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("postgresql://u:p@127.0.0.1:5432/x", True),
        ("postgresql://u@[::1]/x", True),
        ("postgresql://localhost/x", True),
        ("postgresql:///x?host=/run/postgresql", True),
        ("postgresql://db.internal/x", False),
        ("postgresql://10.0.0.7,10.0.0.8/x", False),
    ],
)
def test_what_is_this_machine(url: str, loopback: bool) -> None:
    assert where.on_loopback(url) is loopback


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@db/x", "no user hunter2 at hunter2"),
        ("postgresql://u:h%2Funter@db/x", "no h/unter, no h%2Funter"),
        ("postgresql://u@db/x?password=hunter2", "hunter2"),
        ("postgresql://u@db/x?sslpassword=hunter2", "bad hunter2"),
    ],
)
def test_passwords_are_blotted_out(url: str, said: str) -> None:
    shown = where.without_password(said, url)

    assert "unter" not in shown
    assert "***" in shown


def test_half_a_password_is_not_shown_as_a_host() -> None:
    with pytest.raises(ConfigurationError, match="%40") as raised:
        where.without_password(
            'could not translate host name "ter2@db"', "postgresql://u:hun@ter2@db/x"
        )

    assert "ter2" not in raised.value.message


FINDINGS = [warning("b", "two\x1b[2J", "do this"), ok("a", "well"), Finding("error", "c", "x", "y")]


def test_for_programs() -> None:
    assert as_json(FINDINGS[:2]) == {
        "object": "doctor",
        "status": "warning",
        "findings": [
            {"name": "b", "level": "warning", "found": "two\x1b[2J", "remedy": "do this"},
            {"name": "a", "level": "ok", "found": "well", "remedy": None},
        ],
    }
    assert status([]) == "ok"
    assert json.loads(json.dumps(as_json(FINDINGS)))["status"] == "error"


def test_for_people_the_worst_comes_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report.show(FINDINGS)
    assert capsys.readouterr().out.splitlines() == [
        "ok       a  well",
        r"warning  b  two\x1b[2J",
        "            → do this",
        "error    c  x",
        "            → y",
        "Needs mending: 1 error, 1 warning, 1 ok.",
    ]

    monkeypatch.setattr(report, "is_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    report.show(FINDINGS)
    drawn = capsys.readouterr().out
    assert r"two\x1b[2J" in drawn
    assert "\x1b[33mwarning" in drawn
    assert "\x1b[2J" not in drawn
    assert drawn.index("well") < drawn.index("do this") < drawn.index("Needs mending")


def test_the_audit() -> None:
    judged(audit.judge_sealing(0, None), "ok", "every row is sealed")
    judged(audit.judge_sealing(3, 8.0), "ok", "3 rows wait for a seal, the oldest for 8.0 s")
    judged(audit.judge_sealing(1, 7300.0), "warning", "1 row waits for a seal, the oldest for 2 h")
    judged(audit.judge_sealing(100_000, 7300.0), "warning", "more than 100000 rows")
    judged(audit.judge_keys(keys=True, unsigned=0, loopback=False), "ok", "signed")
    judged(audit.judge_keys(keys=True, unsigned=2, loopback=True), "warning", "2 tenants")
    judged(audit.judge_keys(keys=False, unsigned=0, loopback=True), "ok", "not signed")
    judged(audit.judge_keys(keys=False, unsigned=0, loopback=False), "warning", "b64encode")
    judged(audit.judge_powers("adds", two_roles=True), "ok", "and not change it")
    judged(audit.judge_powers("owner", two_roles=False), "ok", "it could change the audit")
    judged(audit.judge_powers("owner", two_roles=True), "warning", "perdure migrate")
    judged(audit.judge_powers("changes", two_roles=False), "warning", "PERDURE_MIGRATE_URL")

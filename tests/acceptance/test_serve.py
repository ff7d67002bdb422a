"""``perdure serve`` and ``perdure worker`` as processes of their own."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.cli_support import EXAMPLES, SECONDS, going, perdure, perdure_json
from tests.otel_collector import collecting

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

APP = str(Path(__file__).parents[1] / "cli_app.py")
RESEARCH = str(EXAMPLES / "research.py")


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    """The environment of commands for a migrated database."""
    key = perdure_json("keys", "create", env={"DATABASE_URL": database_url})["key"]
    return {"DATABASE_URL": database_url, "PERDURE_API_KEY": key}


def test_a_server_and_a_worker(env: dict[str, str]) -> None:
    with (
        going("serve", RESEARCH, "--port", "0", env=env) as server,
        going("worker", RESEARCH, "--concurrency", "4", env=env) as worker,
    ):
        worker.wait_for("Working for researcher, checker.")
        env["PERDURE_URL"] = server.address("Serving")
        run = perdure_json("runs", "start", "researcher", "bees and tea?", "--wait", env=env)
        assert run["status"] == "completed"
        assert run["output"].splitlines()[0] == "What I found:"
        assert len(run["output"].splitlines()) == 3
        # Two searches at once, then the checker beneath the run, once for each finding.
        assert run["usage"]["requests"] == 5

        assert worker.stop() == 0
        assert server.stop() == 0
        assert "Traceback" not in worker.said + server.said


def test_a_dead_workers_run_goes_on_in_another(env: dict[str, str], tmp_path: Path) -> None:
    """As the same trace, and what its processes log names it."""
    with collecting() as spans:
        env |= {**spans.environment, "PAID": str(tmp_path / "paid.txt")}
        with (
            going("serve", APP, "--port", "0", env=env) as server,
            going("worker", APP, "--log-format", "json", env=env) as first,
        ):
            first.wait_for("Working for")
            env["PERDURE_URL"] = server.address("Serving")
            run_id = perdure_json("runs", "start", "payer", "go", env=env)["id"]
            logged = json.loads(first.wait_for("paying now"))
            first.wait_for("paying, attempt 1")
            trace_id = run_id.replace("-", "")
            # What had ended before the process dies is told of by then.
            asked = spans.wait_for(lambda span: span.name.startswith("chat "))
            env["PERDURE_LOG_FORMAT"] = "json"
            with going("worker", APP, "--stop-seconds", "1", env=env) as second:
                second.wait_for("Working for")
                first.send(signal.SIGKILL)
                run = _rested(env, run_id)
                assert run["status"] == "interrupted"
                assert run["interruptions"][0]["type"] == "uncertain_effect"
                perdure("runs", "cancel", run_id, env=env)
                # A tool that hangs in its thread does not keep a worker that is told to stop.
                perdure_json("runs", "start", "payer", "go", env=env)
                second.wait_for("paying, attempt 1")
                assert second.stop() == 0
            # The API ended the run, as it rested.
            root = spans.wait_for(lambda span: span.trace_id == trace_id and not span.parent)

    assert (logged["message"], logged["level"], logged["logger"]) == (
        *("paying now\nfor real", "warning"),
        "shop",
    )
    assert (logged["run_id"], logged["segment"], logged["execution"]) == (run_id, 1, 1)
    assert (logged["trace_id"], logged["executor"] != "") == (trace_id, True)
    assert datetime.fromisoformat(logged["time"]).tzinfo == UTC
    for line in second.said.splitlines():
        if line.startswith("{"):
            assert {"time", "level", "logger", "message"} <= set(json.loads(line))

    tree = [span for span in spans.spans if span.trace_id == trace_id]
    assert (root.name, root.attributes["perdure.status"]) == ("run payer", "cancelled")
    executions = {
        span.id: (span.attributes["perdure.outcome"], span.attributes.get("perdure.after"))
        for span in tree
        if span.name == "segment 1"
    }
    assert sorted(executions.values(), key=str) == [
        ("interrupted", "death"),
        ("process_died", None),
    ]
    # What had ended before the process died is beneath its execution, whose span died with it.
    ids = {span.id for span in tree}
    assert len(ids) == len(tree)
    assert [span for span in tree if span.parent and span.parent not in ids] == [], asked


def test_a_paused_worker_that_was_taken_over_ends(
    env: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    env["PAID"] = str(tmp_path / "paid.txt")
    with (
        going("serve", APP, "--port", "0", env=env) as server,
        going("worker", APP, env=env) as first,
    ):
        first.wait_for("Working for")
        env["PERDURE_URL"] = server.address("Serving")
        run_id = perdure_json("runs", "start", "payer", "go", env=env)["id"]
        first.wait_for("paying, attempt 1")
        first.send(signal.SIGSTOP)
        with (
            going("worker", APP, env=env) as second,
            psycopg.connect(database_url, autocommit=True) as conn,
        ):
            second.wait_for("Working for")
            # Its session stands and holds its lock; only the time is over.
            conn.execute(
                "UPDATE perdure.executors SET lease_until = now() - interval '1 second',"
                " renewed_at = now() - interval '1 minute' WHERE pid = %s",
                [first.pid],
            )
            run = _rested(env, run_id)
            assert run["interruptions"][0]["type"] == "uncertain_effect"
            first.send(signal.SIGCONT)
            assert first.wait() == 1
            assert "went on elsewhere. Start it again." in first.said
            kinds = conn.execute("SELECT kind FROM perdure.repairs").fetchall()
            assert kinds == [("taken_over",)]
            assert second.stop() == 0


def _rested(env: dict[str, str], run_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {env['PERDURE_API_KEY']}"}
    with httpx.Client(base_url=env["PERDURE_URL"], headers=headers, trust_env=False) as http:
        answer = http.get(f"/v1/runs/{run_id}", params={"wait": 60}, timeout=SECONDS)
    run: dict[str, Any] = answer.json()
    return run


def test_a_run_that_ends_its_process_runs_in_one_of_its_own(
    env: dict[str, str], database_url: str
) -> None:
    """As if three workers had died with it: those deaths take time, and have a test of theirs."""
    with going("serve", APP, "--port", "0", env=env) as server:
        env["PERDURE_URL"] = server.address("Serving")
        run_id = perdure_json("runs", "start", "dying", "go", env=env)["id"]
        with psycopg.connect(database_url) as conn:
            conn.execute("UPDATE perdure.segments SET stalled = 3")
        with going("worker", APP, env=env) as worker:
            worker.wait_for("It runs alone in a process of its own now.")
            alone = f"Run {run_id}, segment 1, alone: "
            # What is printed there, and by the fault handler, is said here.
            assert "dying, attempt 1, stdin ''" in worker.wait_for(alone)
            worker.wait_for(f"{alone}Fatal Python error: Segmentation fault")
            worker.wait_for("was killed by signal 11 (SIGSEGV); death 1 of 5")
            assert "dying, attempt 2" in worker.wait_for(alone)
            run = _rested(env, run_id)
            assert (run["status"], run["output"]) == ("completed", "die gave: lived at attempt 2")
            assert worker.stop() == 0
            assert env["DATABASE_URL"] not in worker.said


def test_keys_are_required(env: dict[str, str]) -> None:
    with going("serve", APP, "--port", "0", env=env) as server:
        address = server.address("Serving")
        with httpx.Client(base_url=address, trust_env=False) as http:
            assert http.get("/v1/runs").status_code == 401
            assert http.get("/openapi.json").status_code == 401
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").status_code == 200
            # Unlike `perdure dev`, it serves whatever name it is reached by.
            headers = {
                "Authorization": f"Bearer {env['PERDURE_API_KEY']}",
                "Host": "perdure.example",
            }
            assert http.get("/v1/runs", headers=headers).status_code == 200


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_database_that_is_not_migrated(empty_database_url: str, command: str) -> None:
    done = perdure(command, APP, code=1, env={"DATABASE_URL": empty_database_url, **ANY_PORT})

    assert done.stderr.startswith("Error: The database lacks ")
    assert done.stderr.endswith("Run `perdure migrate`.\n")


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_no_database_is_named(command: str) -> None:
    done = perdure(command, APP, code=1, env=ANY_PORT)

    assert done.stderr.startswith("Error: DATABASE_URL is not set.")


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_database_that_is_not_there(command: str) -> None:
    env = {"DATABASE_URL": "postgresql://a@127.0.0.1:9/x", **ANY_PORT}
    done = perdure(command, APP, code=1, env=env)

    assert done.stderr.startswith("Error: The database did not answer: ")


ANY_PORT = {"PERDURE_PORT": "0"}


@pytest.mark.parametrize("command", ["serve", "worker", "dev"])
def test_a_target_that_does_not_load(command: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = nothing\n")
    env = {"DATABASE_URL": "postgresql://a@127.0.0.1:9/x", **ANY_PORT}
    done = perdure(command, "app.py", code=1, cwd=tmp_path, env=env)

    assert done.stderr == "Error: app.py:1: NameError: name 'nothing' is not defined\n"

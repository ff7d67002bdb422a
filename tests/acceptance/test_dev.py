"""``perdure dev``, started, killed, edited and stopped, driven over HTTP and by commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli_support import EXAMPLES, SECONDS, Process, going, perdure, perdure_json

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

QUESTION = "Order 1042 arrived broken, please refund it."
APP = Path(__file__).parents[1] / "cli_app.py"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def rested(http: httpx.Client, run_id: str) -> dict[str, Any]:
    run: dict[str, Any] = {"status": "queued"}
    while run["status"] in ("queued", "running"):
        run = http.get(f"/v1/runs/{run_id}", params={"wait": 60}, timeout=SECONDS).json()
    return run


def refunds(file: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute("SELECT order_id, cents, requests FROM refunds").fetchall()


def child_of(process: Process) -> int:
    """The pid of the process that serves."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    [child] = [pid for pid in children if b"dev_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(child)


def test_a_refund_from_start_to_end_with_a_kill_between(home: Path, tmp_path: Path) -> None:
    port = free_port()
    env = {"PERDURE_HOME": str(home), "PERDURE_PORT": port}
    arguments = ("dev", str(EXAMPLES / "refunds.py"))
    with going(*arguments, cwd=tmp_path, env=env) as dev:
        address = dev.address()
        assert address == f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, trust_env=False) as http:
            started = http.post("/v1/runs", json={"agent": "triage", "input": QUESTION})
            assert started.status_code == 202
            run = rested(http, started.json()["id"])
        assert run["status"] == "interrupted"
        dev.kill()

    with going(*arguments, cwd=tmp_path, env=env) as dev:
        address = dev.address()
        with httpx.Client(base_url=address, trust_env=False) as http:
            [question] = rested(http, run["id"])["interruptions"]
            assert question["tool"]["arguments"] == {"order_id": "1042", "cents": 12900}
            decided = http.post(
                f"/v1/interruptions/{question['id']}/decision",
                json={"decision": "approve", "digest": question["digest"]},
            )
            assert decided.status_code == 200
            run = rested(http, run["id"])
        assert run["status"] == "completed"
        assert "refunded 129.00 euros for order 1042" in run["output"]
        assert dev.stop() == 0
    assert refunds(tmp_path / "refunds.sqlite") == [("1042", 12900, 1)]


def test_the_refund_example_without_a_target(home: Path, tmp_path: Path) -> None:
    with going("dev", "--port", "0", "--data-dir", str(home), cwd=tmp_path) as dev:
        env = {"PERDURE_URL": dev.address()}
        assert QUESTION in dev.wait_for("try")
        run = perdure_json("runs", "start", "triage", QUESTION, "--wait", env=env)
        perdure("approve", run["interruptions"][0]["id"], env=env)
        with httpx.Client(base_url=env["PERDURE_URL"], trust_env=False) as http:
            assert rested(http, run["id"])["status"] == "completed"
        dev.send(signal.SIGINT)
        assert dev.wait() == 0
    assert refunds(home / "refunds.sqlite") == [("1042", 12900, 1)]
    assert list(tmp_path.iterdir()) == []


def test_it_is_for_this_machine_alone(home: Path) -> None:
    with going("dev", str(APP), "--port", "0", "--data-dir", str(home)) as dev:
        address = dev.address()
        with httpx.Client(base_url=address, trust_env=False) as http:
            assert http.get("/v1/runs").status_code == 200
            assert http.get("/docs").status_code == 200
            assert http.get("/v1/runs", headers={"Host": "evil.example"}).status_code == 403
            foreign = {"Origin": "https://evil.example"}
            assert http.post("/v1/runs", json={}, headers=foreign).status_code == 403


def test_an_edit_is_loaded_a_broken_one_is_shown_and_waited_out(home: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import words\nfrom agents import Agent\nfrom perdure import Engine\n\n"
        "engine = Engine(agents=[Agent(name=words.NAME)])\n"
    )
    words = tmp_path / "words.py"
    words.write_text('NAME = "first"\n')
    with going("dev", "app.py", "--port", "0", "--data-dir", str(home), cwd=tmp_path) as dev:
        assert "first" in dev.wait_for("agents")
        address = dev.address()

        # A module of the folder counts as the file itself; a new one, until it is imported, not.
        (tmp_path / "unused.py").write_text("")
        words.write_text('NAME = "second"\n')
        assert "second" in dev.wait_for("Loaded again in")

        good = app.read_text()
        app.write_text(good + "1 +\n")
        assert "app.py:6: syntax error: invalid syntax" in dev.wait_for("Error:")
        dev.wait_for("Waiting for a change.")
        with httpx.Client(base_url=address, trust_env=False) as http:
            sorry = http.get("/v1/runs")
            assert sorry.status_code == 503
            assert sorry.json()["code"] == "unavailable"

        # As editors do it: another file moved over the old one.
        (tmp_path / "app.py.new").write_text(good)
        (tmp_path / "app.py.new").replace(app)
        assert "second" in dev.wait_for("Loaded again in")
        with httpx.Client(base_url=address, trust_env=False) as http:
            assert http.get("/v1/runs").status_code == 200
        assert dev.stop() == 0
        assert "Traceback" not in dev.said


def test_a_run_under_way_survives_a_reload(home: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    shutil.copy(APP, app)
    with going("dev", "app.py", "--port", "0", "--data-dir", str(home), cwd=tmp_path) as dev:
        env = {"PERDURE_URL": dev.address()}
        run = perdure_json("runs", "start", "echo", "hi", "--wait", env=env)
        app.write_text(app.read_text().replace("note gave", "the note gave"))
        dev.wait_for("Loaded again in")
        perdure("approve", run["interruptions"][0]["id"], env=env)
        with httpx.Client(base_url=env["PERDURE_URL"], trust_env=False) as http:
            assert rested(http, run["id"])["output"] == "the note gave: hi"


@pytest.mark.parametrize(
    ("answer", "attempts", "output"),
    [
        (("--outcome", "done", "--result", "paid 5 by hand"), 1, "pay gave: paid 5 by hand"),
        (("--outcome", "not_done"), 2, "pay gave: paid 5"),
        (("--outcome", "abandon"), 1, None),
    ],
    ids=["done", "not done", "abandon"],
)
def test_a_killed_server_is_replaced_and_its_doubtful_effect_asked_about(
    home: Path, tmp_path: Path, answer: tuple[str, ...], attempts: int, output: str | None
) -> None:
    paid = tmp_path / "paid.txt"
    command = ("dev", str(APP), "--port", "0", "--data-dir", str(home))
    with going(*command, env={"PAID": str(paid)}) as dev:
        env = {"PERDURE_URL": dev.address()}
        run_id = perdure_json("runs", "start", "payer", "go", env=env)["id"]
        dev.wait_for("paying, attempt 1")
        os.kill(child_of(dev), signal.SIGKILL)
        dev.wait_for("The server process ended by signal SIGKILL; starting another.")

        with httpx.Client(base_url=env["PERDURE_URL"], trust_env=False) as http:
            [question] = rested(http, run_id)["interruptions"]
            assert question["type"] == "uncertain_effect"
            assert "perdure resolve" in perdure("inbox", env=env).stderr
            wrong = perdure("approve", question["id"], code=1, env=env)
            assert f"perdure resolve {question['id']}" in wrong.stderr

            done = perdure("resolve", question["id"], *answer, env=env)
            assert done.stdout.startswith("Resolved.")
            run = rested(http, run_id)
    assert run["output"] == output
    assert run["status"] == ("completed" if output else "failed")
    assert paid.read_text() == "5\n" * attempts


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = perdure("dev", str(APP), "--port", port, "--data-dir", str(home), code=1)

    assert done.stderr.startswith(f"Error: Cannot listen on 127.0.0.1 port {port}: ")
    assert "--port" in done.stderr


def test_a_target_that_does_not_load_at_first_ends_it(home: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("1 / 0\n")
    done = perdure(*("dev", "app.py", "--port", "0", "--data-dir", str(home)), code=1, cwd=tmp_path)

    assert done.stderr == "Error: app.py:1: ZeroDivisionError: division by zero\n"
    missing = perdure("dev", "missing.py", code=1, cwd=tmp_path)
    assert missing.stderr.startswith("Error: There is no file missing.py")


def test_a_database_of_ones_own_is_used_and_migrated(empty_database_url: str) -> None:
    env = {"DATABASE_URL": empty_database_url}
    with going("dev", str(APP), "--port", "0", env=env) as dev:
        assert re.search("database +DATABASE_URL", dev.wait_for("database"))
    assert perdure_json("migrate", env=env)["applied"] == []

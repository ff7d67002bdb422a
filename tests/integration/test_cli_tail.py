"""``perdure runs tail`` and ``--follow``: the real command against a real server that goes away."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.events import Event
from tests.cli_support import PERDURE, SECONDS, environment, going, perdure, perdure_json
from tests.events_support import check_log

APP = str(Path(__file__).parents[1] / "cli_app.py")


class Following:
    """A command that goes on: what it says on both streams, as it comes."""

    def __init__(self, env: Mapping[str, str], *command: str) -> None:
        self.process = subprocess.Popen(
            [*PERDURE, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
        )
        self._said: dict[str, queue.Queue[str]] = {"out": queue.Queue(), "err": queue.Queue()}
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            assert stream is not None
            threading.Thread(target=self._read, args=(name, stream), daemon=True).start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._said[name].put(line.decode().rstrip("\n"))
        stream.close()

    def line(self) -> str:
        return self._said["out"].get(timeout=SECONDS)

    def note(self) -> str:
        return self._said["err"].get(timeout=SECONDS)


@contextmanager
def following(env: Mapping[str, str], *command: str) -> Iterator[Following]:
    there = Following(env, *command)
    try:
        yield there
    finally:
        there.process.kill()
        there.process.wait(SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_run_is_followed_through_a_restart_of_the_server(database_url: str) -> None:
    base = {"DATABASE_URL": database_url}
    key = perdure_json("keys", "create", "--subject", "alice", env=base)["key"]
    port = free_port()
    serve = ("serve", APP, "--worker", "--port", str(port))
    env = {**base, "PERDURE_URL": f"http://127.0.0.1:{port}", "PERDURE_API_KEY": key}
    with going(*serve, env=base) as server:
        server.address("Serving")
        words = "\x1b[2J\u202e new"
        started = ("runs", "start", "echo", words, "--follow", "--json")
        with following(env, *started) as told:
            events: list[dict[str, Any]] = []
            while not events or events[-1]["event"] != "run.interrupted":
                events.append(json.loads(told.line()))
            [asked] = [one for one in events if one["event"] == "interruption.created"]
            run_id = events[0]["run_id"]
            with following(env, "runs", "tail", run_id) as shown:
                while "waits for you" not in (line := shown.line()):
                    assert "interrupted" not in line
                assert (
                    f"note wants to be approved: perdure approve {asked['interruption_id']}" in line
                )
                server.kill()
                note = told.note()
                while "is away; waiting for it" not in note:
                    note = told.note()
                with going(*serve, env=base) as again:
                    again.address("Serving")
                    perdure("approve", asked["interruption_id"], "--yes", env=env)
                    while events[-1]["event"] != "run.completed":
                        events.append(json.loads(told.line()))
                    assert told.process.wait(90) == 0
                    while "completed" not in (line := shown.line()):
                        assert "\x1b" not in line
                    # The output at the end, as one can see it.
                    assert shown.line() == r"note gave: \x1b[2J\u202e new"
                    assert shown.process.wait(90) == 0
                    check_log([Event.of(one) for one in events], "completed")

                    # A run that does not complete is exit code 1; one that is over is told whole.
                    failed = perdure("runs", "start", "failing", "x", "--follow", env=env, code=1)
                    assert "failed: model_error: " in failed.stdout
                    again_told = perdure("runs", "tail", run_id, "--json", env=env).stdout
                    assert [json.loads(line) for line in again_told.splitlines()] == events
                    rest = perdure("runs", "tail", run_id, "--after", str(len(events)), env=env)
                    assert rest.stdout.strip() == r"note gave: \x1b[2J\u202e new"
                    assert again.stop() == 0
    done = perdure("runs", "tail", run_id, env=env, code=1)
    assert "No server answers at" in done.stderr

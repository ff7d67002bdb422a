"""``perdure runs tail`` and ``--follow``: the real command against a real server that goes away."""

from __future__ import annotations

import json
from typing import Any

from perdure.events import Event
from tests.cli_support import going, perdure, perdure_json
from tests.events_support import check_log
from tests.integration.test_cli_watch import APP, free_port, watching


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
        with watching(env, command=started) as told:
            events: list[dict[str, Any]] = []
            while not events or events[-1]["event"] != "run.interrupted":
                events.append(json.loads(told.line()))
            [asked] = [one for one in events if one["event"] == "interruption.created"]
            run_id = events[0]["run_id"]
            with watching(env, command=("runs", "tail", run_id)) as shown:
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

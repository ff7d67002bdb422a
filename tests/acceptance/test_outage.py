"""``perdure serve --worker`` while its database is away: it says so, waits, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.cli_support import SECONDS, Process, going, perdure, perdure_json
from tests.loopback.pg_proxy import pg_proxy
from tests.own_server import OwnServer, own_server

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

APP = str(Path(__file__).parents[1] / "outage_app.py")
AWAY_SECONDS = float(os.environ.get("PERDURE_TEST_OUTAGE_SECONDS", "0"))
"""How long the database is away at least; without it as long as it takes to see all there is."""
ROUNDS = 3
AT_ONCE_SECONDS = 4.5
"""What counts as at once on a busy machine; who waits for a connection does so for five seconds."""
PROMPT_SECONDS = 9.0
"""The same for a database that takes connections and says nothing: five seconds and some."""
# The others wait in the pool meanwhile, for ten seconds at a time.
LOOPS = (
    "perdure.ledger.writer: Ledger write failed",
    "perdure.notify: lost the connection",
    "perdure.worker.wake: Claiming from the queue failed",
    "perdure.worker.lease: Executor",
    "perdure.pool: The database does not answer",
)


@pytest.fixture
def own() -> Iterator[OwnServer]:
    """A server to be killed."""
    with own_server() as server:
        yield server


class _Served:
    """A server process with a run in the middle of an effect."""

    def __init__(self, process: Process, env: dict[str, str], pipe: Path) -> None:
        self.process = process
        self._pipe = pipe
        self.http = httpx.Client(
            base_url=process.address("Serving"),
            headers={"Authorization": f"Bearer {env['PERDURE_API_KEY']}"},
            trust_env=False,
            timeout=SECONDS,
        )
        self.runs = 0
        self.begin_run()

    def begin_run(self) -> None:
        """Start a run; its tool is in the middle of its effect when this returns."""
        answer = self.http.post("/v1/runs", json={"agent": "payer", "input": "go"})
        assert answer.status_code == 202
        self.run_id = answer.json()["id"]
        self.process.wait_for("paying, attempt 1")
        self.runs += 1

    def let_go(self) -> None:
        """Let the tool return."""
        self._pipe.write_text("go")

    def requests(self) -> list[tuple[str, str, dict[str, Any]]]:
        """One request to each address that needs the database."""
        run, nobody = f"/v1/runs/{self.run_id}", f"/v1/interruptions/{uuid4()}"
        start = {"agent": "payer", "input": "go"}
        key = {"Idempotency-Key": str(uuid4())}
        return [
            ("GET", "/readyz", {}),
            ("GET", "/openapi.json", {}),
            ("POST", "/v1/runs", {"json": start}),
            ("POST", "/v1/runs", {"json": start, "headers": key}),
            ("GET", "/v1/runs", {}),
            ("GET", run, {}),
            ("GET", run, {"params": {"wait": 30}}),
            *(("GET", f"{run}/{part}", {}) for part in ("items", "tool_calls", "state")),
            *(("GET", f"{run}/{part}", {}) for part in ("checkpoints", "usage")),
            ("POST", f"{run}/cancel", {}),
            ("POST", f"{run}/resume", {}),
            ("DELETE", run, {}),
            ("GET", "/v1/interruptions", {}),
            ("GET", nobody, {}),
            ("POST", f"{nobody}/decision", {"json": {"decision": "reject"}}),
        ]

    def refuses_all(self, *, within: float) -> float:
        """Send every request at once; check that each is refused in time; returns the longest."""
        with ThreadPoolExecutor(32) as threads:
            asked = [threads.submit(self._refused, *one) for one in self.requests()]
            lives = threads.submit(self._took, "GET", "/healthz", {})
        longest = max(one.result() for one in asked)
        assert longest < within
        healthy, seconds = lives.result()
        assert healthy.status_code == 200
        assert seconds < AT_ONCE_SECONDS
        return longest

    def _refused(self, method: str, path: str, options: dict[str, Any]) -> float:
        answer, seconds = self._took(method, path, options)
        assert answer.status_code == 503, (method, path, answer.text)
        assert answer.json()["code"] == "unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
        return seconds

    def _took(
        self, method: str, path: str, options: dict[str, Any]
    ) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        answer = self.http.request(method, path, **options)
        return answer, time.monotonic() - began

    def back(self) -> tuple[float, float]:
        """Return how long it took to be ready and to end the run, from now on."""
        began = time.monotonic()
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() < began + SECONDS
        ready = time.monotonic() - began
        while True:
            answer = self.http.get(f"/v1/runs/{self.run_id}", params={"wait": 30})
            if answer.status_code == 200:
                break
        run = answer.json()
        ended = time.monotonic() - began
        assert (run["status"], run["output"]) == ("completed", "pay gave: paid"), run
        return ready, ended


def _environment(url: str, key_url: str, pipe: Path) -> dict[str, str]:
    os.mkfifo(pipe)
    key = perdure_json("keys", "create", env={"DATABASE_URL": key_url})["key"]
    return {"DATABASE_URL": url, "PERDURE_API_KEY": key, "LET_GO": str(pipe)}


def _stopped_in_order(served: _Served) -> None:
    served.http.close()
    assert served.process.stop() == 0
    assert "Traceback" not in served.process.said
    assert served.process.said.count("paying") == served.runs


def test_a_database_that_is_killed_and_comes_back(own: OwnServer, tmp_path: Path) -> None:
    perdure("migrate", env={"DATABASE_URL": own.url})
    env = _environment(own.url, own.url, tmp_path / "go")
    with going("serve", APP, "--worker", "--port", "0", env=env) as process:
        served = _Served(process, env, tmp_path / "go")
        own.end(signal.SIGKILL)
        gone = time.monotonic()
        # What the tool came to is known, and can be written nowhere.
        served.let_go()
        rounds: list[float] = []
        while len(rounds) < ROUNDS or time.monotonic() < gone + AWAY_SECONDS:
            rounds.append(served.refuses_all(within=AT_ONCE_SECONDS))
        waiting = set(LOOPS)
        deadline = time.monotonic() + SECONDS
        while waiting := {loop for loop in waiting if loop not in process.said}:
            assert time.monotonic() < deadline, waiting
            served.refuses_all(within=AT_ONCE_SECONDS)
        away, lines = time.monotonic() - gone, len(process.lines)
        own.start()
        ready, ended = served.back()
        print(
            f"away {away:.1f} s, {lines} lines; longest answer {max(rounds):.2f} s; "
            f"ready after {ready:.2f} s, run over after {ended:.2f} s"
        )
        assert ended < 5

        # And stopped while it is away, with an outcome that cannot be written.
        served.begin_run()
        own.end(signal.SIGQUIT)
        served.let_go()
        began = time.monotonic()
        _stopped_in_order(served)
        print(f"stopped within {time.monotonic() - began:.1f} s")


def test_a_database_that_says_nothing_any_more(database_url: str, tmp_path: Path) -> None:
    with pg_proxy(database_url) as proxy:
        env = _environment(proxy.url, database_url, tmp_path / "go")
        with going("serve", APP, "--worker", "--port", "0", env=env) as process:
            served = _Served(process, env, tmp_path / "go")
            proxy.freeze()
            served.let_go()
            longest = [served.refuses_all(within=PROMPT_SECONDS) for _ in range(2)]
            proxy.thaw()
            ready, ended = served.back()
            print(f"longest answers {longest}; ready {ready:.2f} s, run over {ended:.2f} s")
            assert ended < 5
            _stopped_in_order(served)

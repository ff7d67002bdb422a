"""``perdure inbox --watch`` and ``perdure webhooks``: the real commands against a real server."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli_support import PERDURE, SECONDS, environment, going, perdure, perdure_json
from tests.loopback.receiver import Answer, receiver

APP = str(Path(__file__).parents[1] / "cli_app.py")


class Watching:
    """``perdure inbox --watch``, or another: what it says on both streams, as it comes."""

    def __init__(
        self,
        env: Mapping[str, str],
        *options: str,
        command: Sequence[str] = ("inbox", "--watch"),
    ) -> None:
        self.process = subprocess.Popen(
            [*PERDURE, *command, *options],
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

    def change(self) -> tuple[str, str, str]:
        """What changed, in which run, and how the question stands."""
        told = json.loads(self.line())
        assert told["object"] == "inbox.change"
        one = told["interruption"]
        return told["change"], one["run_id"], one["status"]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


@contextmanager
def watching(env: Mapping[str, str], *options: str, **command: Any) -> Iterator[Watching]:
    """A command that goes on, killed at the end of the block."""
    there = Watching(env, *options, **command)
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


def test_the_inbox_is_followed_through_a_restart_of_the_server(database_url: str) -> None:
    base = {"DATABASE_URL": database_url}
    key = perdure_json("keys", "create", "--subject", "alice", env=base)["key"]
    port = free_port()
    serve = ("serve", APP, "--worker", "--port", str(port))
    env = {**base, "PERDURE_URL": f"http://127.0.0.1:{port}", "PERDURE_API_KEY": key}

    def start(words: str) -> dict[str, Any]:
        run: dict[str, Any] = perdure_json("runs", "start", "echo", words, "--wait", env=env)
        return run

    with going(*serve, env=base) as server:
        server.address("Serving")
        first = start("already there")
        with watching(env, "--json") as told, watching(env, "--agent", "echo") as shown:
            assert told.change() == ("opened", first["id"], "pending")
            [question] = first["interruptions"]
            assert f"+ {question['id']} echo: note" in shown.line()
            assert shown.note().startswith("1 waiting.")

            second = start("\x1b[2J\u202e new")
            assert told.change() == ("opened", second["id"], "pending")
            assert r"\u001b[2J\u202e new" in shown.line()
            perdure("reject", question["id"], "--message", "not\nnow", env=env)
            assert told.change() == ("closed", first["id"], "rejected")
            line = shown.line()
            assert line.endswith(rf"- {question['id']} rejected by alice: not\nnow")

            server.kill()
            assert "is away; waiting for it" in told.note()
            assert "is away; waiting for it" in shown.note()
            with going(*serve, env=base) as again:
                again.address("Serving")
                assert told.note() == "The server is back."
                assert shown.note() == "The server is back."
                perdure("approve", second["interruptions"][0]["id"], "--yes", env=env)
                assert told.change() == ("closed", second["id"], "approved")
                assert "approved by alice" in shown.line()
                assert told.interrupt() == 0
                assert shown.interrupt() == 0
                assert told._said["err"].empty()
                assert again.stop() == 0
    # A server that was never there is no server to wait for.
    done = perdure("inbox", "--watch", env=env, code=1)
    assert "No server answers at" in done.stderr


async def test_webhooks_from_a_terminal(database_url: str) -> None:
    base = {"DATABASE_URL": database_url, "PERDURE_WEBHOOK_ALLOW": "127.0.0.1"}
    key = (await asyncio.to_thread(perdure_json, "keys", "create", "--role", "admin", env=base))[
        "key"
    ]
    async with receiver() as there:
        there.answers = [Answer(), Answer(500, body=b"no")]
        secret = await asyncio.to_thread(_use, base, key, there.url)
        await there.request(3)
        for came in there.came:
            assert came.verified(secret)["type"] == "webhook.test"
        assert there.came[1].id == there.came[2].id


def _use(base: Mapping[str, str], key: str, url: str) -> str:
    with going("serve", APP, "--worker", "--port", "0", env=base) as server:
        env = {**base, "PERDURE_URL": server.address("Serving"), "PERDURE_API_KEY": key}
        assert "There are no webhooks" in perdure("webhooks", "list", env=env).stderr
        made = perdure_json(
            *("webhooks", "create", url, "--event", "run.failed", "--description", "ops"), env=env
        )
        listed = perdure("webhooks", "list", env=env).stdout
        assert made["secret"] not in listed
        assert f"{made['id']}  enabled  run.failed  ops" in listed
        assert "Delivered in" in perdure("webhooks", "test", made["id"], env=env).stdout
        failed = perdure_json("webhooks", "test", made["id"], env=env, code=1)
        assert (failed["status"], failed["error"]) == ("pending", "It answered 500.")
        said = perdure("webhooks", "deliveries", made["id"], env=env).stdout
        assert "webhook.test  200" in said
        assert "It answered 500. Next attempt at " in said
        again = perdure_json("webhooks", "resend", failed["id"], env=env)
        assert again["id"] == failed["id"]
        shown = perdure_json("webhooks", "deliveries", made["id"], env=env)["data"]
        assert shown[0]["id"] == failed["id"]
        wrong = perdure("webhooks", "create", "http://10.0.0.1/", env=env, code=1).stderr
        assert "PERDURE_WEBHOOK_ALLOW" in wrong
        assert "no id of a webhook" in perdure("webhooks", "test", "x", env=env, code=2).stderr
        perdure("webhooks", "delete", made["id"], env=env)
        assert perdure_json("webhooks", "list", env=env)["data"] == []
        assert server.stop() == 0
        return str(made["secret"])

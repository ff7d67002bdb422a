"""``perdure demo``: the whole story, for people and for machines, leaving nothing behind."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cli_support import PERDURE, SECONDS, environment, perdure, perdure_json

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.fixture
def place() -> Iterator[Path]:
    """The only folder for what the demo makes; Postgres, which may be another user, can enter."""
    place = Path(tempfile.mkdtemp(prefix="perdure-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def env_of(place: Path) -> dict[str, str]:
    # A key and a database in the environment must make no difference.
    return {
        "TMPDIR": str(place),
        "OPENAI_API_KEY": "sk-not-to-be-used",
        "DATABASE_URL": "postgresql://not@127.0.0.1:9/used",
    }


def left_running(place: Path) -> list[str]:
    """The command lines of processes that still use ``place``."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(place).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def check(document: dict[str, Any]) -> None:
    assert document["ok"] is True
    assert document["status"] == "completed"
    assert document["kills"] == 2
    [refund] = document["refunds"]
    assert (refund["order_id"], refund["cents"], refund["requests"]) == ("1042", 12900, 2)
    assert document["model_calls"] == {"made": 5, "recorded": 5}
    assert document["usage"]["requests"] == 5
    assert document["usage"]["total_tokens"] > 0
    assert "refunded 129.00 euros" in document["output"]

    timeline = document["timeline"]
    assert [entry["seconds"] for entry in timeline] == sorted(e["seconds"] for e in timeline)
    kinds = [entry["kind"] for entry in timeline]
    assert kinds.count("kill") == 2
    assert kinds.count("worker") == 3
    assert kinds.count("reply") == 5
    assert sum("hands over to" in entry["what"] for entry in timeline) == 2
    # Killed while it waits; approved; killed in the middle; called again; done.
    order = ("question", "kill", "decision", "kill", "again", "tool", "finished")
    places = [kinds.index("question")]
    for kind in order[1:]:
        places.append(kinds.index(kind, places[-1] + 1))
    rests = [entry["what"] for entry in timeline if entry["kind"] == "rest"]
    assert rests == [
        "rests segment 1: interrupted; begun once, epoch 1",
        "rests segment 2: completed; begun 2 times, epoch 3",
    ]


def test_twice_in_a_row_and_nothing_is_left(place: Path) -> None:
    for _ in range(2):
        check(perdure_json("demo", env=env_of(place)))
        assert list(place.iterdir()) == []
        assert left_running(place) == []


def test_two_at_once(place: Path) -> None:
    with ThreadPoolExecutor() as pool:
        for document in pool.map(lambda _: perdure_json("demo", env=env_of(place)), range(2)):
            check(document)
    assert list(place.iterdir()) == []


def test_in_a_pipe_it_tells_the_story_and_approves_by_itself(place: Path) -> None:
    done = perdure("demo", env=env_of(place))

    story, _, timeline = done.stdout.partition("What the database says happened:")
    assert story.count("kill -9") == 2
    assert "Press Enter" not in story
    assert timeline.count(" ✗ worker") == 2
    assert "local user" in timeline
    assert "2 kills, 1 refund: the payment service was asked 2 times" in timeline
    assert "5 model calls made, 5 recorded: none was paid for twice." in timeline
    assert done.stderr == ""


def test_on_a_terminal_it_waits_for_enter(place: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PERDURE, "demo"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({**env_of(place), "TERM": "xterm", "COLUMNS": "90"}),
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""
    try:
        while True:
            try:
                seen += os.read(ours, 4096).decode()
            except OSError:
                break
            if seen.endswith("Press Enter to approve.\r\n"):
                assert "Approved" not in seen
                os.write(ours, b"\n")
        assert process.wait(SECONDS) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    timeline = seen.partition("What the database says happened:")[2].splitlines()
    assert all(len(line) <= 90 for line in timeline if " s " in line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle_it_tidies_up(place: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*PERDURE, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env_of(place)),
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Worker 1 works." in line:
            process.send_signal(number)
            break
    _, said = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(place.iterdir()) == []
    assert left_running(place) == []


def test_json_is_one_document(place: Path) -> None:
    done = perdure("demo", "--json", env=env_of(place))

    assert json.loads(done.stdout)["object"] == "demo"
    assert "kill -9" in done.stderr

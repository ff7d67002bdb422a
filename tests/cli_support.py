"""The real command, run in child processes."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PERDURE = (sys.executable, "-P", "-m", "perdure")
EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 90.0
"""How long anything may take before a test fails: far more than it needs."""

_OURS = re.compile("PERDURE_|OPENAI_|REFUNDS_|DATABASE_URL$|COLUMNS$|NO_COLOR$|FORCE_COLOR$")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the command's mind, and ``more``."""
    clean = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    return {**clean, **(more or {})}


def perdure(
    *arguments: str,
    code: int = 0,
    stdin: str | bytes = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and check its exit code."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    raw = subprocess.run(
        [*PERDURE, *arguments],
        input=given,
        capture_output=True,
        env=environment(env),
        cwd=cwd,
        timeout=SECONDS,
        check=False,
    )
    done = subprocess.CompletedProcess(
        raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode()
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def perdure_json(*arguments: str, **options: Any) -> Any:
    """Run a command with ``--json`` and return its document."""
    return json.loads(perdure(*arguments, "--json", **options).stdout)


class Process:
    """A command that goes on; what it says on stderr is read as it comes."""

    def __init__(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [*PERDURE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(env),
            cwd=cwd,
        )
        self.lines: list[str] = []
        self._said: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str) -> str:
        """Wait for a line with ``text`` among those not waited for yet, and return it."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                line = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"never said {text!r}:\n{self.said}"
            if text in line:
                return line

    def wait_until_said(self, text: str) -> None:
        """Wait until some line so far has ``text``, whoever has waited for it."""
        while text not in self.said:
            self.wait_for("")

    def address(self, text: str = "API") -> str:
        """Wait for the line with ``text`` and return the address in it."""
        line = self.wait_for(text)
        found = _ADDRESS.search(line)
        assert found is not None, line
        return found.group()

    @property
    def said(self) -> str:
        """All it has said so far."""
        return "\n".join(self.lines)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return the exit code; negative is a signal."""
        code = self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def stop(self) -> int:
        """Tell it to stop and return the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(SECONDS)
        # Its children may have had the other end of the pipe for a moment longer.
        self._reader.join(SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode().rstrip("\n")
            self.lines.append(line)
            self._said.put(line)
        self._said.put(None)


@contextmanager
def going(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Start a command that goes on; it is killed at the end of the block."""
    process = Process(*arguments, cwd=cwd, env=env)
    try:
        yield process
    finally:
        process.kill()

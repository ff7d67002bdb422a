"""One Postgres cluster: made whole or not at all, started, and stopped.

Only the standard library is used here: the watcher has nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perdure.embedded.shared import START_SECONDS, Orders

_LINUX = sys.platform.startswith("linux")
# Why a server may not start now and yet a moment later: after a crash its last backends still hold
# the shared memory, or somebody has the port.
_PASSING = ("shared memory block", "could not bind")
# Gently first: end sessions and write a checkpoint; drop everything; die.
_STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # What the server does, not what statements failed: those may hold what users wrote.
    "log_min_messages": "log",
    "log_checkpoints": "off",
    "jit": "off",
}
# A crash of the machine may cost the whole cluster; a crash of a process costs nothing.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Failure(Exception):
    """The server cannot be run; the message goes to everyone who waits for it."""


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child has to call so that it gets SIGINT when its parent dies (Linux)."""
    if not _LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl
    pr_set_pdeathsig = 1
    return lambda: prctl(pr_set_pdeathsig, int(signal.SIGINT))


class Server:
    """One Postgres cluster and its postmaster, which is a child of this process."""

    def __init__(self, orders: Orders) -> None:
        self._home = Path(orders.home)
        self._programs = Path(orders.programs)
        self._durable = orders.durable
        self._user = orders.user
        self._pgdata = self._home / "pgdata"
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._die_with_parent = _die_with_parent()
        self._log_path = self._home / "postgres.log"
        if self._log_path.exists():
            self._log_path.replace(self._home / "postgres.log.1")
        self._log = self._log_path.open("ab")

    def create(self) -> None:
        """Make the cluster, its role and its database, unless they are there."""
        for leftover in self._home.glob("pgdata.new*"):
            shutil.rmtree(leftover)
        if self._pgdata.exists():
            return
        password = secrets.token_urlsafe(24)
        self._write_private(self._home / "password", password)
        staging = self._home / "pgdata.new"
        staging.mkdir(mode=0o700)
        self._give_away(staging)
        self._run(
            "initdb", "-D", self._path_of(staging), "--username=perdure", "--encoding=UTF8",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
            # Nobody gets in before the password is set, and pg_hba.conf is written below.
            "--auth=reject", "--no-instructions",
            # Stretching guards passwords people choose. This one is 192 random bits.
            "--set", "scram_iterations=1",
            *([] if self._durable else ["--no-sync"]),
            cwd=staging,
        )  # fmt: skip
        self._run(
            "postgres", "--single", "-D", self._path_of(staging), "template1",
            cwd=staging,
            commands=f"ALTER ROLE perdure PASSWORD '{password}'\nCREATE DATABASE perdure\n",
        )  # fmt: skip
        hba = staging / "pg_hba.conf"
        hba.write_text("# type  database  user  address       method\n"
                       "host    all       all   127.0.0.1/32  scram-sha-256\n")  # fmt: skip
        staging.rename(self._pgdata)

    def clear_the_way(self, port: int) -> None:
        """End a postmaster that a killed watcher left on ``port``; remove a pid file that lies.

        Postgres takes any process with the recorded pid for a postmaster: after a restart of the
        machine that may be anybody, and a zombie never goes away.
        """
        first = next(iter(self._pid_file()), "").strip()
        if first.isdigit():
            self._end(int(first), port)
        (self._pgdata / "postmaster.pid").unlink(missing_ok=True)

    def start(self, port: int) -> None:
        """Start the postmaster on ``port`` and wait until it takes connections.

        Raises:
            Failure: it does not start; the message ends with what its log says.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            written = self._log_path.stat().st_size
            self._postmaster = self._popen(port)
            while self._postmaster.poll() is None:
                if self._is_ready(self._postmaster.pid):
                    return
                if time.monotonic() > deadline:
                    self.stop()
                    raise Failure(f"Postgres was not ready after {START_SECONDS:g} s.")
                time.sleep(0.01)
            said = self._said_since(written)
            if time.monotonic() > deadline or not any(reason in said for reason in _PASSING):
                raise Failure(f"Postgres does not start: {said}")
            time.sleep(0.1)

    def _end(self, pid: int, port: int) -> None:
        marks = {f"port={port}", self._path_of(self._pgdata)}
        for how, seconds in _STOP:
            deadline = time.monotonic() + seconds
            if marks <= _arguments(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            while marks <= _arguments(pid) and time.monotonic() < deadline:
                time.sleep(0.02)

    def is_running(self) -> bool:
        """Whether the postmaster lives; reaps it if it does not."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def stop(self) -> None:
        """Stop the postmaster, gently first, and wait for its end."""
        for how, seconds in _STOP:
            if self._postmaster is None or not self.is_running():
                return
            self._postmaster.send_signal(how)
            try:
                self._postmaster.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

    def _popen(self, port: int) -> subprocess.Popen[bytes]:
        settings = _CONFIGURATION | {"port": str(port)} | ({} if self._durable else _NOT_DURABLE)
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return subprocess.Popen(
            [self._programs / "postgres", "-D", self._path_of(self._pgdata), *options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self._pgdata,
            # Safe: this process has one thread.
            preexec_fn=self._die_with_parent,
            **self._as_user(),
        )

    def _run(self, program: str, *args: str, cwd: Path, commands: str = "") -> None:
        done = subprocess.run(
            [self._programs / program, *args],
            input=commands,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=cwd,
            **self._as_user(),
        )
        # A single-user backend reports a failed command and exits with 0.
        if done.returncode or "ERROR:" in done.stdout or "FATAL:" in done.stdout:
            raise Failure(f"{program} failed: {' '.join(done.stdout.split())[-1000:]}")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        uid, gid = self._user
        return {"user": uid, "group": gid, "extra_groups": []}

    def _give_away(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, *self._user)

    def _path_of(self, directory: Path) -> str:
        # The user Postgres runs as need not be able to walk to the directory, only to be in it:
        # so no folder above has to be opened for anybody.
        return str(directory) if self._user is None else "/proc/self/cwd"

    def _write_private(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _is_ready(self, pid: int) -> bool:
        lines = self._pid_file()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self._pgdata / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _said_since(self, position: int) -> str:
        with self._log_path.open("rb") as log:
            log.seek(position)
            return " ".join(log.read().decode(errors="replace").split())[-1000:]


def _arguments(pid: int) -> set[str]:
    """Return the command line of ``pid``; empty if it is gone or a zombie."""
    if _LINUX:
        try:
            return set(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"))
        except OSError:
            return set()
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return set(shown.stdout.split())


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def known_port(home: Path) -> int:
    """Return the port of the last start, 0 before the first."""
    try:
        return int((home / "port").read_text())
    except FileNotFoundError:
        return 0


def choose_port(home: Path) -> int:
    """Return the port of the last start if it is free, else a new one, and remember it."""
    known = known_port(home)
    if known and _port_is_free(known):
        return known
    # Below the range the kernel takes ports for outgoing connections from: one of those on our
    # port would keep the server from starting again.
    for port in random.sample(range(15_000, 32_000), 100):
        if _port_is_free(port):
            (home / "port").write_text(str(port))
            return port
    raise Failure("No free TCP port was found on 127.0.0.1.")

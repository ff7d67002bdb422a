"""``perdure inbox --watch``: the real command, followed through a restart of the server."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import httpx
from fastapi import FastAPI

from perdure.access.keys import create_key
from perdure.db import Connection, Pool
from perdure.notify import Waiters
from perdure.runs.registry import Registry
from perdure.web.app import create_app
from tests.cli_support import PERDURE, SECONDS, environment
from tests.factories import insert_run, insert_stop
from tests.loopback.api import serving


class Watching:
    """What it says on both streams, as it comes."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> str:
        return await self._read(self.process.stdout)

    async def note(self) -> str:
        return await self._read(self.process.stderr)

    async def change(self) -> tuple[str, str, str]:
        """What changed, of which question, and how that stands."""
        told = json.loads(await self.line())
        assert told["object"] == "inbox.change"
        one = told["interruption"]
        return told["change"], one["id"], one["status"]

    async def interrupt(self) -> tuple[int, bytes]:
        """Ctrl-C; returns the exit code and what was left unread."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            left = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, b"".join(left)

    async def _read(self, stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        async with asyncio.timeout(SECONDS):
            line = await stream.readline()
        assert line, "it ended"
        return line.decode().rstrip("\n")


@asynccontextmanager
async def watching(env: Mapping[str, str], *options: str) -> AsyncIterator[Watching]:
    process = await create_subprocess_exec(
        *(*PERDURE, "inbox", "--watch", *options),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(env),
        # What runs in the background of a script is started with Ctrl-C ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield Watching(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_inbox_is_followed_through_a_restart_of_the_server(
    app: FastAPI,
    pool: Pool,
    registry: Registry,
    waiters: Waiters,
    conn: Connection,
    client: httpx.AsyncClient,
) -> None:
    key = (await create_key(conn, subject="alice")).secret
    first = await insert_stop(conn, await insert_run(conn))
    async with serving(app) as server:
        env = {"PERDURE_URL": server.url, "PERDURE_API_KEY": key}
        async with watching(env, "--json") as told, watching(env, "--agent", "support") as shown:
            assert await told.change() == ("opened", str(first.id), "pending")
            assert f"+ {first.id} support: refund" in await shown.line()
            assert (await shown.note()).startswith("1 waiting.")

            text = "\x1b[2J\u202e new"
            second = await insert_stop(conn, await insert_run(conn), arguments={"text": text})
            assert await told.change() == ("opened", str(second.id), "pending")
            assert r"\u001b[2J\u202e new" in await shown.line()
            decision = {"decision": "reject", "message": "not\nnow"}
            path = "/v1/interruptions"
            await client.post(f"{path}/{first.id}/decision", json=decision)
            assert await told.change() == ("closed", str(first.id), "rejected")
            line = await shown.line()
            assert line.endswith(rf"- {first.id} rejected by alice@example.com: not\nnow")

            await server.kill()
            for one in (told, shown):
                assert "is away; waiting for it" in await one.note()
            again = create_app(pool=pool, registry=registry, waiters=waiters)
            async with serving(again, server.port):
                for one in (told, shown):
                    assert await one.note() == "The server is back."
                decision = {"decision": "approve", "digest": second.digest}
                await client.post(f"{path}/{second.id}/decision", json=decision)
                assert await told.change() == ("closed", str(second.id), "approved")
                assert "approved by alice@example.com" in await shown.line()
                assert await told.interrupt() == (0, b"")
                assert await shown.interrupt() == (0, b"")
    # A server that was never there is no server to wait for.
    async with watching(env) as lost:
        assert "No server answers at" in await lost.note()
        assert await lost.process.wait() == 1

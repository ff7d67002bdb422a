"""A page of the real browser: Chromium without a window, told what to do over two pipes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    "--remote-debugging-pipe",
)


class Page:
    """One page; ``run`` evaluates JavaScript in it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._session: str | None = None
        self._sent = 0

    async def open(self, url: str) -> None:
        """Go to ``url`` and wait until it has loaded."""
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        await self._ask("Page.enable")
        await self._ask("Page.navigate", url=url)
        while (await self._heard()).get("method") != "Page.loadEventFired":
            continue

    async def run(self, script: str) -> Any:
        """Return what an expression comes to; a promise is waited for."""
        answer = await self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        while (heard := await self._heard()).get("id") != self._sent:
            continue
        assert "error" not in heard, heard
        result: dict[str, Any] = heard["result"]
        return result

    async def _heard(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._reader.readuntil(b"\0"))[:-1])
        return message


@asynccontextmanager
async def browser(home: Path) -> AsyncIterator[Page]:
    """Run Chromium inside the block, with its profile in ``home``."""
    assert CHROMIUM is not None
    loop = asyncio.get_running_loop()
    # It reads commands from its descriptor 3 and answers on 4.
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    process = await create_subprocess_exec(
        *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash"),
        *(CHROMIUM, *_OPTIONS, f"--user-data-dir={home}", "about:blank"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        pass_fds=(commands, answers),
    )
    os.close(commands)
    os.close(answers)
    reader = asyncio.StreamReader(limit=1 << 24)
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser, "rb")
    )
    writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(to_browser, "wb"))
    try:
        yield Page(reader, writing)
    finally:
        process.kill()
        await process.wait()
        reading.close()
        writing.close()

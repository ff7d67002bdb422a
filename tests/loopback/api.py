"""An API behind a real port, which can be taken away as a killed process's is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


class Serving:
    """A server of this process; ``kill`` ends it in the middle of whatever it does."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        self.port: int = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._listening = listening
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self._task = asyncio.create_task(self._server.serve([listening]))

    async def kill(self) -> None:
        """Close the port and break every connection, answered or not."""
        if self._task.done():
            return
        self._server.should_exit = self._server.force_exit = True
        for server in getattr(self._server, "servers", []):
            server.close()
        self._listening.close()
        self._break_connections()
        for task in list(self._server.server_state.tasks):
            task.cancel()
        await self._task
        # Who was being accepted just then.
        self._break_connections()
        await asyncio.sleep(0)

    def _break_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


@asynccontextmanager
async def serving(app: Any, port: int = 0) -> AsyncIterator[Serving]:
    """Serve ``app`` on ``port``, by default a free one."""
    there = Serving(app, socket.create_server(("127.0.0.1", port)))
    try:
        yield there
    finally:
        await there.kill()

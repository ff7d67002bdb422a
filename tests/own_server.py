"""A Postgres server that belongs to one test, to be killed, kept away, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from perdure.embedded.programs import program_directory, server_user
from perdure.embedded.server import Server, choose_port
from perdure.embedded.shared import Orders
from tests.conftest import scratch_directory


class OwnServer:
    """A server on a port of its own; what it does here blocks, as the server's own code does.

    Its postmaster ends with the thread that started it.
    """

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._home = scratch_directory()
        user = server_user(self._home)
        self._server = Server(
            Orders(str(self._home), str(program_directory(user)), durable=False, user=user)
        )
        self.port = choose_port(self._home)

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://perdure:{self.password}@127.0.0.1:{self.port}/perdure"

    @property
    def password(self) -> str:
        """The password of its role."""
        return (self._home / "password").read_text()

    @property
    def postmaster(self) -> int:
        """The process id of its postmaster."""
        return int((self._home / "pgdata" / "postmaster.pid").read_text().splitlines()[0])

    def create(self) -> None:
        """Make its cluster."""
        self._do(self._server.create)

    def start(self) -> None:
        """Start it, after whatever end it came to, and return when it takes connections."""
        self._do(lambda: self._server.clear_the_way(self.port))
        self._do(lambda: self._server.start(self.port))

    def end(self, how: signal.Signals) -> None:
        """End it: SIGQUIT is Postgres's immediate shutdown, SIGKILL leaves its children behind."""
        os.kill(self.postmaster, how)
        self._do(self._wait)

    def stop(self) -> None:
        """Stop it for good and remove what it kept."""
        self._do(self._server.stop)
        self._server._log.close()
        shutil.rmtree(self._home)

    def _wait(self) -> None:
        postmaster = self._server._postmaster
        assert postmaster is not None
        postmaster.wait(30)

    def _do(self, work: Callable[[], None]) -> None:
        self._thread.submit(work).result()


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """A server of one's own inside the block, running and empty."""
    with ThreadPoolExecutor(1) as thread:
        server = OwnServer(thread)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()

"""Serves an engine over HTTP, or runs its worker alone, until the process is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from perdure.cli.ending import end_within
from perdure.cli.open_files import allow_many_connections
from perdure.config import Settings
from perdure.errors import ConfigurationError, UnavailableError
from perdure.tasks import first_of

if TYPE_CHECKING:
    from perdure.engine import Engine

STOP_SECONDS = 5
_BACKLOG = 2048
_THREADS_SECONDS = 2.0
"""How long the interpreter may take to end once everything is told to the user."""
_TAKEN_OVER = (
    "This worker was silent for too long (it was paused, or cut off from the database) and its "
    "runs went on elsewhere. Start it again."
)


class _Server(uvicorn.Server):
    """Uvicorn, which leaves signals to us: it would end the process before the engine has."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            # What was loaded stays. Looking through it for garbage would hold up everybody for
            # half a second each time, once a thousand follow runs.
            allow_many_connections()
            gc.collect()
            gc.freeze()
            self._on_ready()


async def serve(
    engine: Engine,
    listening: socket.socket,
    *,
    worker: bool,
    on_ready: Callable[[], None],
    loopback_only: bool = False,
    migrate_first: bool = False,
    url: str | None = None,
    stop_seconds: int = STOP_SECONDS,
    replace_lost: bool = False,
) -> None:
    """Serve ``engine`` on a bound socket until SIGTERM or SIGINT; ``on_ready`` is called once.

    Answers and effects under way then have ``stop_seconds``. A worker that was taken for dead ends
    it too, or with ``replace_lost`` is replaced by a new one.

    Raises:
        ConfigurationError, MigrationError, UnavailableError: the engine cannot run, and nothing
            was served; or, in the end, that the worker was taken over.
    """
    app = engine.api(loopback_only=loopback_only, max_body_bytes=Settings.from_env().max_body_bytes)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # No proxy stands between this machine and itself.
        proxy_headers=not loopback_only,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=stop_seconds,
    )
    server = _Server(config, on_ready)
    with _told_to_stop() as told:
        async with engine.running(
            worker=worker,
            migrate_first=migrate_first,
            url=url,
            replace_lost=replace_lost,
            stop_seconds=stop_seconds,
        ):
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            lost = await first_of(serving, told.wait(), engine.lost()) == 2
            # Who waits for something is answered with what there is.
            engine.waiters.end()
            engine.end_streams()
            server.should_exit = True
            await serving
    if lost:
        raise UnavailableError(_TAKEN_OVER)


async def work(
    engine: Engine,
    *,
    on_ready: Callable[[], None],
    concurrency: int | None = None,
    stop_seconds: int = STOP_SECONDS,
) -> None:
    """Run segments of ``engine`` until SIGTERM or SIGINT; the database has to be migrated.

    Effects under way then have ``stop_seconds``.

    Raises:
        ConfigurationError, MigrationError, UnavailableError: the engine cannot run, or was taken
            over.
    """
    with _told_to_stop() as told:
        async with engine.running(
            migrate_first=False,
            concurrency=concurrency,
            replace_lost=False,
            stop_seconds=stop_seconds,
        ):
            on_ready()
            lost = await first_of(told.wait(), engine.lost()) == 1
    if lost:
        raise UnavailableError(_TAKEN_OVER)


def require_database(engine: Engine) -> None:
    """Pass when the engine or the environment names a database.

    Raises:
        ConfigurationError: neither does.
    """
    if engine.database_url is None:
        Settings.from_env().require_database_url()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any free one).

    Raises:
        ConfigurationError: the address cannot be had; the message says why.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. "
            "Another server may have it: stop that, or choose another with --port."
        ) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the URL a bound socket is reached at from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Give an event that is set by the first SIGTERM or SIGINT; a second SIGINT is one of Python's.

    Has to be entered within the event loop.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(number: signal.Signals) -> None:
        told.set()
        if number is signal.SIGINT:
            loop.remove_signal_handler(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        yield told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class _Threads(ThreadPoolExecutor):
    """Runs plain tools; nobody waits at the end for those that do not come back."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more."""
        super().shutdown(wait=False, cancel_futures=True)


async def _with_threads(work: Coroutine[Any, Any, None]) -> None:
    asyncio.get_running_loop().set_default_executor(_Threads(thread_name_prefix="perdure-tool"))
    await work


def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine of this module to its end; a second Ctrl-C cuts it short.

    The process ends a moment later, also if a plain tool hangs in its thread.
    """
    code = 1
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_with_threads(work))
        code = 0
    finally:
        end_within(_THREADS_SECONDS, code)

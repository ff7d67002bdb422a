"""A Postgres of one's own, with nothing to set up: the programs come as a Python package.

    async with embedded.running() as server:
        pool = await open_pool(server.url)

The server listens on the loopback interface with a password, keeps its data in a directory of mode
0700, and is shared: every process that runs or holds it for the same directory has the same
server. It is started for the first, started again if it dies, and stopped after the last, also
when that was killed. Root runs it as ``nobody``.

``watcher`` is the process that owns the server (``server``), ``reference`` the share a user holds,
``found`` a look at a server others run, ``shared`` what they have in common, ``programs`` what to
run and as whom. It needs ``flock``: Linux and macOS.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from perdure.config import Settings
from perdure.embedded.found import found, has_data
from perdure.embedded.reference import Embedded, Reference

__all__ = ["Embedded", "found", "has_data", "hold", "running"]

_held: dict[Path, Reference] = {}


@asynccontextmanager
async def running(
    data_dir: str | os.PathLike[str] | None = None, *, durable: bool = True
) -> AsyncIterator[Embedded]:
    """Hold a share in the server of ``data_dir`` (``PERDURE_HOME`` by default) inside the block.

    The directory is made if need be. ``durable=False`` trades safety from a crash of the machine
    for speed, for tests; it has a say only when it starts the server.

    Raises:
        ConfigurationError: the directory or the programs cannot be used.
        UnavailableError: the server did not start; the message says why.
    """
    home = _home(data_dir)
    taking = asyncio.ensure_future(asyncio.to_thread(Reference, home, durable=durable))
    try:
        reference = await asyncio.shield(taking)
    except asyncio.CancelledError:
        # The thread cannot be stopped; what it brings is given back.
        taking.add_done_callback(_give_back)
        raise
    try:
        yield reference.server
    finally:
        reference.release()


def hold(data_dir: str | os.PathLike[str] | None = None, *, durable: bool = True) -> Embedded:
    """Hold a share in the server of ``data_dir`` until this process ends; blocks until it runs.

    Further calls for the same directory return the same server. Raises like ``running``.
    """
    home = _home(data_dir)
    if home not in _held:
        _held[home] = Reference(home, durable=durable)
    return _held[home].server


def _home(data_dir: str | os.PathLike[str] | None) -> Path:
    if data_dir is None:
        return Settings.from_env().home
    return Path(data_dir).expanduser().resolve()


def _give_back(taking: asyncio.Future[Reference]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        taking.result().release()

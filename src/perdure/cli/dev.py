"""``perdure dev``: everything in one place on this machine, and again after each edit."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.help import examples
from perdure.cli.log_format import LogFormatOption
from perdure.cli.shipped import shipped_example
from perdure.cli.target import parse_target
from perdure.config import Settings
from perdure.errors import ConfigurationError

if TYPE_CHECKING:
    import socket

_HOST = "127.0.0.1"
_BIND_SECONDS = 3.0
_BIND_AGAIN_SECONDS = 0.1
_THIS_MACHINE = "localhost,127.0.0.0/8,::1"


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        epilog=examples(
            "perdure dev                       the refund example",
            "perdure dev refunds.py",
            "perdure dev shop.agents:engine --port 9000 --data-dir ./data",
        ),
    )(dev)


def dev(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="The engine: path/file.py, path/file.py:engine or package.module:engine; "
            "by default the refund example.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="By default PERDURE_PORT, or 8484; 0: any."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the embedded Postgres lives; by default PERDURE_HOME."
        ),
    ] = None,
    log_format: LogFormatOption = None,
) -> None:
    """Serve TARGET on this machine, without keys.

    One command has all it needs: database, migrations, worker and API. The database is that of
    DATABASE_URL, else an embedded Postgres. Only this machine is answered. When the file or a
    module of its folder changes, it is loaded again; runs go on.
    """
    from perdure.cli.supervisor import Greeting, Supervisor

    settings = Settings.from_env()
    home = (data_dir or settings.home).expanduser().resolve()
    environment = dict(os.environ)
    if log_format is not None:
        environment["PERDURE_LOG_FORMAT"] = log_format
    # What is tried out here listens here.
    allowed = filter(None, (environment.get("PERDURE_WEBHOOK_ALLOW"), _THIS_MACHINE))
    environment["PERDURE_WEBHOOK_ALLOW"] = ",".join(allowed)
    if target is None:
        target = str(shipped_example("refunds"))
        refunds = environment.setdefault("REFUNDS_DB", str(_in_home(home, "refunds.sqlite")))
        greeting = Greeting("Order 1042 arrived broken, please refund it.", {"refunds": refunds})
    else:
        greeting = Greeting("Hello")
    parsed = parse_target(target)
    with _bind(settings.port if port is None else port) as listening:
        supervisor = Supervisor(
            parsed,
            listening,
            environment=environment,
            home=None if settings.database_url is not None else home,
            greeting=greeting,
        )
        raise typer.Exit(asyncio.run(supervisor.run()))


def _in_home(home: Path, name: str) -> Path:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The refund example cannot write to {home}: {error.strerror}. Set PERDURE_HOME or "
            "give --data-dir."
        ) from error
    return home / name


def _bind(port: int) -> socket.socket:
    """Bind, waiting a moment for a predecessor that was killed to let go of the port."""
    from perdure.cli import serving

    deadline = time.monotonic() + _BIND_SECONDS
    while True:
        try:
            return serving.bind(_HOST, port)
        except ConfigurationError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_BIND_AGAIN_SECONDS)

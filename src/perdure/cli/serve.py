"""``perdure serve`` and ``perdure worker``: for a database of one's own, by keys."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure.cli.help import examples
from perdure.cli.log_format import LogFormatOption
from perdure.cli.output import print_note
from perdure.cli.target import load_engine
from perdure.config import Settings

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="The engine: path/file.py, path/file.py:engine or package.module:engine.",
    ),
]

StopSeconds = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="How long tools and answers under way may take when it stops."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    app.command(
        epilog=examples(
            "perdure serve refunds.py --worker",
            "perdure serve shop.agents:engine --host 0.0.0.0 --port 8000",
        ),
    )(serve)
    app.command(
        epilog=examples(
            "perdure worker refunds.py",
            "perdure worker refunds.py --concurrency 16 --stop-seconds 30",
        ),
    )(worker)


def serve(
    target: Target,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="By default PERDURE_PORT, or 8484; 0: any."
        ),
    ] = None,
    with_worker: Annotated[
        bool, typer.Option("--worker", help="Run a worker in this process too.")
    ] = False,
    stop_seconds: StopSeconds = 5,
    log_format: LogFormatOption = None,
) -> None:
    """Serve the API to who has a key (`perdure keys create`).

    The database is that of DATABASE_URL and has to be migrated: `perdure migrate`.
    """
    engine = load_engine(target)
    from perdure.cli import serving
    from perdure.cli.logs import log_to_stderr, trace_from_environment

    serving.require_database(engine)
    chosen = Settings.from_env().port if port is None else port
    log_to_stderr(log_format=log_format)
    trace_from_environment()
    listening = serving.bind(host, chosen)
    # Beyond a firewall or a container the address may be another; this is this machine's.
    said = f"Serving {', '.join(engine.registry.agents)} on {serving.address_of(listening)}"
    how = "with a worker" if with_worker else "without a worker: run `perdure worker` beside it"
    with listening:
        serving.run_until_stopped(
            serving.serve(
                engine,
                listening,
                worker=with_worker,
                stop_seconds=stop_seconds,
                on_ready=lambda: print_note(f"{said}, {how}."),
            )
        )


def worker(
    target: Target,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="So many runs at once; by default 64.")
    ] = None,
    stop_seconds: StopSeconds = 5,
    log_format: LogFormatOption = None,
) -> None:
    """Run the agents of TARGET. Any number of workers may share a database.

    Stops on SIGTERM or Ctrl-C: tools under way finish, and the runs go on in other workers.
    """
    engine = load_engine(target)
    from perdure.cli import serving
    from perdure.cli.logs import log_to_stderr, trace_from_environment

    serving.require_database(engine)
    log_to_stderr(log_format=log_format)
    trace_from_environment()
    said = f"Working for {', '.join(engine.registry.agents)}."
    serving.run_until_stopped(
        serving.work(
            engine,
            on_ready=lambda: print_note(said),
            concurrency=concurrency,
            stop_seconds=stop_seconds,
        )
    )

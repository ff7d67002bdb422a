"""``perdure partition``: a large table put into partitions by month."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import psycopg
import typer

from perdure.cli.help import examples
from perdure.cli.output import print_fields, print_json, print_note, print_table, print_text
from perdure.cli.pages import Json
from perdure.config import Settings
from perdure.db import connect, unreachable
from perdure.errors import ConfigurationError
from perdure.migrate import read_status
from perdure.roles import grant, other_role


def register(parent: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    parent.command(
        "partition",
        epilog=examples(
            "perdure partition                       which tables are in partitions",
            "perdure partition run_items --dry-run   the SQL, and nothing is changed",
            "perdure partition run_items",
        ),
    )(run)


def run(
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE",
            help="run_items, model_responses, tool_calls, request_usage_entries, run_states, …; "
            "without it, list those that are in partitions.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and change nothing.")
    ] = False,
    lock_timeout: Annotated[
        float,
        typer.Option(
            "--lock-timeout", metavar="SECONDS", min=0.1, help="How long to wait for the tables."
        ),
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Put a table with rows of runs into partitions by month, while everything runs.

    Connects to PERDURE_MIGRATE_URL, or DATABASE_URL. No row is copied: the table becomes the first
    partition. Whoever writes waits for a moment. Events are in partitions from the start; workers
    make those of the coming months.
    """
    settings = Settings.from_env()
    if settings.migrate_url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set: it says which database it is about "
            "(postgresql://user:password@host:5432/name)."
        )
    done = asyncio.run(
        _work(
            settings.migrate_url,
            other_role(settings.database_url, settings.migrate_url),
            table,
            dry_run,
            lock_timeout,
        )
    )
    if as_json:
        print_json({"object": "partitioning", **done})
    elif table is None:
        print_table(["table", "partitions"], [[name, str(n)] for name, n in done["tables"].items()])
    elif dry_run:
        print_text(";\n".join([*done["before"], "BEGIN", *done["swap"], "COMMIT"]) + ";")
    else:
        print_fields({"table": table, "partitions": str(done["tables"][table])})
        print_note("Run ANALYZE on it when there is time.")


async def _work(
    url: str, role: str | None, table: str | None, dry_run: bool, lock_seconds: float
) -> dict[str, Any]:
    from perdure.runs.keeping.partitioning import parted, partition, plan_partitions

    try:
        conn = await connect(url, application_name="perdure partition")
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    async with conn:
        (await read_status(conn)).require_current()
        if table is not None and dry_run:
            planned = await plan_partitions(conn, table)
            return {"dry_run": True, "before": planned.before, "swap": planned.swap}
        if table is not None:
            await partition(conn, table, lock_seconds=lock_seconds)
            if role is not None:
                await grant(conn, role)
        return {"dry_run": False, "tables": await parted(conn)}

"""``perdure migrate``: the database of ``DATABASE_URL`` brought up to date."""

from __future__ import annotations

import asyncio
from typing import Annotated

import psycopg
import typer

from perdure.cli.help import examples
from perdure.cli.output import print_json, print_note, print_text
from perdure.config import Settings
from perdure.db import connect, unreachable
from perdure.errors import ConfigurationError, MigrationError
from perdure.migrate import Migration, load_migrations, migrate, pending_sql, read_status
from perdure.roles import grants_sql, other_role, powers_over_audit


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure``."""
    app.command(
        "migrate",
        epilog=examples(
            "perdure migrate",
            "PERDURE_MIGRATE_URL=postgresql://owner@db/app perdure migrate --json",
            "perdure migrate --sql | psql -v ON_ERROR_STOP=1 postgresql://owner@db/app",
        ),
    )(run)


def run(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print what would be run, for psql, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Bring the database up to date.

    It has DBOS's tables (schema dbos) and ours (schema perdure). Connects to PERDURE_MIGRATE_URL,
    or DATABASE_URL where that is not set. Any number may run at once; each migration is applied
    once. Where the two name different roles, that of DATABASE_URL is granted what serving takes: to
    the audit it can only add. Without either variable --sql prints all there is.
    """
    if sql and as_json:
        raise typer.BadParameter("--sql prints SQL; leave out --json.")
    settings = Settings.from_env()
    url = settings.migrate_url
    role = other_role(settings.database_url, url)
    if sql:
        print_text(asyncio.run(_missing(url, role)))
        return
    if url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set: it says which database to migrate "
            "(postgresql://user:password@host:5432/name). `perdure migrate --sql` needs none."
        )
    applied = asyncio.run(_migrate(url, role))
    if as_json:
        granted = {} if role is None else {"granted_to": role}
        print_json({"object": "migration", "applied": [str(one) for one in applied], **granted})
    elif applied:
        for migration in applied:
            print_text(f"Applied {migration}")
    else:
        print_text("The database is up to date.")


async def _migrate(url: str, role: str | None) -> list[Migration]:
    # DBOS is slow to import; nothing but this command and the workers need it.
    from perdure.runs.dbos_schema import migrate_dbos

    applied = await migrate(url, system=migrate_dbos, serving_role=role)
    if role is not None:
        async with await connect(url, application_name="perdure migrate") as conn:
            powers = await powers_over_audit(conn, role)
        if powers is None:
            print_note(
                f"Warning: the role {role} of DATABASE_URL does not exist. Make it (CREATE ROLE … "
                "LOGIN PASSWORD …) and migrate again: it is granted what it needs."
            )
        elif powers != "adds":
            print_note(
                f"Warning: the role {role} of DATABASE_URL can still change the audit: it is a "
                "superuser, a member of the role that owns the tables, or was granted more."
            )
    return applied


async def _missing(url: str | None, role: str | None) -> str:
    """Return the SQL a database lacks; all there is where none is named."""
    from perdure.runs.dbos_schema import dbos_sql, dbos_version

    if url is None:
        return f"{dbos_sql()}\n{pending_sql(load_migrations())}"
    try:
        conn = await connect(url, application_name="perdure migrate")
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    async with conn:
        status = await read_status(conn)
        if status.problem:
            raise MigrationError(status.problem)
        parts = [dbos_sql(after=await dbos_version(conn)), pending_sql(status.pending)]
    if role is not None:
        parts.append(f"-- What the role that serves needs\nBEGIN;\n{grants_sql(role)}\nCOMMIT;\n")
    return "\n".join(filter(None, parts)) or "-- The database is up to date."

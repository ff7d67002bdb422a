"""DBOS's own tables, in the schema ``dbos`` of the same database."""

from __future__ import annotations

import contextlib
import io
import logging

import psycopg
from dbos import DBOS
from dbos._migration import get_dbos_migrations
from dbos.cli.migration import print_dbos_migrations
from sqlalchemy.exc import SQLAlchemyError

from perdure.db import Connection, load_sql
from perdure.errors import MigrationError

__all__ = ["dbos_sql", "dbos_version", "migrate_dbos", "newest_dbos_version"]

_VERSION = load_sql("perdure.runs", "dbos_schema.sql")["version"]


def migrate_dbos(url: str) -> None:
    """Bring DBOS's tables in the database of ``url`` up to date; blocks.

    A database that a newer DBOS has migrated is left as it is.

    Raises:
        MigrationError: DBOS could not do it; its tables may be half-way, and a second try goes on
            from there.
    """
    # DBOS announces each of its hundred steps.
    logger = logging.getLogger("dbos")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        DBOS.migrate(url)
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise MigrationError(
            f"DBOS's tables could not be brought up to date: {reason}. "
            "Check that the role of the URL may create schemas, then migrate again."
        ) from error
    finally:
        logger.setLevel(level)


def dbos_sql(*, after: int = 0) -> str:
    """Return the SQL that brings DBOS's tables from migration ``after`` (0: none yet) up to date.

    Empty where there is nothing to do. It builds indexes concurrently, so it cannot run inside a
    transaction.
    """
    if after >= newest_dbos_version():
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_dbos_migrations(None, migration=str(after + 1) if after else "all")
    return printed.getvalue()


def newest_dbos_version() -> int:
    """Return the number of the last migration of the DBOS that is installed."""
    return len(get_dbos_migrations("dbos", use_listen_notify=True))


async def dbos_version(conn: Connection) -> int:
    """Return the number of the last DBOS migration a database has, 0 where it has none."""
    try:
        row = await (await conn.execute(_VERSION)).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return int(row["version"]) if row is not None else 0

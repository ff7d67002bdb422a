"""A database as weeks of work leave it: so many runs, and all that belongs to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from perdure.db import Connection, load_sql

_SQL = load_sql("benchmarks", "filling.sql")
_INDEXES = _SQL["indexes"]
_TABLES = _SQL["tables"]
_ROWS = [text for name, text in _SQL.items() if name not in ("indexes", "tables")]


async def fill(conn: Connection, runs: int, *, whole: int = 1) -> None:
    """Put ``runs`` runs into an empty, migrated database, one in ``whole`` with all its rows.

    Where the role may, without the checks and triggers of the tables: twice as fast.
    """
    async with conn.transaction():
        try:
            async with conn.transaction():
                await conn.execute("SET LOCAL session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege:
            pass
        async with _without_indexes(conn):
            for rows in _ROWS:
                await conn.execute(rows, {"runs": runs, "whole": whole}, prepare=False)
            await conn.execute("DROP TABLE made")


@asynccontextmanager
async def _without_indexes(conn: Connection) -> AsyncIterator[None]:
    """Make the indexes behind the rows, each in one go."""
    indexes = await (await conn.execute(_INDEXES)).fetchall()
    for index in indexes:
        await conn.execute(f"DROP INDEX {index['name']}")
    yield
    await conn.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for index in indexes:
        await conn.execute(index["definition"])


async def settle(conn: Connection) -> None:
    """Do at once what autovacuum does in time: statistics, and what lets indexes answer alone."""
    for table in await (await conn.execute(_TABLES)).fetchall():
        await conn.execute(f"VACUUM ANALYZE {table['name']}")

"""A database as weeks of work leave it: so many runs, and all that belongs to them."""

from __future__ import annotations

import psycopg

from perdure.db import Connection, load_sql

_SQL = load_sql("benchmarks", "filling.sql")
_TABLES = _SQL["tables"]


async def fill(conn: Connection, runs: int, *, whole: int = 1) -> None:
    """Put ``runs`` runs into an empty, migrated database, one in ``whole`` with all its rows.

    Where the role may, without the checks and triggers of the tables: twice as fast.
    """
    sizes = {"runs": runs, "whole": whole}
    async with conn.transaction():
        try:
            async with conn.transaction():
                await conn.execute("SET LOCAL session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege:
            pass
        for name, statement in _SQL.items():
            if name != "tables":
                await conn.execute(statement, sizes, prepare=False)
        await conn.execute("DROP TABLE made")


async def settle(conn: Connection) -> None:
    """Do at once what autovacuum does in time: statistics, and what lets indexes answer alone."""
    for table in await (await conn.execute(_TABLES)).fetchall():
        await conn.execute(f"VACUUM ANALYZE {table['name']}")

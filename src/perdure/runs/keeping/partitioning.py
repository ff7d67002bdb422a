"""A table with rows of runs put into partitions by month, while the program runs.

Nothing is copied: the table becomes the first partition, with all it has, up to the end of this
month. First, while everybody goes on, it is looked through once for rows beyond that. Then, in one
transaction, the names are exchanged: it waits at most ``lock_seconds`` for the tables, and whoever
writes waits for it; that takes a moment, and where other tables refer to this one as long as it
takes to look their keys up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from perdure.db import Connection, load_sql
from perdure.errors import ConflictError, InvalidRequestError, MigrationError, UnavailableError

__all__ = ["LARGE", "Partitioning", "parted", "partition", "plan_partitions"]

_SQL = load_sql("perdure.runs.keeping", "partitioning.sql")
_LOOK = _SQL["look"]
_BOUND = _SQL["bound"]
_BEFORE = _SQL["preparations"]
_SWAP = (
    _SQL["locks"],
    _SQL["keys_to_drop"],
    _SQL["renamings"],
    _SQL["table_statements"],
    _SQL["constraints"],
    _SQL["indexes"],
    _SQL["attachments"],
    _SQL["keys_to_add"],
    _SQL["functions"],
    _SQL["views"],
    _SQL["old_functions"],
    _SQL["grants"],
)
_PARTED = _SQL["parted_by_month"]
_HELPER = "before_partitions"

LARGE = (
    "run_items",
    "model_responses",
    "tool_calls",
    "request_usage_entries",
    "run_states",
    "segments",
)
"""The tables that grow most; others that have a ``run_id`` in each key can be taken too."""


@dataclass(frozen=True, slots=True)
class Partitioning:
    """What is done to a table: first while everybody goes on, then in one transaction."""

    table: str
    bytes: int
    before: list[str]
    swap: list[str]


async def plan_partitions(conn: Connection, table: str) -> Partitioning:
    """Return what ``partition`` would do; changes nothing.

    Raises:
        ConflictError: the table is in partitions already.
        InvalidRequestError: there is no such table, or it cannot be; the message says why.
    """
    found = await (await conn.execute(_LOOK, {"table": table})).fetchone()
    if found is None:
        raise InvalidRequestError(
            f"There is no table {table!r} in the schema perdure. Large ones are {', '.join(LARGE)}."
        )
    if found["parted"]:
        raise ConflictError(f"{table} is in partitions already.")
    if found["why_not"] is not None:
        raise InvalidRequestError(f"{table} cannot be put into partitions: {found['why_not']}.")
    bound = sql.SQL(_BOUND).format(table=sql.Identifier(table))
    [row] = await (await conn.execute(bound)).fetchall()
    params = {"table": table, "helper": _HELPER, "bound": row["bound"]}
    before = await _statements(conn, _BEFORE, params)
    swap = [one for query in _SWAP for one in await _statements(conn, query, params)]
    return Partitioning(table, found["bytes"], before, swap)


async def _statements(conn: Connection, query: str, params: Mapping[str, Any]) -> list[str]:
    rows = await (await conn.execute(query, params)).fetchall()
    return [row["statement"] for row in rows if row["statement"] is not None]


async def partition(conn: Connection, table: str, *, lock_seconds: float = 10.0) -> Partitioning:
    """Put a table into partitions by month, on a connection of its owner; what was done.

    Raises: as ``plan_partitions``, and
        MigrationError: the role of ``conn`` does not own the tables.
        UnavailableError: the tables were in use for longer than ``lock_seconds``. Nothing changed.
    """
    planned = await plan_partitions(conn, table)
    try:
        await conn.execute(f"SET lock_timeout = {int(lock_seconds * 1000)}".encode())
        for statement in planned.before:
            await conn.execute(statement.encode())
        async with conn.transaction():
            # With the helper it has now; nobody else changes tables meanwhile, or this fails.
            for statement in planned.swap:
                await conn.execute(statement.encode())
    except psycopg.errors.LockNotAvailable as error:
        raise UnavailableError(
            f"{table} was in use for longer than {lock_seconds:g} s. Nothing was changed; try "
            "again when less is going on, or with a longer --lock-timeout."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"{error.diag.message_primary}. Give the role that owns the tables in "
            "PERDURE_MIGRATE_URL."
        ) from error
    return planned


async def parted(conn: Connection) -> dict[str, int]:
    """Return the tables in partitions, with how many they have beside the default one."""
    rows = await (await conn.execute(_PARTED)).fetchall()
    return {row["name"]: row["partitions"] for row in rows}

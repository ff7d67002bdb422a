"""The rows that belong to a run, in whatever tables: read from the foreign keys.

So a table that is added later is counted, archived and deleted with its runs without being named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from perdure.db import Connection, load_sql

__all__ = ["Kin", "Left", "read_kin"]

_SQL = load_sql("perdure.runs.keeping", "kin.sql")
_COUNT = _SQL["count"]
_LINES = _SQL["lines"]
_NEEDED = _SQL["needed_by_runs"]
_ROW = _SQL["row"]
_WHOLE = {"run_states": _SQL["whole_state"], "run_items": _SQL["whole_item"]}
_AUDIT = ("audit_log", "audit_payloads")
_PAGE = 200


@dataclass(slots=True)
class Left:
    """What runs left: rows by table, and their bytes as stored, without indexes."""

    rows: Counter[str]
    bytes: int = 0

    @classmethod
    def nothing(cls) -> Left:
        """Return what is added to."""
        return cls(Counter())

    def add(self, other: Left) -> None:
        """Add what others left."""
        self.rows.update(other.rows)
        self.bytes += other.bytes


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    rows: sql.Composable
    keys: Sequence[str]


class Kin:
    """The tables with rows of runs, as the database is now; ``runs`` is the first."""

    def __init__(self, found: Sequence[Mapping[str, Any]], references: Sequence[str]) -> None:
        """Take the rows of ``kin`` and ``references``."""
        self._found = {row["name"]: row for row in found}
        self._tables = [
            _Table(row["name"], self._rows_of(row["name"], "t"), row["keys"]) for row in found
        ]
        self._references = references

    @property
    def names(self) -> list[str]:
        """The names of the tables."""
        return [table.name for table in self._tables]

    def _rows_of(self, name: str, alias: str) -> sql.Composable:
        at = sql.Identifier(alias)
        if name == "runs" or self._found[name]["of_runs"]:
            column = sql.Identifier("id" if name == "runs" else "run_id")
            return sql.SQL("{}.{} = ANY (%(runs)s)").format(at, column)
        beneath = f"{alias}_"
        ways = [
            sql.SQL("({}) IN (SELECT {} FROM perdure.{} {} WHERE {})").format(
                sql.SQL(", ").join(sql.Identifier(alias, one) for one in link["columns"]),
                sql.SQL(", ").join(sql.Identifier(beneath, one) for one in link["keys"]),
                sql.Identifier(link["parent"]),
                sql.Identifier(beneath),
                self._rows_of(link["parent"], beneath),
            )
            for link in self._found[name]["links"]
        ]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(ways))

    async def count(self, conn: Connection, run_ids: Sequence[UUID]) -> Left:
        """Count what these runs left."""
        left = Left.nothing()
        for table in self._tables:
            statement = sql.SQL(_COUNT).format(table=sql.Identifier(table.name), rows=table.rows)
            [row] = await (await conn.execute(statement, {"runs": list(run_ids)})).fetchall()
            if row["rows"]:
                left.rows[table.name] = row["rows"]
                left.bytes += row["bytes"]
        return left

    async def lines(self, conn: Connection, run_id: UUID) -> AsyncIterator[tuple[str, str]]:
        """Yield each row of a run as its table and one line of JSON, always in the same order.

        States and items are whole, other rows as they are. With them goes the audit of the run,
        which stays where it is but for its payloads. Inside a transaction, of which the caller
        says what it sees.
        """
        audit = [
            _Table(name, sql.SQL("t.run_id = ANY (%(runs)s)"), keys)
            for name, keys in zip(_AUDIT, (("id",), ("id", "part")), strict=True)
        ]
        for table in (*self._tables, *audit):
            statement = sql.SQL(_LINES).format(
                row=sql.SQL(_WHOLE.get(table.name, _ROW)),
                table=sql.Identifier(table.name),
                rows=table.rows,
                keys=sql.SQL(", ").join(sql.Identifier("t", key) for key in table.keys),
            )
            async with conn.cursor(name="perdure_lines") as cursor:
                cursor.itersize = _PAGE
                await cursor.execute(statement, {"runs": [run_id]})
                async for row in cursor:
                    yield table.name, row["row"]

    async def needed(self, conn: Connection, run_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of the runs that another one came from which is not over."""
        found: set[UUID] = set()
        for column in self._references:
            statement = sql.SQL(_NEEDED).format(column=sql.Identifier(column))
            cursor = await conn.execute(statement, {"runs": list(run_ids)})
            found.update(row["id"] for row in await cursor.fetchall())
        return found


async def read_kin(conn: Connection) -> Kin:
    """Look which tables have rows of runs."""
    found = await (await conn.execute(_SQL["kin"])).fetchall()
    references = await (await conn.execute(_SQL["references"])).fetchall()
    return Kin(found, [row["name"] for row in references])

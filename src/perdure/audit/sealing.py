"""Rows are sealed afterwards, many at once, so that no decision waits for another.

A row can be sealed once every transaction that began to write before its own has ended: from then
on no row can come before it. What a pass seals is therefore whole, and a row that turns up among
sealed ones later was put there.

A pass is one transaction: read what can be sealed, make a seal for each tenant among it, insert
them. A process that dies before the commit has sealed nothing. An advisory lock lets one pass go on
at a time, and the key of a seal (tenant, number) lets one of two win where it did not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from perdure.audit.chain import FIRST, Row, Seal, make_seal
from perdure.config import NamedKey
from perdure.db import Connection, load_sql

_SQL = load_sql("perdure.audit", "sealing.sql")
_TAKE = _SQL["take"]
_HORIZONS = _SQL["horizons"]
_ROWS_DUE = _SQL["rows_due"]
_HEADS = _SQL["heads"]
_UNSIGNED_HEADS = _SQL["unsigned_heads"]
_INSERT_SEAL = _SQL["insert_seal"]
_WAITING = _SQL["waiting"]

# "pdraudit" in ASCII.
_LOCK_KEY = 0x7064726175646974
MOST_ROWS = 2000
"""How many rows a pass takes, and those of the last of their transactions."""
COUNTED = 100_000
"""How far ``waiting`` counts."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What came of looking: seals made, rows in them, and whether more could be sealed at once."""

    seals: Sequence[Seal] = ()
    more: bool = False

    @property
    def rows(self) -> int:
        """How many rows were sealed."""
        return sum(len(seal.rows) for seal in self.seals)


async def seal_due(
    conn: Connection, keys: Sequence[NamedKey], *, most: int = MOST_ROWS, sign_heads: bool = False
) -> Pass:
    """Seal the oldest rows that can be, of all tenants; nothing while somebody else is at it.

    The first of ``keys`` signs; without any the chain has hashes alone. With ``sign_heads`` a chain
    that ends unsigned gets a seal without rows, so that its end is signed from now on.

    Raises:
        psycopg.errors.UniqueViolation: somebody else has sealed meanwhile; nothing was.
    """
    key = keys[0] if keys else None
    async with conn.transaction():
        taken = await (await conn.execute(_TAKE, {"key": _LOCK_KEY})).fetchone()
        if taken is None or not taken["mine"]:
            return Pass()
        seals: list[Seal] = []
        more = False
        for horizon in await (await conn.execute(_HORIZONS)).fetchall():
            found = await _rows_due(conn, horizon, most)
            more = more or bool(found and found[0]["more"])
            seals += await _seal(conn, horizon, found, key)
        if key is not None and sign_heads:
            seals += await _sign_heads(conn, key)
        return Pass(seals, more)


async def waiting(conn: Connection) -> tuple[int, float | None]:
    """Return how many rows no seal has (counted to ``COUNTED``) and how many seconds old they are.

    The age is that of the oldest one, None where there is none.
    """
    row = await (await conn.execute(_WAITING, {"most": COUNTED})).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives a row
    return row["rows"], row["oldest_seconds"]


async def _rows_due(conn: Connection, horizon: dict[str, Any], most: int) -> list[dict[str, Any]]:
    params = {name: horizon[name] for name in ("cluster", "reached", "ended")}
    cursor = await conn.execute(_ROWS_DUE, {**params, "most": most - 1})
    return await cursor.fetchall()


async def _seal(
    conn: Connection, horizon: dict[str, Any], found: list[dict[str, Any]], key: NamedKey | None
) -> list[Seal]:
    if not found:
        return []
    rows = [Row.of(row) for row in found]
    # Where there is more, or all of a cluster has come, a seal ends behind its last transaction.
    whole = found[0]["more"] or horizon["ended"] is None
    to_tx = rows[-1].tx + 1 if whole else int(horizon["ended"])
    cursor = await conn.execute(
        _HEADS,
        {"tenants": list({row.tenant_id for row in rows}), "cluster": horizon["cluster"]},
    )
    heads = await cursor.fetchall()
    # Hashing thousands of rows takes a while: not on the loop that runs the agents.
    seals = await asyncio.to_thread(_make, rows, heads, to_tx, horizon["now"], key)
    await _insert(conn, seals)
    return seals


def _make(
    rows: Sequence[Row],
    heads: Iterable[dict[str, Any]],
    to_tx: int,
    now: datetime,
    key: NamedKey | None,
) -> list[Seal]:
    head_of = {head["tenant_id"]: head for head in heads}
    # Stable: within a tenant they stay in the order of transaction and id.
    by_tenant = groupby(sorted(rows, key=lambda row: row.tenant_id), lambda row: row.tenant_id)
    return [
        make_seal(
            tenant_id=tenant_id,
            seq=head_of[tenant_id]["seq"] + 1,
            cluster=rows[0].cluster,
            from_tx=int(head_of[tenant_id]["sealed_to"]),
            to_tx=to_tx,
            rows=own,
            previous=head_of[tenant_id]["hash"] or FIRST,
            sealed_at=now,
            key=key,
        )
        for tenant_id, own in by_tenant
    ]


async def _sign_heads(conn: Connection, key: NamedKey) -> list[Seal]:
    heads = await (await conn.execute(_UNSIGNED_HEADS)).fetchall()
    seals = [
        make_seal(
            tenant_id=head["tenant_id"],
            seq=head["seq"] + 1,
            cluster=head["cluster"],
            from_tx=int(head["sealed_to"]),
            to_tx=int(head["sealed_to"]),
            rows=(),
            previous=head["hash"],
            sealed_at=head["now"],
            key=key,
        )
        for head in heads
    ]
    await _insert(conn, seals)
    return seals


async def _insert(conn: Connection, seals: Iterable[Seal]) -> None:
    rows = [
        {
            "tenant_id": seal.tenant_id,
            "seq": seal.seq,
            "cluster": seal.cluster,
            "from_tx": str(seal.from_tx),
            "to_tx": str(seal.to_tx),
            "ids": [row.id for row in seal.rows],
            "kinds": [row.kind for row in seal.rows],
            "ats": [row.at for row in seal.rows],
            "hashes": [row.hash for row in seal.rows],
            "previous": seal.previous,
            "hash": seal.hash,
            "key_id": seal.key_id,
            "mac": seal.mac,
            "sealed_at": seal.sealed_at,
        }
        for seal in seals
    ]
    if rows:
        async with conn.cursor() as cursor:
            await cursor.executemany(_INSERT_SEAL, rows)

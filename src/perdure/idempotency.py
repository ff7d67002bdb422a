"""Requests that may come twice and count once.

The key is claimed in the transaction that does the work and its answer is recorded in it too, so
key, work and answer are there together or not at all. Keys are kept for 24 hours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from perdure.db import load_sql
from perdure.errors import FieldError, IdempotencyConflictError, InvalidRequestError

_SQL = load_sql("perdure", "idempotency.sql")
_CLAIM = _SQL["claim"]
_FIND = _SQL["find"]
_RECORD = _SQL["record"]
_PURGE = _SQL["purge"]

MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key for one route of a tenant, and the hash of the request it came with."""

    tenant_id: UUID
    route: str
    key: str
    request_hash: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.key) <= MAX_KEY:
            detail = f"has to have 1 to {MAX_KEY} characters."
        elif not self.key.isprintable():
            detail = "must hold printable characters only."
        else:
            return
        raise InvalidRequestError(
            f"The idempotency key {detail}", [FieldError("/headers/Idempotency-Key", detail)]
        )


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What was answered the first time: an HTTP status, headers that matter, the body's bytes."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


def hash_request(body: Any, query: str = "") -> bytes:
    """Return what tells two requests apart: 32 bytes over JSON ``body`` and the query string.

    Neither the order of an object's members nor white space matters.
    """
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{query}\n{canonical}".encode()).digest()


async def claim(conn: AsyncConnection[Any], key: IdempotencyKey) -> RecordedAnswer | None:
    """Take ``key`` for the work about to be done in this transaction, or return its answer.

    None: it is taken, do the work and ``record`` what you answer before you commit. While another
    transaction holds the key this waits for its end.

    Raises:
        IdempotencyConflictError: the key came with another request before.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        params = {
            "tenant_id": key.tenant_id,
            "route": key.route,
            "key": key.key,
            "request_hash": key.request_hash,
        }
        await cursor.execute(_CLAIM, params)
        if await cursor.fetchone() is not None:
            return None
        await cursor.execute(_FIND, params)
        row = await cursor.fetchone()
    if row is None or row["request_hash"] != key.request_hash or row["status_code"] is None:
        raise IdempotencyConflictError(key.key)
    return RecordedAnswer(row["status_code"], json.loads(row["headers"]), row["body"])


async def record(conn: AsyncConnection[Any], key: IdempotencyKey, answer: RecordedAnswer) -> None:
    """Keep ``answer`` for whoever comes with ``key`` again."""
    await conn.execute(
        _RECORD,
        {
            "tenant_id": key.tenant_id,
            "route": key.route,
            "key": key.key,
            "status_code": answer.status_code,
            "headers": json.dumps(dict(answer.headers)),
            "body": answer.body,
        },
    )


async def purge_expired(conn: AsyncConnection[Any]) -> int:
    """Delete the keys whose 24 hours are over; return how many there were."""
    return (await conn.execute(_PURGE)).rowcount

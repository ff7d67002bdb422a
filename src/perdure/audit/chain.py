"""What a row's hash is, and what a seal's. Pure.

A row's hash is the SHA-256 of the RFC 8785 form of an object with its columns, all of them text
or null, and ``"version": 1``. A seal lists id, kind, time and hash of its rows; its own hash is
that of the RFC 8785 form of its columns, among them the hash of the seal before. Its MAC is
HMAC-SHA256, by one of the secret keys, over a fixed line, the key's id and that hash. So whoever
has one hash, or trusts one MAC, has all rows and seals before it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import rfc8785

from perdure.config import NamedKey
from perdure.times import rfc3339

FIRST = bytes(32)
"""What stands for the seal before the first."""
_MAC_OF = b"perdure.audit.seal.v1\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ``audit_log``: every column of it, ``at`` aware."""

    id: UUID
    tenant_id: UUID
    kind: str
    subject_type: str
    subject_id: str
    run_id: UUID | None
    actor_type: str
    actor: str | None
    concerns: str | None
    way: str | None
    at: datetime
    shown_digest: str | None
    executed_digest: str | None
    who_digest: str | None
    details_digest: str
    cluster: int
    tx: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Take the columns out of what a statement gave; ``tx`` as text or a number."""
        values = {field.name: row[field.name] for field in fields(cls)}
        return cls(**{**values, "tx": int(row["tx"])})


def row_hash(row: Row) -> bytes:
    """Return the 32 bytes a seal holds of a row."""
    columns: dict[str, Any] = {"version": 1}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, datetime):
            value = rfc3339(value)
        columns[field.name] = None if value is None else str(value)
    return hashlib.sha256(rfc8785.dumps(columns)).digest()


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a seal says of one row; kind and time name it should it be gone."""

    id: UUID
    kind: str
    at: datetime
    hash: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """A row of ``audit_seals``; ``rows`` in the order of transaction and id, moments aware."""

    tenant_id: UUID
    seq: int
    cluster: int
    from_tx: int
    to_tx: int
    rows: Sequence[Sealed]
    previous: bytes
    sealed_at: datetime
    hash: bytes
    key_id: str | None = None
    mac: bytes | None = None

    @property
    def head(self) -> str:
        """``<seq>:<hash>``: what to keep elsewhere, to find out later whether the end was cut."""
        return f"{self.seq}:{self.hash.hex()}"


def make_seal(
    *,
    tenant_id: UUID,
    seq: int,
    cluster: int,
    from_tx: int,
    to_tx: int,
    rows: Iterable[Row],
    previous: bytes,
    sealed_at: datetime,
    key: NamedKey | None,
) -> Seal:
    """Return the seal of ``rows``, signed where there is a key."""
    sealed = tuple(Sealed(row.id, row.kind, row.at, row_hash(row)) for row in rows)
    bare = Seal(
        *(tenant_id, seq, cluster, from_tx, to_tx, sealed),
        previous=previous,
        sealed_at=sealed_at,
        hash=b"",
    )
    hashed = seal_hash(bare)
    return Seal(
        *(tenant_id, seq, cluster, from_tx, to_tx, sealed),
        previous=previous,
        sealed_at=sealed_at,
        hash=hashed,
        key_id=None if key is None else key.id,
        mac=None if key is None else sign(hashed, key),
    )


def seal_hash(seal: Seal) -> bytes:
    """Return the hash a seal should have, from all else in it but its MAC."""
    content: dict[str, Any] = {
        "version": 1,
        "tenant_id": str(seal.tenant_id),
        "seq": str(seal.seq),
        "cluster": str(seal.cluster),
        "from_tx": str(seal.from_tx),
        "to_tx": str(seal.to_tx),
        "rows": [[str(row.id), row.kind, rfc3339(row.at), row.hash.hex()] for row in seal.rows],
        "previous": seal.previous.hex(),
        "sealed_at": rfc3339(seal.sealed_at),
    }
    return hashlib.sha256(rfc8785.dumps(content)).digest()


def sign(hashed: bytes, key: NamedKey) -> bytes:
    """Return the MAC of a seal's hash."""
    return hmac.digest(key.secret, _MAC_OF + key.id.encode() + b"\n" + hashed, "sha256")


def is_signed(seal: Seal, keys: Mapping[str, NamedKey]) -> bool | None:
    """Whether the MAC is right; None where there is none, or its key is not among ``keys``."""
    if seal.mac is None or seal.key_id is None or seal.key_id not in keys:
        return None
    return hmac.compare_digest(seal.mac, sign(seal.hash, keys[seal.key_id]))


def pseudonym(salt: bytes, person: str) -> str:
    """Return what the log has in place of a person: 64 hex digits. ``log.sql`` makes the same."""
    return hashlib.sha256(salt + person.encode()).hexdigest()

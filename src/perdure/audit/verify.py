"""Is the audit as it was written? The first place where it is not is named.

It goes by the ids and hashes that stand in the seals; transaction numbers, which begin anew in
another Postgres cluster, serve only to tell a row that waits for its seal from one that was put
among sealed ones. All of it is read in one snapshot, so that sealing may go on beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.audit.canonical import digest
from perdure.audit.chain import (
    FIRST,
    Row,
    Seal,
    Sealed,
    is_signed,
    pseudonym,
    row_hash,
    seal_hash,
)
from perdure.audit.verification import Broken, Head, Verification
from perdure.config import NamedKey
from perdure.db import Connection, load_sql

_SQL = load_sql("perdure.audit", "verify.sql")
_ERASURES = _SQL["erasures"]
_ROWS = _SQL["rows"]
_SEALS = _SQL["seals"]
_TENANTS = _SQL["tenants"]
_UNSEALED = _SQL["unsealed"]
_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SEALS_AT_ONCE = 50
COUNTED = 100_000
"""How far rows that wait for their seal are counted."""


async def tenants(conn: Connection) -> list[tuple[UUID, str]]:
    """Return all tenants, the oldest first: id and name."""
    rows = await (await conn.execute(_TENANTS)).fetchall()
    return [(row["id"], row["name"]) for row in rows]


async def verify(
    conn: Connection,
    *,
    tenant_id: UUID,
    keys: Iterable[NamedKey] = (),
    expect: Head | None = None,
) -> Verification:
    """Look at a tenant's whole audit, up to the first thing that is broken.

    With ``keys`` the end of the chain has to be signed by one of them. ``expect`` is a head that
    was kept elsewhere: the chain has to hold it still. Opens a transaction of its own.
    """
    async with conn.transaction():
        await conn.execute(_ONE_MOMENT)
        return await _Walk(conn, tenant_id, {key.id: key for key in keys}, expect).verify()


class _Found(Exception):
    """Carries what is broken out of the walk."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.message)
        self.broken = broken


class _Walk:
    def __init__(
        self,
        conn: Connection,
        tenant_id: UUID,
        keys: Mapping[str, NamedKey],
        expect: Head | None,
    ) -> None:
        self._conn = conn
        self._tenant_id = tenant_id
        self._keys = keys
        self._expect = expect
        self._last: Seal | None = None
        self._unvouched: Broken | None = None
        self._erasures: dict[str, datetime] = {}
        self._so_far = Verification()

    async def verify(self) -> Verification:
        try:
            await self._walk()
        except _Found as found:
            return replace(self._so_far, broken=found.broken)
        return self._so_far

    async def _walk(self) -> None:
        self._erasures = {row["person"]: row["at"] for row in await self._rows(_ERASURES)}
        inserted = await self._look_at_unsealed()
        while rows := await self._rows(_SEALS, after=self._seq, most=_SEALS_AT_ONCE):
            seals = [_seal_of(row) for row in rows]
            ids = [row.id for seal in seals for row in seal.rows]
            found = {row["id"]: row for row in await self._rows(_ROWS, ids=ids)}
            for seal in seals:
                self._check_seal(seal)
                for sealed in seal.rows:
                    self._check_row(seal, sealed, found.get(sealed.id))
                if inserted is not None and inserted.seal == seal.seq:
                    raise _Found(inserted)
                self._count(seal)
        if inserted is not None:
            raise _Found(inserted)
        if self._unvouched is not None:
            raise _Found(self._unvouched)
        if self._expect is not None and self._expect.seq > self._seq:
            raise _Found(_cut(self._expect, self._seq))

    @property
    def _seq(self) -> int:
        return 0 if self._last is None else self._last.seq

    async def _rows(self, statement: str, **params: Any) -> list[dict[str, Any]]:
        cursor = await self._conn.execute(statement, {"tenant_id": self._tenant_id, **params})
        return await cursor.fetchall()

    async def _look_at_unsealed(self) -> Broken | None:
        rows = await self._rows(_UNSEALED, most=COUNTED)
        waiting = [row for row in rows if not row["inserted"]]
        self._so_far = replace(
            self._so_far,
            waiting=len(waiting),
            waiting_since=min((row["at"] for row in waiting), default=None),
        )
        if not rows or not rows[0]["inserted"]:
            return None
        first = rows[0]
        row = Sealed(first["id"], first["kind"], first["at"], b"")
        where = (
            "before the rows that were sealed last, and no seal has it"
            if first["seal"] is None
            else f"among those of seal {first['seal']}, which does not have it"
        )
        return Broken(
            "row_inserted",
            f"{_named(row)} was put there afterwards: it stands {where}.",
            first["seal"],
            row,
        )

    def _check_seal(self, seal: Seal) -> None:
        if seal.seq != self._seq + 1:
            missing = self._seq + 1
            raise _Found(
                Broken("seal_deleted", f"Seal {missing} is gone: the next is {seal.seq}.", missing)
            )
        if seal_hash(seal) != seal.hash:
            raise _Found(Broken("seal_changed", f"Seal {seal.seq} was changed: {_HASH}.", seal.seq))
        if seal.previous != (FIRST if self._last is None else self._last.hash):
            raise _Found(_replaced(seal.seq))
        if self._expect is not None and self._expect.seq == seal.seq:
            _require(seal, self._expect)
        self._check_mac(seal)

    def _check_mac(self, seal: Seal) -> None:
        signed = is_signed(seal, self._keys)
        if signed is False:
            raise _Found(
                Broken(
                    "wrong_mac",
                    f"Seal {seal.seq} is not signed by the key {seal.key_id!r} of "
                    "PERDURE_SECRET_KEYS: the seal was changed, or that is another key.",
                    seal.seq,
                )
            )
        if signed:
            # It vouches for everything before it, whoever signed that or did not.
            self._unvouched = None
            self._so_far = replace(self._so_far, signed=seal.seq)
        elif self._keys and self._unvouched is None:
            self._unvouched = _unvouched(seal)

    def _check_row(self, seal: Seal, sealed: Sealed, found: dict[str, Any] | None) -> None:
        if found is None:
            raise _Found(_of_row("row_deleted", seal, sealed, "is gone"))
        row = Row.of(found)
        if row_hash(row) != sealed.hash:
            raise _Found(_of_row("row_changed", seal, sealed, "was changed"))
        gone = False
        for part, expected in (("who", row.who_digest), ("details", row.details_digest)):
            text = found[part]
            if text is None and expected is not None:
                gone = True
                if not self._may_be_gone(part, row, run_deleted=found["run_deleted"]):
                    what = f"has lost its part {part!r}, and nobody erased it"
                    raise _Found(_of_row("payload_deleted", seal, sealed, what))
            elif text is not None and digest(text) != expected:
                what = f"has another part {part!r} than was recorded"
                raise _Found(_of_row("payload_changed", seal, sealed, what))
        if found["who"] is not None and row.actor != _pseudonym(found["who"], found["audit_salt"]):
            what = (
                "names another person than its pseudonym is of, or that tenant's salt was changed"
            )
            raise _Found(_of_row("payload_changed", seal, sealed, what))
        self._so_far = replace(
            self._so_far, rows=self._so_far.rows + 1, erased=self._so_far.erased + gone
        )

    def _may_be_gone(self, part: str, row: Row, *, run_deleted: bool) -> bool:
        people = [row.actor] if part == "who" else [row.actor, row.concerns]
        erased = any(
            person in self._erasures and self._erasures[person] >= row.at
            for person in people
            if person is not None
        )
        return erased or (part == "details" and run_deleted)

    def _count(self, seal: Seal) -> None:
        self._last = seal
        self._so_far = replace(self._so_far, seals=self._so_far.seals + 1, head=seal.head)


_HASH = "its hash is not that of what stands in it"


def _require(seal: Seal, expect: Head) -> None:
    if seal.hash != expect.hash:
        raise _Found(
            Broken(
                "other_head",
                f"Seal {seal.seq} is another than the one expected: "
                f"{seal.hash.hex()}, not {expect.hash.hex()}.",
                seal.seq,
            )
        )


def _cut(expect: Head, seq: int) -> Broken:
    return Broken(
        "other_head", f"The chain was cut: it ends with seal {seq}, before {expect.seq}.", seq
    )


def _replaced(seq: int) -> Broken:
    if seq == 1:
        return Broken("seal_changed", "Seal 1 names a seal before it.", 1)
    return Broken(
        "seal_changed", f"Seal {seq - 1} was replaced: seal {seq} follows another one.", seq - 1
    )


def _unvouched(seal: Seal) -> Broken:
    if seal.mac is None:
        return Broken(
            "not_signed",
            f"Seal {seal.seq} is not signed, and no signed one follows: run a worker with "
            "PERDURE_SECRET_KEYS, which signs the end of the chain.",
            seal.seq,
        )
    return Broken(
        "unknown_key",
        f"Seal {seal.seq} is signed by the key {seal.key_id!r}, which PERDURE_SECRET_KEYS does "
        "not have, and no seal of another key follows.",
        seal.seq,
    )


def _of_row(reason: str, seal: Seal, row: Sealed, what: str) -> Broken:
    return Broken(reason, f"{_named(row)} in seal {seal.seq} {what}.", seal.seq, row)


def _named(row: Sealed) -> str:
    return f"Row {row.id} ({row.kind}, {row.at:%Y-%m-%d %H:%M:%S} UTC)"


def _pseudonym(who: str, salt: bytes) -> str:
    # Read as it stands, still protected: so it was when the pseudonym was made.
    by = json.loads(who)
    return pseudonym(salt, by["subject"] or f"{by['type']}:{by['id'] or ''}")


def _seal_of(row: Mapping[str, Any]) -> Seal:
    sealed: Sequence[Sealed] = [
        Sealed(*parts)
        for parts in zip(row["ids"], row["kinds"], row["ats"], row["hashes"], strict=True)
    ]
    return Seal(
        tenant_id=row["tenant_id"],
        seq=row["seq"],
        cluster=row["cluster"],
        from_tx=int(row["from_tx"]),
        to_tx=int(row["to_tx"]),
        rows=sealed,
        previous=row["previous"],
        sealed_at=row["sealed_at"],
        hash=row["hash"],
        key_id=row["key_id"],
        mac=row["mac"],
    )

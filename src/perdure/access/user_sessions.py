"""User sessions: tokens by which people's browsers act as their user, and nobody else.

The application's backend makes one for whom it has recognised and gives it to the browser. As of a
service key only its digest is kept. It ends by itself, or is revoked; where the tenant says so, a
user has one at a time, and making another revokes it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.access.principals import Principal, Role
from perdure.audit.log import Actor, Entry, kept_of, record
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError, UnauthorizedError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

__all__ = [
    "DEFAULT_SECONDS",
    "MAX_SECONDS",
    "PREFIX",
    "NewUserSession",
    "authenticate",
    "create_user_session",
    "get_user_session",
    "list_user_sessions",
    "revoke_user_session",
    "revoke_user_sessions",
]

_SQL = load_sql("perdure.access", "user_sessions.sql")
_SETTING = _SQL["setting"]
_MAKE = _SQL["make"]
_IN_TIME = _SQL["in_time"]
_ONE = f"{_SQL['select_some']}\n{_SQL['one']}"
_PAGE = f"{_SQL['select_some']}\n{_SQL['page']}"
_REVOKE = _SQL["revoke"]
_AUTHENTICATE = _SQL["authenticate"]

PREFIX = "pdu_"
"""What a token begins with; a service key begins otherwise."""
DEFAULT_SECONDS = 24 * 3600
MAX_SECONDS = 90 * 24 * 3600
_HINT_LENGTH = len(PREFIX) + 4
_LONGEST_TOKEN = 200
_ROLES = frozenset({Role.RUNS_READ, Role.RUNS_WRITE})

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewUserSession:
    """A token to make for ``user_id``, to end in so many seconds, or at a moment."""

    user_id: str
    expires_in_seconds: int | None = None
    expires_at: datetime | None = None
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


async def create_user_session(
    conn: Connection, new: NewUserSession, *, tenant_id: UUID, by: Actor
) -> tuple[Object, str]:
    """Make a token and return it as the API shows it, and the token, which cannot be had again.

    Where the tenant has it so, the user's other one is revoked with that. Joins the caller's
    transaction or makes one.

    Raises:
        InvalidRequestError: it would end in the past, or too late.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    async with conn.transaction():
        seconds = await _seconds(conn, new)
        [tenant] = await (await conn.execute(_SETTING, {"tenant_id": tenant_id})).fetchall()
        params = {
            "id": uuid7(),
            "tenant_id": tenant_id,
            "user_id": new.user_id,
            "token_hash": _hash(token),
            "token_hint": token[:_HINT_LENGTH],
            "label": new.label,
            "metadata": jsonsafe.dumps(dict(new.metadata)),
            "only_one": tenant["only_one"],
            "by": jsonsafe.dumps(kept_of(by)),
            "expires_at": new.expires_at,
            "seconds": seconds,
        }
        made = None
        while made is None:
            if tenant["only_one"]:
                await _revoke(conn, tenant_id, by, user_id=new.user_id)
            # None, where somebody has made one since: that is revoked then.
            made = await (await conn.execute(_MAKE, params)).fetchone()
        await record(conn, _entry("user_session.created", tenant_id, made, by))
    return _shown(jsonsafe.loads(made["shown"]), active=True), token


async def _seconds(conn: Connection, new: NewUserSession) -> int:
    seconds = new.expires_in_seconds
    if new.expires_at is None:
        seconds = DEFAULT_SECONDS if seconds is None else seconds
        if not 1 <= seconds <= MAX_SECONDS:
            raise InvalidRequestError.at(
                "/expires_in_seconds", f"has to be from 1 to {MAX_SECONDS} (90 days)."
            )
        return seconds
    if seconds is not None:
        raise InvalidRequestError.at("/expires_at", "goes without expires_in_seconds: give one.")
    params = {"expires_at": new.expires_at, "most": MAX_SECONDS}
    [row] = await (await conn.execute(_IN_TIME, params)).fetchall()
    if not row["fits"]:
        raise InvalidRequestError.at("/expires_at", "has to be in the next 90 days.")
    return 0


async def get_user_session(conn: Connection, *, tenant_id: UUID, id: UUID) -> Object:
    """Return one as the API shows it, whatever became of it.

    Raises:
        NotFoundError: there is none.
    """
    row = await (await conn.execute(_ONE, {"tenant_id": tenant_id, "id": id})).fetchone()
    if row is None:
        raise NotFoundError("user session", id)
    return _shown(jsonsafe.loads(row["shown"]), active=row["active"])


async def list_user_sessions(
    conn: Connection,
    *,
    tenant_id: UUID,
    page: PageRequest,
    user_id: str | None = None,
    active: bool | None = None,
) -> Page:
    """Return a page of them: of a user, those that can be used or those that cannot."""
    params = {"tenant_id": tenant_id, "user_id": user_id, "active": active, **page.params()}
    rows = await (await conn.execute(in_order(_PAGE, page.order), params)).fetchall()
    return page_of(
        [_shown(jsonsafe.loads(row["shown"]), active=row["active"]) for row in rows], page
    )


async def revoke_user_session(conn: Connection, *, tenant_id: UUID, id: UUID, by: Actor) -> Object:
    """Make a token worthless and return it; one that is revoked stays as it is.

    Raises:
        NotFoundError: there is none.
    """
    async with conn.transaction():
        await _revoke(conn, tenant_id, by, id=id)
        return await get_user_session(conn, tenant_id=tenant_id, id=id)


async def revoke_user_sessions(
    conn: Connection, *, tenant_id: UUID, user_id: str, by: Actor
) -> int:
    """Make all tokens of a user worthless; returns how many were not yet."""
    async with conn.transaction():
        return await _revoke(conn, tenant_id, by, user_id=user_id)


async def authenticate(conn: Connection, token: str) -> Principal:
    """Return whom ``token`` acts as, in one query.

    Raises:
        UnauthorizedError: it is unknown, was revoked or has expired; which of them is not told.
    """
    row = None
    if token.startswith(PREFIX) and len(token) <= _LONGEST_TOKEN and token.isascii():
        row = await (await conn.execute(_AUTHENTICATE, {"token_hash": _hash(token)})).fetchone()
    if row is None:
        raise UnauthorizedError(
            "This user's token has expired, was revoked or never was one. Ask the application for "
            "a new one."
        )
    return Principal(
        type="user_session",
        id=str(row["id"]),
        subject=row["user_id"],
        tenant_id=row["tenant_id"],
        roles=_ROLES,
        user_id=row["user_id"],
    )


async def _revoke(
    conn: Connection,
    tenant_id: UUID,
    by: Actor,
    *,
    id: UUID | None = None,
    user_id: str | None = None,
) -> int:
    params = {
        "tenant_id": tenant_id,
        "id": id,
        "user_id": user_id,
        "by": jsonsafe.dumps(kept_of(by)),
    }
    rows = await (await conn.execute(_REVOKE, params)).fetchall()
    await record(conn, *(_entry("user_session.revoked", tenant_id, row, by) for row in rows))
    return len(rows)


def _entry(kind: str, tenant_id: UUID, row: Mapping[str, Any], by: Actor) -> Entry:
    details = {"user_id": row["user_id"], "hint": row["token_hint"]}
    return Entry(
        *(kind, tenant_id, ("user_session", row["id"])),
        by=by,
        concerns=row["user_id"],
        details=details,
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _shown(row: Mapping[str, Any], *, active: bool) -> Object:
    return {
        "id": row["id"],
        "object": "user_session",
        "user_id": row["user_id"],
        "active": active,
        "hint": row["token_hint"],
        "label": row["label"],
        "metadata": row["metadata"],
        "created_by": row["created_by"],
        "created_at": rfc3339(row["created_at"]),
        "expires_at": rfc3339(row["expires_at"]),
        "last_used_at": rfc3339(row["last_used_at"]),
        "revoked_at": rfc3339(row["revoked_at"]),
        "revoked_by": row["revoked_by"],
    }

"""Service keys: made, listed, revoked, recognised.

A key is 256 random bits, so a plain SHA-256 of it is as good as a slow hash: nobody can guess it
from its digest. It is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.access.principals import (
    DEFAULT_ROLES,
    DEFAULT_TENANT,
    Principal,
    Role,
    parse_roles,
)
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError, UnauthorizedError

_SQL = load_sql("perdure.access", "keys.sql")
_FIND_OR_MAKE_TENANT = _SQL["find_or_make_tenant"]
_FIND_TENANT = _SQL["find_tenant"]
_INSERT = _SQL["insert_key"]
_LIST = _SQL["list_keys"]
_REVOKE = _SQL["revoke_key"]
_AUTHENTICATE = _SQL["authenticate"]

PREFIX = "pdr_"
_HINT_LENGTH = len(PREFIX) + 4
_LONGEST_KEY = 200
_MOST_GROUPS = 100


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: everything but the key. Times are UTC."""

    id: UUID
    tenant_id: UUID
    name: str
    subject: str | None
    roles: tuple[Role, ...]
    groups: tuple[str, ...]
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. ``secret`` cannot be had again."""

    api_key: ApiKey
    secret: str = field(repr=False)


async def find_or_make_tenant(conn: Connection, name: str) -> UUID:
    """Return the id of the tenant called ``name``, made if there is none.

    Raises:
        InvalidRequestError: the name is empty or has characters Postgres refuses.
    """
    _check_text("/tenant", name, least=1)
    while True:
        cursor = await conn.execute(_FIND_OR_MAKE_TENANT, {"id": uuid7(), "name": name})
        # Made by somebody else just now, after our snapshot: the next look finds it.
        if row := await cursor.fetchone():
            found: UUID = row["id"]
            return found


async def find_tenant(conn: Connection, name: str) -> UUID:
    """Return the id of the tenant called ``name``.

    Raises:
        InvalidRequestError: the name is empty or has characters Postgres refuses.
        NotFoundError: there is none.
    """
    _check_text("/tenant", name, least=1)
    row = await (await conn.execute(_FIND_TENANT, {"name": name})).fetchone()
    if row is None:
        raise NotFoundError("tenant", name)
    found: UUID = row["id"]
    return found


async def create_key(
    conn: Connection,
    *,
    name: str = "",
    subject: str | None = None,
    tenant_id: UUID = DEFAULT_TENANT,
    roles: Iterable[str] = DEFAULT_ROLES,
    groups: Iterable[str] = (),
) -> NewKey:
    """Make a key for ``subject`` (a person or system, free text) in a tenant.

    ``groups`` (free text) are what its holder belongs to, for policies.

    Raises:
        InvalidRequestError: an unknown role, too many groups, or text Postgres refuses.
    """
    parsed = parse_roles(roles)
    _check_text("/name", name)
    if subject is not None:
        _check_text("/subject", subject)
    belongs_to = list(dict.fromkeys(groups))
    if len(belongs_to) > _MOST_GROUPS:
        raise InvalidRequestError.at("/groups", f"are more than {_MOST_GROUPS}.")
    for index, group in enumerate(belongs_to):
        _check_text(f"/groups/{index}", group, least=1)
    secret = PREFIX + secrets.token_urlsafe(32)
    cursor = await conn.execute(
        _INSERT,
        {
            "id": uuid7(),
            "tenant_id": tenant_id,
            "name": name,
            "subject": subject,
            "roles": [role.value for role in parsed],
            "groups": belongs_to,
            "key_hash": _hash(secret),
            "key_hint": secret[:_HINT_LENGTH],
        },
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - INSERT … RETURNING
    return NewKey(_api_key(row), secret)


async def list_keys(conn: Connection, *, tenant_id: UUID = DEFAULT_TENANT) -> list[ApiKey]:
    """Return a tenant's keys, revoked ones too, oldest first."""
    cursor = await conn.execute(_LIST, {"tenant_id": tenant_id})
    return [_api_key(row) for row in await cursor.fetchall()]


async def revoke_key(conn: Connection, key_id: UUID, *, tenant_id: UUID = DEFAULT_TENANT) -> ApiKey:
    """Make a key worthless from now on. Revoking it again changes nothing.

    Raises:
        NotFoundError: the tenant has no such key.
    """
    cursor = await conn.execute(_REVOKE, {"tenant_id": tenant_id, "id": key_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("key", key_id)
    return _api_key(row)


async def authenticate(conn: Connection, key: str) -> Principal:
    """Return who ``key`` belongs to, in one query.

    Raises:
        UnauthorizedError: the key is unknown or revoked; which of them is not told.
    """
    row = None
    if key.startswith(PREFIX) and len(key) <= _LONGEST_KEY and key.isascii():
        cursor = await conn.execute(_AUTHENTICATE, {"key_hash": _hash(key)})
        row = await cursor.fetchone()
    if row is None:
        raise UnauthorizedError(
            "This key is unknown or was revoked. Create one with `perdure keys create`."
        )
    return Principal(
        type="service_key",
        id=str(row["id"]),
        subject=row["subject"],
        tenant_id=row["tenant_id"],
        roles=frozenset(Role(name) for name in row["roles"]),
        groups=frozenset(row["groups"]),
    )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _check_text(pointer: str, text: str, *, least: int = 0) -> None:
    if not least <= len(text) <= 255:
        raise InvalidRequestError.at(pointer, f"has to have {least} to 255 characters.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequestError.at(pointer, "must not hold NUL characters or lone surrogates.")


def _api_key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant_id=row["tenant_id"],
        name=row["name"],
        subject=row["subject"],
        roles=parse_roles(row["roles"]),
        groups=tuple(row["groups"]),
        hint=row["key_hint"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )

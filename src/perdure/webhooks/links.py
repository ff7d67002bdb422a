"""Decision links: made, found again by their token, used once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, kept_of, record
from perdure.config import NamedKey
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import (
    ConfigurationError,
    InvalidRequestError,
    InvalidStateError,
    NotFoundError,
    NotSupportedError,
)
from perdure.times import rfc3339
from perdure.webhooks.tokens import Claims, hash_token, key_called, make_token, sign, verify

__all__ = [
    "DAY_SECONDS",
    "DECISIONS",
    "Link",
    "NewLink",
    "create_link",
    "find_link",
    "token_of_delivery",
    "token_of_link",
    "use_link",
]

_SQL = load_sql("perdure.webhooks", "links.sql")
_LOG = logging.getLogger(__name__)
DECISIONS = {
    "tool_approval": ("approve", "reject"),
    "question": ("answer", "reject"),
    "budget": ("approve", "reject"),
}
"""What links can decide, by the type of the interruption."""
DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link to make. ``subject``, of ``groups``, decides by it, within ``seconds``.

    ``decisions`` is what it can decide, None all there is to; ``created_by`` who asked for it. A
    link of a delivery is made once.
    """

    interruption_id: UUID
    subject: str
    seconds: float = DAY_SECONDS
    decisions: Sequence[str] | None = None
    groups: Sequence[str] = ()
    created_by: Actor | None = None
    delivery_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it was made. ``expired`` is so by the database's clock."""

    claims: Claims
    used_at: datetime | None
    expired: bool


async def create_link(
    conn: Connection, new: NewLink, *, tenant_id: UUID, keys: Sequence[NamedKey]
) -> Claims:
    """Make a link and return what it stands for; ``token_of_link`` gives its token.

    It ends with the question's own time where that is sooner, and is told to the audit.

    Raises:
        NotSupportedError: there is no key to sign with, or no link can decide such a question.
        InvalidRequestError: it cannot be decided so.
        NotFoundError: the tenant has no such interruption.
        InvalidStateError: it is closed.
    """
    if not keys:
        raise NotSupportedError(
            "Decision links are signed with a key of PERDURE_SECRET_KEYS, and the server has none. "
            "Set it, where `perdure serve` and `perdure worker` run."
        )
    question = await _one(
        conn,
        "question",
        tenant_id=tenant_id,
        interruption_id=new.interruption_id,
        seconds=new.seconds,
    )
    if question is None:
        raise NotFoundError("interruption", new.interruption_id)
    possible = DECISIONS.get(question["type"])
    if possible is None:
        raise NotSupportedError(
            f"Interruption {new.interruption_id} is of type {question['type']}; links are for "
            f"{' and '.join(DECISIONS)}. Decide it by the API or the command line."
        )
    if question["status"] != "pending" or question["expires_at"] <= question["now"]:
        raise InvalidStateError(
            "Interruption", new.interruption_id, status=question["status"], action="linked to"
        )
    wanted = possible if new.decisions is None else new.decisions
    if not wanted or any(one not in possible for one in wanted):
        raise InvalidRequestError.at("/decisions", f"has to name {' or '.join(possible)}.")
    key, nonce = keys[0], os.urandom(32)
    token_hash = hash_token(make_token(key, nonce))
    claims = Claims(
        id=uuid7(),
        tenant_id=tenant_id,
        run_id=question["run_id"],
        interruption_id=new.interruption_id,
        digest=question["digest"],
        subject=new.subject,
        groups=list(new.groups),
        decisions=[one for one in possible if one in wanted],
        expires_at=question["expires_at"],
    )
    by = new.created_by
    async with conn.transaction():
        await conn.execute(
            _SQL["insert"],
            {
                "id": claims.id,
                "tenant_id": tenant_id,
                "run_id": claims.run_id,
                "interruption_id": claims.interruption_id,
                "delivery_id": new.delivery_id,
                "nonce": nonce,
                "token_hash": token_hash,
                "key_id": key.id,
                "mac": sign(key, claims, token_hash),
                "digest": claims.digest,
                "subject": claims.subject,
                "groups": list(claims.groups),
                "decisions": list(claims.decisions),
                "created_by": None if by is None else jsonsafe.dumps(kept_of(by)),
                "expires_at": claims.expires_at,
            },
        )
        await record(conn, _created(claims, by))
    return claims


def _created(claims: Claims, by: Actor | None) -> Entry:
    return Entry(
        "link.created",
        claims.tenant_id,
        ("link", claims.id),
        by=by,
        run_id=claims.run_id,
        shown=claims.digest,
        concerns=claims.subject,
        details={
            "interruption_id": str(claims.interruption_id),
            "subject": claims.subject,
            "groups": list(claims.groups),
            "decisions": list(claims.decisions),
            "expires_at": rfc3339(claims.expires_at),
        },
    )


async def find_link(conn: Connection, token: str, *, keys: Sequence[NamedKey]) -> Link | None:
    """Return the link of a token; None where there is none, or none that is what was made."""
    try:
        token_hash = hash_token(token)
    except ValueError:
        return None
    row = await _one(conn, "by_token", token_hash=token_hash)
    if row is None:
        return None
    claims = Claims(**{name: row[name] for name in Claims.__slots__})
    key = key_called(row["key_id"], keys)
    if key is None:
        _LOG.warning(
            "Decision link %s was signed with key %r, which PERDURE_SECRET_KEYS does not have.",
            claims.id,
            row["key_id"],
        )
        return None
    if not verify(key, claims, token_hash, bytes(row["mac"])):
        _LOG.error("Decision link %s is not as it was made: its row was edited.", claims.id)
        return None
    return Link(claims, row["used_at"], row["expired"])


async def use_link(conn: Connection, link: Link) -> bool:
    """Use a link up; False where it has been, or its time is over. Joins the transaction."""
    return bool((await conn.execute(_SQL["use"], {"id": link.claims.id})).rowcount)


async def token_of_link(
    conn: Connection, *, tenant_id: UUID, link_id: UUID, keys: Sequence[NamedKey]
) -> str:
    """Return a link's token, to be shown to who made it.

    Raises:
        NotFoundError: the tenant has no such link.
        ConfigurationError: the key it is made with is not here.
    """
    row = await _one(conn, "by_id", tenant_id=tenant_id, id=link_id)
    if row is None:
        raise NotFoundError("link", link_id)
    return _token(row, keys)


async def token_of_delivery(
    conn: Connection, delivery_id: UUID, *, keys: Sequence[NamedKey]
) -> str | None:
    """Return the token of the link a delivery carries; None where it carries none.

    Raises:
        ConfigurationError: the key it is made with is not here.
    """
    row = await _one(conn, "by_delivery", id=delivery_id)
    return None if row is None else _token(row, keys)


def _token(row: dict[str, Any], keys: Sequence[NamedKey]) -> str:
    key = key_called(row["key_id"], keys)
    if key is None:
        raise ConfigurationError(
            f"A decision link was made with key {row['key_id']!r}, which PERDURE_SECRET_KEYS does "
            "not have here. Set it as where the link was made."
        )
    return make_token(key, bytes(row["nonce"]))


async def _one(conn: Connection, statement: str, **params: object) -> dict[str, Any] | None:
    return await (await conn.execute(_SQL[statement], params)).fetchone()

"""Rows of the audit, written in the transaction of what they tell of.

How to record something new::

    await record(conn, Entry("grant.revoked", tenant_id, ("grant", grant_id), by=principal,
                             run_id=run_id, details={"tool": "refund", "reason": "…"}))

- Call it on the connection, and within the transaction, that changes the thing itself: both happen
  or none. It is one statement however many entries there are, and waits for nobody else's.
- ``kind`` is two words, what was done to what: ``interruption.decided``, ``interruption.expired``,
  ``interruption.escalated``, ``interruption.cancelled``, ``grant.created``, ``grant.used``,
  ``grant.revoked``, ``policy.changed``, ``key.created``, ``run.cancelled``, ``link.created``,
  ``webhook.created``, ``webhook.changed``, ``webhook.rotated``, ``webhook.deleted``,
  ``webhook.disabled``. New ones need no migration.
- ``by`` is a ``Principal``, or anything with its type, id, subject and source; None where no person
  acted: a clock, a rule.
- ``shown`` and ``executed`` are digests (``interruptions.digest``).
- ``details`` is JSON: whatever a reader will want to see of it. It is kept beside the log, under a
  digest, and goes when the person or the run is erased. Nothing secret belongs in it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.canonical import canonical, digest
from perdure.db import Connection, load_sql, uuid7

_RECORD = load_sql("perdure.audit", "log.sql")["record"]

SYSTEM = "system"
"""The ``actor_type`` where no person acted."""


class Actor(Protocol):
    """Somebody who does things: ``access.principals.Principal`` is one."""

    @property
    def type(self) -> str:
        """How they were recognised."""

    @property
    def id(self) -> str | None:
        """Their id in that way of recognising."""

    @property
    def subject(self) -> str | None:
        """The person or system behind it."""

    @property
    def source(self) -> str | None:
        """The way in, and where there is one the address: ``api 203.0.113.7``, ``program``."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done. ``subject`` is what to: its type and its id.

    ``concerns`` is a person it is about, by default the user the run is for: when they are erased,
    ``details`` go.
    """

    kind: str
    tenant_id: UUID
    subject: tuple[str, UUID | str]
    by: Actor | None = None
    run_id: UUID | None = None
    shown: str | None = None
    executed: str | None = None
    concerns: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


async def record(conn: Connection, *entries: Entry) -> None:
    """Add rows to the audit, in one statement; joins the caller's transaction.

    Raises:
        TypeError: details that are no JSON.
        psycopg.errors.CheckViolation: a kind that is not two words.
    """
    if entries:
        # As _as_row left it: jsonsafe would protect the parts a second time.
        given = json.dumps([_as_row(entry) for entry in entries])
        await conn.execute(_RECORD, {"entries": given})


def kept_of(by: Actor) -> dict[str, str | None]:
    """Return what is kept of somebody beside what they made: the way they came is left out."""
    return {"type": by.type, "id": by.id, "subject": by.subject}


def person_of(by: Actor) -> str:
    """Return what a pseudonym is made of: the subject, else how they were recognised and as whom.

    The same person by two keys is one; so two people are two, whatever became of their names.
    """
    return by.subject or f"{by.type}:{by.id or ''}"


def way_of(source: str | None) -> str | None:
    """Return the way in of a source, without the address."""
    return None if source is None else source.partition(" ")[0]


def _as_row(entry: Entry) -> dict[str, Any]:
    by = entry.by
    details = canonical({"salt": _salt(), "details": entry.details})
    who = None
    if by is not None:
        shown = {"type": by.type, "id": by.id, "subject": by.subject, "source": by.source}
        who = canonical({"salt": _salt(), **shown})
    type_, id_ = entry.subject
    row = {
        "id": str(uuid7()),
        "tenant_id": str(entry.tenant_id),
        "kind": entry.kind,
        "subject_type": type_,
        "subject_id": str(id_),
        "run_id": None if entry.run_id is None else str(entry.run_id),
        "actor_type": SYSTEM if by is None else by.type,
        "person": None if by is None else person_of(by),
        "about": entry.concerns,
        "way": None if by is None else way_of(by.source),
        "shown_digest": entry.shown,
        "executed_digest": entry.executed,
    }
    return {
        # Once, and not the parts below: they have been through it.
        **json.loads(jsonsafe.dumps(row)),
        "who": who,
        "who_digest": None if who is None else digest(who),
        "details": details,
        "details_digest": digest(details),
    }


def _salt() -> str:
    # Without it a digest of what is erased could be told by trying what it may have been.
    return secrets.token_hex(16)

"""The role that serves, where another one owns the tables: what it is granted, and what it is not.

It reads and writes all tables of ours and of DBOS's, but can only add to the audit: not change a
row, not delete one, not set its time or its transaction, not take its triggers away.
"""

from __future__ import annotations

import getpass
import os
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from perdure.db import Connection, load_sql
from perdure.errors import MigrationError

__all__ = ["Powers", "grant", "grants_sql", "other_role", "powers_over_audit"]

_SQL = load_sql("perdure", "roles.sql")
_PERDURE = _SQL["grant_perdure"]
_DBOS = _SQL["grant_dbos"]
_HAS_DBOS = _SQL["has_dbos"]
_HAS_ROLE = _SQL["has_role"]
_POWERS = _SQL["powers_over_audit"]

Powers = Literal["owner", "changes", "adds"]
"""What a role can do to the audit: everything, change what stands there, or add to it only."""


def other_role(serving_url: str | None, owner_url: str | None) -> str | None:
    """Return the role of ``serving_url`` where ``owner_url`` names another one, else None."""
    if serving_url is None or owner_url is None:
        return None
    serving = _role_of(serving_url)
    return None if serving == _role_of(owner_url) else serving


def _role_of(url: str) -> str:
    given = conninfo_to_dict(url).get("user")
    return str(given or os.environ.get("PGUSER") or getpass.getuser())


def grants_sql(role: str) -> str:
    """Return SQL that grants ``role`` what serving takes; running it again changes nothing."""
    return f"{_for(role, _PERDURE)};\n{_for(role, _DBOS)};"


async def grant(conn: Connection, role: str) -> None:
    """Grant ``role`` what serving takes, on a connection of the owner, in one transaction.

    Nothing happens where there is no such role.

    Raises:
        MigrationError: some table belongs to somebody else.
    """
    if not await _is_there(conn, role):
        return
    try:
        async with conn.transaction():
            await conn.execute(_for(role, _PERDURE).encode())
            row = await (await conn.execute(_HAS_DBOS)).fetchone()
            if row is not None and row["present"]:
                await conn.execute(_for(role, _DBOS).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"The role {role} of DATABASE_URL could not be granted what it needs: "
            f"{error.diag.message_primary}. The role of PERDURE_MIGRATE_URL has to own the schemas "
            "perdure and dbos and all in them: as a superuser, "
            f"REASSIGN OWNED BY {role} TO its name, in this database."
        ) from error


async def powers_over_audit(conn: Connection, role: str) -> Powers | None:
    """Return what ``role`` can do to the audit of the database of ``conn``.

    None where there is no such role.
    """
    if not await _is_there(conn, role):
        return None
    row = await (await conn.execute(_POWERS, {"role": role})).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives a row
    if row["owns"]:
        return "owner"
    return "changes" if row["may_change"] else "adds"


async def _is_there(conn: Connection, role: str) -> bool:
    row = await (await conn.execute(_HAS_ROLE, {"role": role})).fetchone()
    return row is not None and bool(row["present"])


def _for(role: str, statements: str) -> str:
    # An identifier, quoted: a role may be called anything.
    return sql.SQL(statements).format(role=sql.Identifier(role)).as_string(None)

"""What doctor looks at, in order: each check reads its rows and lets the rules judge them.

Nothing is changed: the session is read-only. A check whose rows cannot be read becomes a finding.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from perdure.audit.sealing import waiting
from perdure.cli.doctor import audit, installation, runs, schema, server, webhooks, workers
from perdure.cli.doctor.findings import Finding, error
from perdure.cli.doctor.where import database_url, on_loopback, without_password
from perdure.config import Settings
from perdure.db import Connection, connect, load_sql
from perdure.errors import ConfigurationError, MigrationError
from perdure.migrate import read_status
from perdure.roles import other_role, powers_over_audit
from perdure.runs.dbos_schema import dbos_version, known_dbos_version
from perdure.runs.stuck import find_stuck

_SQL = load_sql("perdure.cli.doctor", "doctor.sql")
_READ_ONLY = "SET default_transaction_read_only = on"
_PATIENCE = "SET statement_timeout = '30s'"

_TABLES = ("migrations", "dbos_migrations")
"""Findings without which the other checks would ask for tables that are not there."""

Check = Callable[[Connection], Awaitable[list[Finding]]]


async def look() -> list[Finding]:
    """Look at this installation and its database; whatever is wrong is among the findings."""
    return [*installation.versions(), *await _look_at_database()]


async def _look_at_database() -> list[Finding]:
    try:
        with database_url(Settings.from_env()) as url:
            try:
                conn = await connect(url, application_name="perdure doctor")
            except psycopg.Error as refusal:
                return [_unreachable(refusal, url)]
            async with conn:
                return await _check(conn, url)
    except ConfigurationError as mistake:
        found, _, remedy = mistake.message.partition(". ")
        return [error("database", found, remedy)]


def _unreachable(refusal: psycopg.Error, url: str) -> Finding:
    said = " ".join(without_password(str(refusal), url).split()).rstrip(".")
    return error(
        "database",
        f"the database did not answer: {said}",
        "Check DATABASE_URL and that Postgres is running.",
    )


async def _check(conn: Connection, url: str) -> list[Finding]:
    findings: list[Finding] = []
    anyway: Sequence[tuple[str, Check]] = (
        ("database", _server),
        ("clock", _clock),
        ("migrations", _schema),
    )
    migrated: Sequence[tuple[str, Check]] = (
        ("workers", _workers),
        ("stuck_runs", _stuck),
        ("runs", _runs),
        ("webhooks", _webhooks),
        ("keys", lambda conn: _keys(conn, loopback=on_loopback(url))),
        ("audit", lambda conn: _audit(conn, loopback=on_loopback(url))),
    )
    try:
        await conn.execute(_READ_ONLY)
        await conn.execute(_PATIENCE)
        for name, check in anyway:
            findings += await _carefully(name, check, conn)
        if not any(one.name in _TABLES and one.level == "error" for one in findings):
            for name, check in migrated:
                findings += await _carefully(name, check, conn)
    except psycopg.OperationalError as refusal:
        findings.append(_unreachable(refusal, url))
    return findings


async def _carefully(name: str, check: Check, conn: Connection) -> list[Finding]:
    try:
        return await check(conn)
    except MigrationError as mistake:
        found, _, remedy = mistake.message.partition(". ")
        return [error(name, found, remedy)]
    except psycopg.Error as refusal:
        if conn.closed:
            raise
        said = refusal.diag.message_primary or " ".join(str(refusal).split())
        return [
            error(
                name,
                f"could not be read: {said}",
                "Give the role of DATABASE_URL what it needs on the schemas perdure and dbos.",
            )
        ]


async def _server(conn: Connection) -> list[Finding]:
    info = conn.info
    where = f"{info.host or 'a socket'}:{info.port}/{info.dbname} as {info.user}"
    row = await _one(conn, "server")
    return server.judge_server(row, backend_pid=info.backend_pid, where=where)


async def _clock(conn: Connection) -> list[Finding]:
    # The second answer: the first had to be planned.
    await _one(conn, "clock")
    before, began = datetime.now(UTC), time.monotonic()
    theirs = (await _one(conn, "clock"))["now"]
    round_trip = time.monotonic() - began
    ahead = (theirs - before).total_seconds() - round_trip / 2
    return [server.judge_clock(ahead, round_trip)]


async def _schema(conn: Connection) -> list[Finding]:
    ours = schema.judge_migrations(await read_status(conn))
    if not installation.dbos_is_tested():
        # What another DBOS has to say of its tables is not known either.
        return [ours]
    return [ours, schema.judge_dbos(await dbos_version(conn), known_dbos_version())]


async def _workers(conn: Connection) -> list[Finding]:
    queue = await _one(conn, "queue", late=workers.LATE_SECONDS)
    executors = await _all(conn, "executors")
    living = any(one["state"] == "living" for one in executors)
    return [
        *workers.judge_executors(executors, queue),
        *workers.judge_queue(queue, await _all(conn, "running")),
        runs.judge_sweeps(await _all(conn, "sweeps"), living=living),
    ]


async def _stuck(conn: Connection) -> list[Finding]:
    stuck = await find_stuck(conn, parked=True)
    return runs.judge_stuck(stuck, now=(await _one(conn, "clock"))["now"])


async def _runs(conn: Connection) -> list[Finding]:
    return [
        runs.judge_repairs(await _all(conn, "repairs")),
        runs.judge_dying(await _all(conn, "dying")),
        runs.judge_quarantined(await _one(conn, "quarantined")),
        runs.judge_uncertain(await _one(conn, "uncertain")),
    ]


async def _webhooks(conn: Connection) -> list[Finding]:
    return webhooks.judge_webhooks(await _one(conn, "webhooks"))


async def _keys(conn: Connection, *, loopback: bool) -> list[Finding]:
    return [runs.judge_keys((await _one(conn, "keys"))["active"], loopback=loopback)]


async def _audit(conn: Connection, *, loopback: bool) -> list[Finding]:
    settings = Settings.from_env()
    row = await _one(conn, "audit")
    two_roles = other_role(settings.database_url, settings.owner_url) is not None
    powers = await powers_over_audit(conn, row["role"])
    return [
        audit.judge_sealing(*await waiting(conn)),
        audit.judge_keys(
            keys=bool(settings.secret_keys), unsigned=row["unsigned"], loopback=loopback
        ),
        audit.judge_powers(powers, two_roles=two_roles),
    ]


async def _one(conn: Connection, name: str, **values: Any) -> dict[str, Any]:
    row = await (await conn.execute(_SQL[name], values or None)).fetchone()
    if row is None:
        raise psycopg.DataError(f"{name} has no row")
    return row


async def _all(conn: Connection, name: str) -> list[dict[str, Any]]:
    return await (await conn.execute(_SQL[name])).fetchall()

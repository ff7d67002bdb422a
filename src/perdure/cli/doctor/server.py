"""Rules about the Postgres server: what the guarantees rest on. Pure: a row in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.cli.doctor.findings import Finding, error, lasting, ok, warning

OLDEST, NEWEST = 15, 18
NOTICED_SECONDS = 60
"""How long a vanished machine's sessions may stay: they hold its locks."""
CROWDED = 0.8
CLOCK_SECONDS = 2.0

Row = Mapping[str, Any]


def judge_server(row: Row, *, backend_pid: int | None, where: str) -> list[Finding]:
    """Judge what statement ``server`` read.

    ``backend_pid`` is the process libpq was told of when it connected, ``where`` how the server
    was reached, without a password.
    """
    return [
        _version(row, where),
        *(
            _switch(row, name, why)
            for name, why in (
                ("fsync", "a crash of the machine may lose or spoil the whole database"),
                ("full_page_writes", "a crash of the machine may leave pages half written"),
                ("synchronous_commit", "a crash loses what was recorded last: effects repeat"),
            )
        ),
        _socket(row),
        _keepalives(row),
        _pooler(row["backend_pid"], backend_pid),
        _connections(row),
    ]


def _version(row: Row, where: str) -> Finding:
    major = row["version_number"] // 10_000
    found = f"PostgreSQL {row['version']} at {where}"
    if major < OLDEST:
        return error(
            "database",
            f"{found}: too old",
            f"Move to PostgreSQL {OLDEST} to {NEWEST}.",
        )
    if major > NEWEST:
        return warning(
            "database",
            f"{found}: not tested with",
            f"Use PostgreSQL {OLDEST} to {NEWEST}, or a newer perdure.",
        )
    return ok("database", found)


def _switch(row: Row, name: str, why: str) -> Finding:
    value = row[name]
    if value == "off":
        where = "ALTER SYSTEM" if name != "synchronous_commit" else f"ALTER DATABASE {_name(row)}"
        reload = "; SELECT pg_reload_conf();" if name != "synchronous_commit" else ";"
        return error(name, f"off: {why}", f"{where} SET {name} = on{reload}")
    return ok(name, str(value))


def _socket(row: Row) -> Finding:
    if row["client"] is None:
        return warning(
            "connection",
            "over a Unix socket: DBOS does not try again when it refuses",
            "Name a host in DATABASE_URL: postgresql://user:password@127.0.0.1:5432/name",
        )
    return ok("connection", f"over TCP from {row['client']}")


def _keepalives(row: Row) -> Finding:
    name = "tcp_keepalives"
    if row["client"] is None or (row["client_is_here"] and row["listens_here_only"]):
        return ok(name, "not needed: the server answers this machine alone")
    idle, interval, count = (
        row[f"tcp_keepalives_{part}"] for part in ("idle", "interval", "count")
    )
    seconds = idle + interval * count
    found = f"a machine that vanishes is noticed after {lasting(seconds)}"
    if seconds <= NOTICED_SECONDS:
        return ok(name, found)
    database = _name(row)
    return warning(
        name,
        f"{found}; until then its sessions hold their locks",
        " ".join(
            f"ALTER DATABASE {database} SET tcp_keepalives_{part} = {value};"
            for part, value in (("idle", 3), ("interval", 1), ("count", 3))
        ),
    )


def _pooler(actual: int, told: int | None) -> Finding:
    if told is not None and told != actual:
        return warning(
            "pooler",
            f"a pooler stands before the server (it named process {told}, the server is {actual})",
            "Pool by session: locks, LISTEN and prepared statements are lost when it pools by "
            "transaction. Or connect to Postgres itself.",
        )
    return ok("pooler", "none between")


def _connections(row: Row) -> Finding:
    used, most = row["used"], row["most"]
    found = f"{used} of {most} in use, {row['used_here']} of them on this database"
    if used < most * CROWDED:
        return ok("connections", found)
    return warning(
        "connections",
        found,
        f"Raise max_connections ({row['max_connections']}), or run fewer workers: each needs a "
        "dozen when idle and at most 30.",
    )


def judge_clock(ahead: float, round_trip: float) -> Finding:
    """Judge how many seconds the database's clock is ahead, known to half a ``round_trip``."""
    name = "clock"
    found = (
        f"the database's clock is {abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} "
        f"this machine's (give or take {round_trip / 2:.3f} s)"
    )
    if abs(ahead) - round_trip / 2 <= CLOCK_SECONDS:
        return ok(name, found)
    return warning(
        name,
        f"{found}; nothing but the order of ids depends on it",
        "Keep this machine's clock by NTP.",
    )


def _name(row: Row) -> str:
    """Return the database's name, quoted by the server."""
    return str(row["database"])

"""Rules about the audit: is it sealed, is it signed, who could change it. Pure."""

from __future__ import annotations

from perdure.audit.sealing import COUNTED
from perdure.cli.doctor.findings import Finding, counted, lasting, ok, warning
from perdure.roles import Powers

BEHIND_SECONDS = 3600.0
"""How old a row may be that no seal has; a transaction that stays open keeps all waiting."""


def judge_sealing(rows: int, oldest_seconds: float | None) -> Finding:
    """Judge how many rows no seal has, and how many seconds old the oldest of them is."""
    name = "audit_sealing"
    if not rows or oldest_seconds is None:
        return ok(name, "every row is sealed")
    many = (
        f"more than {COUNTED} rows wait"
        if rows >= COUNTED
        else counted(rows, "row waits", "rows wait")
    )
    found = f"{many} for a seal, the oldest for {lasting(oldest_seconds)}"
    if oldest_seconds <= BEHIND_SECONDS:
        return ok(name, found)
    return warning(
        name,
        f"{found}; until then they can be changed without a trace",
        "Workers seal: look into their logs, and end transactions that have been open for long "
        "(pg_stat_activity, pg_prepared_xacts), in any database of the server.",
    )


def judge_keys(*, keys: bool, unsigned: int, loopback: bool) -> Finding:
    """Judge what signs the seals.

    ``keys``: PERDURE_SECRET_KEYS is set here; ``unsigned`` counts tenants whose chain ends without
    a signature; ``loopback`` says that the database is on this machine.
    """
    name = "audit_keys"
    if keys and not unsigned:
        return ok(name, "seals are signed")
    if not keys and loopback:
        return ok(name, "PERDURE_SECRET_KEYS is not set: seals are not signed")
    if keys:
        found = f"the chain of {counted(unsigned, 'tenant')} ends without a signature"
        return warning(
            name, found, "Set PERDURE_SECRET_KEYS for the workers too, and restart them."
        )
    return warning(
        name,
        "PERDURE_SECRET_KEYS is not set: whoever owns the tables could make the chain anew",
        'Set PERDURE_SECRET_KEYS for workers, servers and here: python -c "import base64, os; '
        "print('k1:' + base64.b64encode(os.urandom(32)).decode())\"",
    )


def judge_powers(powers: Powers | None, *, two_roles: bool) -> Finding:
    """Judge what the role in use could do to the audit.

    ``two_roles``: PERDURE_MIGRATE_URL names another one, which should own the tables.
    """
    name = "audit_role"
    if powers is None or powers == "adds":
        return ok(name, "the role of DATABASE_URL can add to the audit and not change it")
    if not two_roles and powers == "owner":
        return ok(
            name,
            "one role owns the tables and serves: it could change the audit "
            "(PERDURE_MIGRATE_URL can name another owner)",
        )
    return warning(
        name,
        "the role of DATABASE_URL could change the audit",
        "perdure migrate, with PERDURE_MIGRATE_URL of the role that owns the tables; the other one "
        "must be no superuser, no member of it, and own none of them.",
    )

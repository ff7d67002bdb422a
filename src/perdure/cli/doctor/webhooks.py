"""Rules about webhooks: whose secrets are open to see, what was not delivered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.cli.doctor.findings import Finding, counted, lasting, ok, warning

LATE_SECONDS = 60.0


def judge_webhooks(row: Mapping[str, Any]) -> list[Finding]:
    """Judge the row of statement ``webhooks``."""
    secrets = ok("webhook_secrets", "sealed, or none")
    if row["plain"]:
        secrets = warning(
            "webhook_secrets",
            f"{counted(row['plain'], 'webhook keeps its secret', 'webhooks keep their secrets')} "
            "in plain text: who reads the database can sign",
            "Set PERDURE_ENCRYPTION_KEYS for `perdure serve` and `perdure worker`, then rotate: "
            "POST /v1/webhooks/ID/rotate",
        )
    return [secrets, _deliveries(row)]


def _deliveries(row: Mapping[str, Any]) -> Finding:
    name = "deliveries"
    late = row["late_seconds"] or 0.0
    troubles = [
        said
        for there, said in (
            (row["failed"], f"{row['failed']} failed in the last 24 hours"),
            (row["gone"], f"{counted(row['gone'], 'webhook')} disabled by its receiver"),
            (late > LATE_SECONDS, f"the oldest that is due has waited for {lasting(late)}"),
        )
        if there
    ]
    if troubles:
        return warning(
            name,
            "; ".join(troubles),
            "perdure webhooks list, then: perdure webhooks deliveries ID --status failed",
        )
    return ok(name, f"{counted(row['enabled'], 'webhook')}, nothing failed or late")

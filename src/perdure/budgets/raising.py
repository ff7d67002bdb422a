"""A decision on a run that stopped at a budget: what it raises."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from perdure.audit.canonical import canonical, digest
from perdure.audit.log import Actor, Entry, record
from perdure.budgets.limits import Limits, parse_limits
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError

__all__ = ["budget_digest", "raise_budget", "raised"]

_SQL = load_sql("perdure.budgets", "raising.sql")


def budget_digest(
    *, tenant_id: UUID, run_id: UUID, base_seq: int, agent: str, budget: Mapping[str, Any]
) -> str:
    """Return the digest of what an interruption of type ``budget`` shows: ``sha256:<hex>``."""
    content = {
        "version": 1,
        "tenant_id": str(tenant_id),
        "run_id": str(run_id),
        "base_seq": base_seq,
        "agent": agent,
        "budget": dict(budget),
    }
    return digest(canonical(content))


def raised(budget: Mapping[str, Any], arguments: Any) -> Limits:
    """Return the limits an approval raises ``budget`` (as its interruption shows it) to.

    ``arguments`` are a JSON object with the new limits; at least one is higher than what is spent.

    Raises:
        InvalidRequestError: they are none such, or limit what the budget does not, or are no more
            than what is spent already.
    """
    limits = parse_limits(arguments, "/arguments")
    for name in ("cost_usd", "total_tokens"):
        new, old = getattr(limits, name), budget[name]
        if new is None:
            continue
        if old is None:
            raise InvalidRequestError.at(f"/arguments/{name}", "is not what this budget limits.")
        if new <= Decimal(str(old)):
            raise InvalidRequestError.at(
                f"/arguments/{name}", f"has to be more than the limit there is, {old}."
            )
    return limits


async def raise_budget(
    conn: Connection,
    budget: Mapping[str, Any],
    limits: Limits | None,
    *,
    tenant_id: UUID,
    run_id: UUID,
    by: Actor,
) -> None:
    """Raise ``budget``, as its interruption shows it, for the period that was shown.

    ``limits`` None lets models be asked whose price is not known, or the call be tried again where
    the budget is another by now. What was raised higher meanwhile stays so. In the transaction
    ``conn`` is in.

    Raises:
        InvalidRequestError: there are no ``limits``, and the budget stands as it was shown.
    """
    new = limits or Limits()
    if limits is None and budget["reason"] == "reached":
        cursor = await conn.execute(_SQL["stands"], {**budget, "tenant_id": tenant_id})
        if await cursor.fetchone() is not None:
            names = " or ".join(n for n in ("cost_usd", "total_tokens") if budget[n] is not None)
            raise InvalidRequestError.at(
                "/arguments", f"are needed to approve: an object with the new limit ({names})."
            )
    cursor = await conn.execute(
        _SQL["raise"],
        {
            "id": budget["id"],
            "tenant_id": tenant_id,
            "starts_at": budget["starts_at"],
            "cost_usd": new.cost_usd,
            "total_tokens": new.total_tokens,
            "allows_unpriced": budget["reason"] == "unpriced",
        },
    )
    if await cursor.fetchone() is not None:
        about = ("budget", budget["id"])
        details = {"budget": dict(budget), "raised_to": new.as_object()}
        await record(conn, Entry("budget.raised", tenant_id, about, by, run_id, details=details))

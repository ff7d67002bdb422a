"""What nobody uses of the catalogue, removed.

A version stays while it is current, while a run points at it (the database would refuse), while
another one that stays consists of it, and while a worker lives that may have it: a deploy may still
be under way.
"""

from __future__ import annotations

from typing import Any

from perdure import jsonsafe
from perdure.catalogue.registering import LOCK
from perdure.db import Connection, load_sql

__all__ = ["prune"]

_SQL = load_sql("perdure.catalogue", "pruning.sql")
_UNNEEDED = _SQL["unneeded"]
_REMOVE_VERSIONS = (_SQL["let_go"], _SQL["remove_parts"], _SQL["remove_versions"])
_REMOVE_AGENTS = _SQL["remove_agents"]
_REMOVE_DEFINITIONS = (
    ("model_settings", _SQL["remove_model_settings"]),
    ("tools", _SQL["remove_tools"]),
    ("tool_guardrails", _SQL["remove_tool_guardrails"]),
    ("handoff_configs", _SQL["remove_handoff_configs"]),
    ("guardrails", _SQL["remove_guardrails"]),
    ("mcp_servers", _SQL["remove_mcp_servers"]),
)


async def prune(conn: Connection, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove versions no run uses, agents nothing is left of, and definitions nobody has.

    Returns what was removed as the API shows it. ``dry_run``: all is as before then.
    """
    async with conn.transaction(force_rollback=dry_run):
        await conn.execute(LOCK)
        unneeded = await (await conn.execute(_UNNEEDED)).fetchall()
        ids = [row["id"] for row in unneeded]
        for statement in _REMOVE_VERSIONS if ids else ():
            await conn.execute(statement, {"ids": ids})
        agents = await (await conn.execute(_REMOVE_AGENTS)).fetchall()
        counts = {
            name: (await conn.execute(statement)).rowcount
            for name, statement in _REMOVE_DEFINITIONS
        }
    return {
        "object": "agent_prune",
        "dry_run": dry_run,
        "versions": [jsonsafe.loads(row["shown"]) for row in unneeded],
        "agents": sorted(jsonsafe.loads(row["name"]) for row in agents),
        "definitions": counts,
    }

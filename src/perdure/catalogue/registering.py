"""What an engine comes with, written into the catalogue when it starts.

One question is asked of the database, whether anything is new; nothing is written where nothing
is. Engines that start at the same time write one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure import jsonsafe
from perdure.catalogue.definitions import Catalogue, digest
from perdure.db import Connection, Pool, load_sql, uuid7

__all__ = ["LOCK", "register"]

_SQL = load_sql("perdure.catalogue", "registering.sql")
_UNCHANGED = _SQL["unchanged"]
LOCK = _SQL["lock"]
_OF_VERSIONS = _SQL["of_versions"]
_STEPS = (
    ("model_settings", _SQL["add_model_settings"]),
    ("tools", _SQL["add_tools"]),
    ("tool_guardrails", _SQL["add_tool_guardrails"]),
    ("tool_guardrail_tools", _SQL["add_tool_guardrail_tools"]),
    ("handoff_configs", _SQL["add_handoff_configs"]),
    ("guardrails", _SQL["add_guardrails"]),
    ("mcp_servers", _SQL["add_mcp_servers"]),
    ("agents", _SQL["add_agents"]),
    ("agents", _SQL["add_versions"]),
    ("parts", f"{_OF_VERSIONS}\n{_SQL['add_parts']}"),
    ("agent_tools", f"{_OF_VERSIONS}\n{_SQL['add_agent_tools']}"),
    ("agent_handoffs", f"{_OF_VERSIONS}\n{_SQL['add_agent_handoffs']}"),
    ("agent_guardrails", f"{_OF_VERSIONS}\n{_SQL['add_agent_guardrails']}"),
    ("agent_mcp_servers", f"{_OF_VERSIONS}\n{_SQL['add_agent_mcp_servers']}"),
)
"""Statements in order, each with the rows it is given."""
_AFTER = (
    f"{_OF_VERSIONS}\n{_SQL['make_current']}",
    _SQL["mark_gone"],
    _SQL["mark_versions"],
)
_CONNECTION_SECONDS = 30.0
_ANSWER_SECONDS = 60.0

Rows = dict[str, list[dict[str, Any]]]


async def register(pool: Pool, catalogue: Catalogue) -> bool:
    """Make what an engine has the current of its agents; return whether anything was written.

    Agents of a build that was given one of its roots, and that are not in this one, count as gone
    from now on. A build that was given others stands beside it.

    Raises:
        UnavailableError: the database does not answer.
    """
    async with pool.prompt(_CONNECTION_SECONDS, answer_within=_ANSWER_SECONDS) as conn:
        given = {
            "roots": jsonsafe.dumps(list(catalogue.roots)),
            "versions": jsonsafe.dumps(
                [{"agent": one.name, "version": one.version} for one in catalogue.agents.values()]
            ),
        }
        row = await (await conn.execute(_UNCHANGED, given)).fetchone()
        if row is not None and row["unchanged"]:
            return False
        await _write(conn, catalogue, given)
    return True


async def _write(conn: Connection, catalogue: Catalogue, given: Mapping[str, str]) -> None:
    rows = _rows(catalogue)
    async with conn.transaction():
        await conn.execute(LOCK)
        for name, statement in _STEPS:
            if rows[name]:
                await conn.execute(statement, {**given, "rows": jsonsafe.dumps(rows[name])})
        for statement in _AFTER:
            await conn.execute(statement, given)


def _rows(catalogue: Catalogue) -> Rows:
    """Return the rows of each table; what refers to another does so by its name or hash."""
    rows: Rows = {name: [] for name, _ in _STEPS}
    known: set[tuple[str, str]] = set()

    def add(table: str, definition: Mapping[str, Any]) -> str:
        found = digest(definition)
        if (table, found) not in known:
            known.add((table, found))
            rows[table].append({**definition, "id": str(uuid7()), "hash": found})
        return found

    for agent in catalogue.agents.values():
        definition = agent.definition
        rows["agents"].append(
            {
                **definition,
                "id": str(uuid7()),
                "version_id": str(uuid7()),
                "agent": agent.name,
                "version": agent.version,
                "definition_hash": agent.definition_hash,
                "run_config": catalogue.run_config,
                "settings": add("model_settings", {"settings": definition["model_settings"]}),
            }
        )
        of = {"of": agent.name}
        rows["parts"] += [{**of, "part": name} for name in agent.parts]
        for place, tool in enumerate(definition["tools"]):
            made = add("tools", tool)
            rows["agent_tools"].append({**of, "position": place, "hash": made})
            rows["tool_guardrail_tools"] += [
                {"of": made, "position": n, "hash": add("tool_guardrails", one)}
                for n, one in enumerate(tool["guardrails"])
            ]
        for place, one in enumerate(definition["handoffs"]):
            config = {name: value for name, value in one.items() if name != "agent"}
            made = add("handoff_configs", config)
            row = {**of, "position": place, "hash": made, "target": one["agent"]}
            rows["agent_handoffs"].append(row)
        for place, one in enumerate(definition["guardrails"]):
            row = {**of, "position": place, "hash": add("guardrails", one)}
            rows["agent_guardrails"].append(row)
        for place, one in enumerate(definition["mcp_servers"]):
            row = {**of, "position": place, "hash": add("mcp_servers", one)}
            rows["agent_mcp_servers"].append(row)
    return rows

"""The rows of a run whose state another version of the SDK wrote, as Perdure leaves them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, uuid7
from perdure.interruptions.digest import digest_v1
from tests.corpus.write_states import CONTEXT, STATES

KINDS = {"shell": "shell", "custom": "custom"}


@dataclass(frozen=True)
class Entry:
    """One state of the corpus, and what is to be found in it."""

    version: str
    name: str
    facts: dict[str, Any]
    state: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.version}-{self.name}"


def corpus() -> list[Entry]:
    """All states there are, by version of the SDK."""
    return [_read(file) for file in sorted(STATES.glob("*/*.json"))]


def _read(file: Path) -> Entry:
    read = json.loads(file.read_text(encoding="utf-8"))
    return Entry(file.parent.name, file.stem, read["facts"], read["state"])


async def park(conn: Connection, entry: Entry) -> UUID:
    """Write the rows of a run that rests on ``entry``: interrupted, or failed between two turns.

    Returns its id.
    """
    run_id, facts = uuid7(), entry.facts
    waits = bool(facts["pending"])
    status = "interrupted" if waits else "failed"
    async with conn.transaction():
        await conn.execute(
            "INSERT INTO perdure.runs (id, tenant_id, agent, current_agent, status, input, context,"
            " max_turns, turn, error_type, error_message, finished_at, started_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, 10, %s, %s, %s,"
            " CASE WHEN %s THEN NULL ELSE now() END, now())",
            (
                *(run_id, DEFAULT_TENANT, facts["agent"], facts["current_agent"], status),
                *(json.dumps(entry.state["original_input"]), json.dumps(CONTEXT), facts["turn"]),
                *((None, None) if waits else ("infrastructure", "stopped")),
                waits,
            ),
        )
        await conn.execute(
            "INSERT INTO perdure.segments (run_id, seq, tenant_id, status, outcome, epoch,"
            " executions, rested_at) VALUES (%s, 1, %s, 'rested', %s, 1, 1, now())",
            (run_id, DEFAULT_TENANT, status),
        )
        text = jsonsafe.dumps(entry.state)
        await conn.execute(
            "INSERT INTO perdure.run_states (id, run_id, seq, tenant_id, kind, schema_version,"
            " sdk_version, current_agent, turn, state, size_bytes)"
            " VALUES (%s, %s, 1, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(uuid7(), run_id, DEFAULT_TENANT, "interrupted" if waits else "handoff"),
                *(facts["schema_version"], facts["sdk_version"], facts["current_agent"]),
                *(facts["turn"], text, len(text)),
            ),
        )
        if waits:
            shown = entry.state["current_step"]["data"]["interruptions"]
            for pending, one in zip(facts["pending"], shown, strict=True):
                await _ask(conn, run_id, entry, pending, one["raw_item"])
    return run_id


async def _ask(
    conn: Connection, run_id: UUID, entry: Entry, pending: dict[str, Any], raw: dict[str, Any]
) -> None:
    scope = ""
    for run in entry.state["last_processed_response"]["functions"]:
        if "agent_run_state" in run:
            scope = run["tool_call"]["call_id"]
            outer = run["tool_call"]
            await _call(
                *(conn, run_id, "", scope, outer["name"], "agent", entry.facts["agent"]),
                *(json.loads(outer["arguments"]), None, "nested", "executing"),
            )
    arguments, text = _arguments(raw)
    kind = KINDS.get(entry.name, "function")
    call_id, tool = pending["call_id"], pending["tool"]
    id_ = await _call(
        *(conn, run_id, scope, call_id, tool, kind, pending["agent"]),
        *(arguments, text, "at_most_once", "awaiting_approval"),
    )
    given = arguments if text is None else text
    schema = _schema(entry.state, call_id)
    shown = {"name": tool, "call_id": call_id, "arguments": given, "schema": schema}
    digest = digest_v1(
        tenant_id=DEFAULT_TENANT,
        run_id=run_id,
        base_seq=1,
        scope=scope,
        call_id=call_id,
        tool=tool,
        schema=schema,
        arguments=given,
    )
    await conn.execute(
        "INSERT INTO perdure.interruptions (id, run_id, tenant_id, segment, base_seq, tool_call_id,"
        " type, agent, scope, tool, digest)"
        " VALUES (%s, %s, %s, 1, 1, %s, 'tool_approval', %s, %s, %s, %s)",
        (
            *(uuid7(), run_id, DEFAULT_TENANT, id_, pending["agent"], scope),
            *(json.dumps(shown), digest),
        ),
    )


async def _call(
    conn: Connection,
    run_id: UUID,
    scope: str,
    call_id: str,
    tool: str,
    kind: str,
    agent: str,
    arguments: Any,
    raw: str | None,
    effect: str,
    status: str,
) -> UUID:
    id_ = uuid7()
    await conn.execute(
        "INSERT INTO perdure.tool_calls (id, run_id, tenant_id, segment, base_seq, scope, call_id,"
        " tool, kind, agent, arguments, arguments_raw, effect, status, idempotency_key, attempt,"
        " epoch, started_at)"
        " VALUES (%s, %s, %s, 1, 1, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1, 1,"
        " CASE WHEN %s = 'executing' THEN now() END)",
        (
            *(id_, run_id, DEFAULT_TENANT, scope, call_id, tool, kind, agent),
            *(None if arguments is None else json.dumps(arguments), raw),
            *(effect, status, f"{run_id}:{scope}:{call_id}", status),
        ),
    )
    return id_


def _arguments(raw: dict[str, Any]) -> tuple[Any, str | None]:
    """Return what a call asks for as the ledger has it: an object, or a text."""
    if raw["type"] == "shell_call":
        return raw["action"], None
    if raw["type"] == "custom_tool_call":
        return None, raw["input"]
    return json.loads(raw["arguments"]), None


def _schema(state: dict[str, Any], call_id: str) -> Any:
    """Return the schema a function tool had when the state was written, nested ones' too."""
    for run in (state.get("last_processed_response") or {}).get("functions", ()):
        if run["tool_call"]["call_id"] == call_id:
            return run["tool"]["paramsJsonSchema"]
        if "agent_run_state" in run:
            return _schema(run["agent_run_state"], call_id)
    return None

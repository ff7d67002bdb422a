"""Rows as the engine would have left them, for tests of what comes after."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, uuid7
from perdure.interruptions.digest import digest_v1

REFUND_SCHEMA = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "cents": {"type": "integer"}},
}


@dataclass(frozen=True)
class Stop:
    """An interruption a run rests on, and its call."""

    id: UUID
    run_id: UUID
    call_id: UUID
    digest: str


async def insert_tenant(conn: Connection, name: str) -> UUID:
    tenant_id = uuid7()
    await conn.execute("INSERT INTO perdure.tenants (id, name) VALUES (%s, %s)", (tenant_id, name))
    return tenant_id


async def insert_run(
    conn: Connection,
    *,
    tenant_id: UUID = DEFAULT_TENANT,
    status: str = "interrupted",
    agent: str = "support",
    user_id: str | None = None,
    output: Any = None,
    error_type: str | None = None,
    segment: int = 1,
) -> UUID:
    """A run in ``status`` with its segments: those before ``segment`` interrupted."""
    run_id = uuid7()
    finished = status in ("completed", "failed", "cancelled")
    if status == "failed":
        error_type = error_type or "model_error"
    await conn.execute(
        """
        INSERT INTO perdure.runs (id, tenant_id, agent, current_agent, status, input, output,
            error_type, error_message, user_id, max_turns, segment, started_at, finished_at)
        VALUES (%(id)s, %(tenant)s, %(agent)s, %(agent)s, %(status)s, '"Refund order 42"',
            %(output)s::jsonb, %(error)s, %(error)s, %(user)s, 10, %(segment)s,
            CASE WHEN %(status)s <> 'queued' THEN now() END,
            CASE WHEN %(finished)s THEN now() END)
        """,
        {
            "id": run_id,
            "tenant": tenant_id,
            "agent": agent,
            "status": status,
            "output": None if output is None else jsonsafe.dumps(output),
            "error": error_type,
            "user": user_id,
            "segment": segment,
            "finished": finished,
        },
    )
    for seq in range(1, segment + 1):
        outcome = None if status in ("queued", "running") and seq == segment else "interrupted"
        if finished and seq == segment:
            outcome = status
        await conn.execute(
            """
            INSERT INTO perdure.segments (run_id, seq, tenant_id, status, outcome)
            VALUES (%s, %s, %s, %s, %s)
            """,
            (run_id, seq, tenant_id, status if outcome is None else "rested", outcome),
        )
    await conn.execute(
        """
        WITH head AS (INSERT INTO perdure.run_event_heads (run_id, seq) VALUES (%(id)s, 1))
        INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
        VALUES (%(id)s, 1, %(tenant)s, 'run.queued', '{"segment": 1}')
        """,
        {"id": run_id, "tenant": tenant_id},
    )
    return run_id


async def insert_call(
    conn: Connection,
    run_id: UUID,
    *,
    status: str,
    tool: str = "refund",
    arguments: dict[str, Any] | None = None,
    arguments_raw: str | None = None,
    output: Any = None,
    error: Any = None,
    base_seq: int = 1,
) -> UUID:
    call_id = uuid7()
    await conn.execute(
        """
        INSERT INTO perdure.tool_calls (id, run_id, tenant_id, segment, base_seq, scope, call_id,
            tool, kind, agent, arguments, arguments_raw, effect, status, attempt, idempotency_key,
            output, error, started_at, finished_at)
        SELECT %(id)s, id, tenant_id, segment, %(base_seq)s, '', %(call)s, %(tool)s, 'function',
            agent, %(arguments)s::jsonb, %(raw)s, 'at_most_once', %(status)s, 1, %(key)s,
            %(output)s::jsonb, %(error)s::jsonb,
            CASE WHEN %(status)s IN ('executing', 'succeeded', 'failed', 'uncertain')
                THEN now() END,
            CASE WHEN %(status)s IN ('succeeded', 'failed', 'rejected') THEN now() END
        FROM perdure.runs WHERE id = %(run)s
        """,
        {
            "id": call_id,
            "run": run_id,
            "base_seq": base_seq,
            "call": f"call_{call_id.hex[-8:]}",
            "tool": tool,
            "arguments": None if arguments is None else jsonsafe.dumps(arguments),
            "raw": arguments_raw,
            "status": status,
            "key": call_id.hex,
            "output": None if output is None else jsonsafe.dumps(output),
            "error": None if error is None else json.dumps(error),
        },
    )
    return call_id


async def insert_stop(
    conn: Connection,
    run_id: UUID,
    *,
    type: str = "tool_approval",
    arguments: dict[str, Any] | None = None,
    expires_in: float | None = None,
    tool: str = "refund",
    question: str | None = None,
    schema: dict[str, Any] | None = None,
) -> Stop:
    """A pending interruption of ``run_id`` with the call it is about."""
    arguments = {"order_id": "42", "cents": 1999} if arguments is None else arguments
    call_status = "uncertain" if type == "uncertain_effect" else "awaiting_approval"
    call_id = await insert_call(conn, run_id, status=call_status, tool=tool, arguments=arguments)
    row = await (
        await conn.execute(
            "SELECT tenant_id, call_id FROM perdure.tool_calls WHERE id = %s", (call_id,)
        )
    ).fetchone()
    assert row is not None
    digest = digest_v1(
        tenant_id=row["tenant_id"],
        run_id=run_id,
        base_seq=1,
        scope="",
        call_id=row["call_id"],
        tool=tool,
        schema=REFUND_SCHEMA,
        arguments=arguments,
    )
    shown = {
        "name": tool,
        "call_id": row["call_id"],
        "arguments": arguments,
        "schema": REFUND_SCHEMA,
    }
    stop_id = uuid7()
    await conn.execute(
        """
        INSERT INTO perdure.interruptions (id, run_id, tenant_id, segment, base_seq, tool_call_id,
            type, agent, tool, question, schema, digest, expires_at)
        SELECT %(id)s, id, tenant_id, segment, 1, %(call)s, %(type)s, agent, %(tool)s::jsonb,
            %(question)s, %(schema)s::jsonb, %(digest)s,
            now() + make_interval(secs => %(expires_in)s)
        FROM perdure.runs WHERE id = %(run)s
        """,
        {
            "id": stop_id,
            "call": call_id,
            "type": type,
            "tool": jsonsafe.dumps(shown),
            "question": question,
            "schema": None if schema is None else jsonsafe.dumps(schema),
            "digest": digest,
            "run": run_id,
            "expires_in": expires_in,
        },
    )
    return Stop(stop_id, run_id, call_id, digest)


async def insert_state(
    conn: Connection, run_id: UUID, *, seq: int = 1, kind: str = "interrupted", active: bool = True
) -> UUID:
    state_id = uuid7()
    await conn.execute(
        """
        INSERT INTO perdure.run_states (id, run_id, seq, tenant_id, kind, schema_version,
            sdk_version, current_agent, turn, state, size_bytes, is_active)
        SELECT %s, id, %s, tenant_id, %s, '1.0', '0.24.0', agent, 1, '{"turn": 1}', 11, %s
        FROM perdure.runs WHERE id = %s
        """,
        (state_id, seq, kind, active, run_id),
    )
    return state_id


async def insert_item(
    conn: Connection, run_id: UUID, *, seq: int, text: str | None, item: Any
) -> UUID:
    item_id = uuid7()
    await conn.execute(
        """
        INSERT INTO perdure.run_items (id, run_id, seq, tenant_id, type, role, agent, text, item)
        SELECT %s, id, %s, tenant_id, 'message', 'assistant', agent, %s, %s::jsonb
        FROM perdure.runs WHERE id = %s
        """,
        (item_id, seq, text, jsonsafe.dumps(item), run_id),
    )
    return item_id


async def insert_reply(
    conn: Connection, run_id: UUID, *, tokens: int = 10, superseded: bool = False
) -> UUID:
    """A model reply that used ``tokens`` in and as many out."""
    reply_id = uuid7()
    await conn.execute(
        """
        WITH reply AS (
            INSERT INTO perdure.model_responses (id, run_id, tenant_id, segment, base_seq, scope,
                agent, input_hash, model, output, latency_ms, superseded)
            SELECT %(id)s, id, tenant_id, segment, 0, '', agent, 'h', 'some-model', '[]', 12,
                %(superseded)s
            FROM perdure.runs WHERE id = %(run)s
            RETURNING *
        ), used AS (
            INSERT INTO perdure.request_usage_entries (id, run_id, model_response_id, tenant_id,
                agent, model, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens,
                total_tokens)
            SELECT id, run_id, id, tenant_id, agent, model, %(n)s, 1, %(n)s, 2, 2 * %(n)s
            FROM reply
            RETURNING *
        )
        INSERT INTO perdure.usage_metrics AS m (run_id, agent, model, tenant_id, requests,
            unpriced_requests, input_tokens, cached_input_tokens, cache_write_tokens,
            output_tokens, reasoning_tokens, total_tokens, cost_usd)
        SELECT run_id, agent, model, tenant_id, 1, 1, input_tokens, cached_input_tokens, 0,
            output_tokens, reasoning_tokens, total_tokens, 0 FROM used
        ON CONFLICT (run_id, agent, model) DO UPDATE SET requests = m.requests + 1,
            unpriced_requests = m.unpriced_requests + 1,
            input_tokens = m.input_tokens + excluded.input_tokens,
            cached_input_tokens = m.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = m.output_tokens + excluded.output_tokens,
            reasoning_tokens = m.reasoning_tokens + excluded.reasoning_tokens,
            total_tokens = m.total_tokens + excluded.total_tokens
        """,
        {"id": reply_id, "n": tokens, "superseded": superseded, "run": run_id},
    )
    return reply_id


async def fetch(conn: Connection, statement: str, *params: Any) -> dict[str, Any]:
    """The one row of a statement."""
    row = await (await conn.execute(statement.encode(), params)).fetchone()
    assert row is not None
    return row


async def enqueued(conn: Connection, run_id: UUID) -> list[str]:
    """Ids of the DBOS workflows of a run, in order."""
    cursor = await conn.execute(
        "SELECT workflow_uuid FROM dbos.workflow_status WHERE workflow_uuid LIKE %s"
        " ORDER BY workflow_uuid",
        (f"{run_id}:%",),
    )
    return [row["workflow_uuid"] for row in await cursor.fetchall()]

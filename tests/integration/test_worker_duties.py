"""What workers do beside running segments."""

from __future__ import annotations

import asyncio

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import open_pool
from perdure.worker.purge import keep_purging


async def test_what_is_kept_no_longer_is_deleted_and_nothing_else(database_url: str) -> None:
    async with await open_pool(database_url) as pool, pool.connection() as conn:
        for key, age in (("old", "25 hours"), ("new", "23 hours")):
            await conn.execute(
                "INSERT INTO perdure.idempotency_keys"
                " (tenant_id, route, key, request_hash, created_at, expires_at)"
                " VALUES (%(tenant)s, '/', %(key)s, '', now() - %(age)s::interval,"
                " now() - %(age)s::interval + interval '24 hours')",
                {"tenant": DEFAULT_TENANT, "key": key, "age": age},
            )
        for age in ("91 days", "89 days"):
            await conn.execute(
                "INSERT INTO perdure.repairs (id, kind, run_id, segment, repaired_by, repaired_at)"
                " VALUES (gen_random_uuid(), 'taken_over', gen_random_uuid(), 1, 'one',"
                " now() - %s::interval)",
                (age,),
            )
        for label, ended, revoked in (
            ("expired", "31 days", None),
            ("revoked", "-1 day", "31 days"),
            ("late", "29 days", "29 days"),
            ("active", "-1 day", None),
        ):
            await conn.execute(
                "INSERT INTO perdure.user_sessions (id, tenant_id, user_id, token_hash, token_hint,"
                " label, only_one, created_by, created_at, expires_at, revoked_at)"
                " VALUES (gen_random_uuid(), %(tenant)s, 'alice',"
                " sha256(convert_to(%(label)s::text, 'utf8')), 'pdu_', %(label)s::text, false,"
                " '{}', now() - interval '60 days', now() - %(ended)s::interval,"
                " now() - %(revoked)s::interval)",
                {"tenant": DEFAULT_TENANT, "label": label, "ended": ended, "revoked": revoked},
            )
        purging = asyncio.create_task(keep_purging(pool))
        async with asyncio.timeout(10):
            while True:
                cursor = await conn.execute("SELECT key FROM perdure.idempotency_keys")
                left = [row["key"] for row in await cursor.fetchall()]
                cursor = await conn.execute(
                    "SELECT (now() - repaired_at) > interval '90 days' AS old FROM perdure.repairs"
                )
                repairs = [row["old"] for row in await cursor.fetchall()]
                cursor = await conn.execute("SELECT label FROM perdure.user_sessions")
                tokens = {row["label"] for row in await cursor.fetchall()}
                if left != ["old", "new"] and len(repairs) < 2 and len(tokens) < 4:
                    break
        purging.cancel()
        assert left == ["new"]
        assert repairs == [False]
        assert tokens == {"late", "active"}
        # How many there ever were is not forgotten.
        row = await (
            await conn.execute("SELECT kind, repairs FROM perdure.repairs_purged")
        ).fetchone()
        assert row == {"kind": "taken_over", "repairs": 1}

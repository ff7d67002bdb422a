"""A worker killed in the middle of a delivery: another one makes it, with the same id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.access.principals import DEFAULT_TENANT
from perdure.webhooks import deliveries, store
from perdure.webhooks.addresses import Allowed
from perdure.webhooks.store import WebhookFields
from tests.crash.nursery import Nursery
from tests.crash.story import story
from tests.engine_support import eventually
from tests.loopback.receiver import HANG, receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_delivery_cut_off_by_its_workers_death_is_made_again_with_the_same_id(
    database_url: str, tmp_path: Path, nursery: Nursery
) -> None:
    async with story(database_url, tmp_path / "log", nursery) as told, receiver() as there:
        allowed = Allowed.parse(["127.0.0.1"])
        async with told.pool.connection() as conn:
            made = await store.create_webhook(
                conn, WebhookFields(there.url), tenant_id=DEFAULT_TENANT, allowed=allowed, keys=[]
            )
            key = {"tenant_id": DEFAULT_TENANT, "webhook_id": made["id"]}
            secret = await store.secret_of(conn, keys=[], **key)
            await deliveries.send_test(conn, **key)
        there.answers = [HANG]
        await told.worker()
        first = await there.request(1)
        await nursery.kill(told.worker_pid)
        await told.worker()
        second = await there.request(2)

        async def ended() -> list[dict[str, Any]]:
            return await told.rows(
                "SELECT d.attempt, w.status AS workflow FROM perdure.webhook_deliveries d"
                " JOIN dbos.workflow_status w ON w.workflow_uuid = d.id::text || ':1'"
                " WHERE d.status = 'delivered' AND w.status = 'SUCCESS'"
            )

        # The same attempt, begun again: the workflow of the dead worker was taken over.
        assert await eventually(ended) == [{"attempt": 1, "workflow": "SUCCESS"}]
        assert (first.id, first.body) == (second.id, second.body)
        assert first.verified(secret) == second.verified(secret)
        assert len(there.came) == 2
        # Repairs are told of runs alone.
        assert await told.rows("SELECT FROM perdure.repairs WHERE segment <> 1") == []
        await nursery.kill(told.worker_pid)

"""Webhooks from end to end: what happens to runs comes to real receivers, signed, at least once."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import httpx
import pytest
from agents import Agent, function_tool
from standardwebhooks.webhooks import WebhookVerificationError
from typer.testing import CliRunner

from perdure import Policy
from perdure.access.keys import create_key
from perdure.access.principals import DEFAULT_TENANT
from perdure.cli.app import app as commands
from perdure.engine import Engine
from perdure.web import answers
from perdure.webhooks.addresses import Allowed
from perdure.webhooks.sending import Sender
from perdure.worker import delivering
from perdure.worker.delivering import Deliverer
from tests.engine_support import (
    SECONDS,
    approve,
    call,
    eventually,
    query,
    rested,
    running,
    turns,
)
from tests.factories import insert_tenant
from tests.integration.api.reading import pointers, read, read_list, refused
from tests.loopback.api import serving
from tests.loopback.certificates import certified
from tests.loopback.receiver import HANG, Answer, Came, Receiver, receiver


@function_tool(needs_approval=True)
def refund(order_id: str) -> str:
    return f"refunded {order_id}"


def _agent() -> Agent[Any]:
    return Agent(
        name="support", tools=[refund], model=turns([call("refund", "c1", order_id="42")], "Done.")
    )


@dataclass
class Bench:
    """An engine with a worker, its API for an administrator, and its deliverer."""

    engine: Engine
    client: httpx.AsyncClient
    deliverer: Deliverer

    async def webhook(self, url: str, **fields: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/webhooks", json={"url": url, **fields})
        return read(answers.WebhookSecret, answer, 201)

    async def deliveries(self, webhook: dict[str, Any], **filters: Any) -> list[dict[str, Any]]:
        path = f"/v1/webhooks/{webhook['id']}/deliveries"
        return read_list(answers.Delivery, await self.client.get(path, params=filters))

    async def delivery(self, id: str, wait: float = SECONDS) -> dict[str, Any]:
        answer = await self.client.get(f"/v1/deliveries/{id}", params={"wait": wait})
        return read(answers.Delivery, answer)

    async def test(self, webhook: dict[str, Any]) -> dict[str, Any]:
        answer = await self.client.post(f"/v1/webhooks/{webhook['id']}/test")
        return read(answers.Delivery, answer, 202)

    async def key(self, *roles: str, **fields: Any) -> dict[str, str]:
        async with self.engine.pool.connection() as conn:
            made = await create_key(conn, roles=roles, **fields)
        return {"Authorization": f"Bearer {made.secret}"}


@asynccontextmanager
async def working(url: str, **options: Any) -> AsyncIterator[Bench]:
    async with running(url, _agent(), **options) as engine:
        assert engine._worker is not None
        bench = Bench(engine, httpx.AsyncClient(), engine._worker._deliverer)
        bench.deliverer.delays = (0.0, 0.0)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.api()),
            base_url="http://api.test",
            headers=await bench.key("admin"),
            timeout=60,
        ) as client:
            bench.client = client
            yield bench


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_WEBHOOK_ALLOW", "127.0.0.1")
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k1:{key}")


async def test_what_happens_to_a_run_is_told_to_who_wants_to_hear_of_it(database_url: str) -> None:
    async with working(database_url) as bench, receiver() as all_of_it, receiver() as ends:
        everything = await bench.webhook(all_of_it.url)
        only_ends = await bench.webhook(ends.url, events=["run.completed", "run.cancelled"])
        run = await rested(bench.engine, "support")
        created = (await all_of_it.request(1)).verified(everything["secret"])
        shown = await bench.client.get(f"/v1/interruptions/{run.interruptions[0].id}")
        assert created["type"] == "interruption.created"
        assert created["data"] == {"interruption": shown.json()}

        run = await approve(bench.engine, run)
        came = [(await all_of_it.request(n)).verified(everything["secret"]) for n in (2, 3)]
        told = {one["type"]: one for one in came}
        assert set(told) == {"interruption.decided", "run.completed"}
        assert told["interruption.decided"]["data"]["interruption"]["status"] == "approved"
        whole = (await bench.client.get(f"/v1/runs/{run.id}")).json()
        assert told["run.completed"]["data"] == {"run": whole}
        assert whole["output"] == "Done."
        first = await ends.request(1)
        assert first.verified(only_ends["secret"]) == told["run.completed"]
        assert first.id not in [one.id for one in all_of_it.came]
        assert first.headers["content-type"] == "application/json"
        assert first.headers["user-agent"].startswith("perdure/")
        assert first.headers["host"] == f"127.0.0.1:{ends.port}"

        # A run that is cancelled closes its question; nothing was told twice.
        other = await rested(bench.engine, "support")
        await bench.engine.cancel(other.id)
        assert (await ends.request(2)).verified(only_ends["secret"])["type"] == "run.cancelled"
        await all_of_it.request(6)
        rows = await bench.deliveries(everything, order="asc")
        assert sorted(one["event"] for one in rows) == sorted(
            ["interruption.created", "interruption.decided"] * 2
            + ["run.completed", "run.cancelled"]
        )
        for row in rows:
            assert UUID(row["id"]).version == 7
            assert UUID(row["id"]).variant == RFC_4122
            row = await bench.delivery(row["id"])
            assert (row["status"], row["attempt"], row["status_code"]) == ("delivered", 1, 200)
            [sent] = [one for one in all_of_it.came if one.id == row["id"]]
            assert sent.body.decode() == row["payload"]
            assert row["response"] == "ok"
        # Each attempt was a DBOS workflow, and it has ended.
        workflows = await query(
            bench.engine,
            "SELECT workflow_uuid, status, queue_name FROM dbos.workflow_status"
            " WHERE name = 'perdure_delivery'",
        )
        assert {one["workflow_uuid"] for one in workflows} >= {f"{row['id']}:1" for row in rows}
        assert {one["queue_name"] for one in workflows} == {"perdure_deliveries"}


async def test_what_a_policy_settles_at_once_is_told_to_nobody(database_url: str) -> None:
    no_refunds = Policy("no refunds", tool="refund", then="deny")
    async with working(database_url, policies=[no_refunds]) as bench, receiver() as all_of_it:
        webhook = await bench.webhook(all_of_it.url)
        run = await rested(bench.engine, "support")
        assert (run.status, run.error) == ("completed", None)
        decided = await query(bench.engine, "SELECT status FROM perdure.interruptions")
        assert decided == [{"status": "rejected"}]
        assert [one["event"] for one in await bench.deliveries(webhook)] == ["run.completed"]


async def test_what_is_not_taken_is_tried_again_and_can_be_sent_again(database_url: str) -> None:
    async with working(database_url) as bench, receiver() as there:
        webhook = await bench.webhook(there.url)
        # Every kind of trouble, then an answer: the same id and bytes each time.
        there.answers = [
            Answer(500, body=b"\xff\x00" + b"x" * 9000),
            Answer(302, (("Location", there.url),)),
        ]
        made = await bench.test(webhook)
        await there.request(3)
        done = await _ended(bench, made["id"])
        assert (done["status"], done["attempt"], done["status_code"]) == ("delivered", 3, 200)
        assert [one["status_code"] for one in done["attempts"]] == [500, 302, 200]
        assert done["attempts"][1]["error"] == "It answered 302: redirects are not followed."
        assert len({(one.id, one.body) for one in there.came}) == 1
        for one in there.came:
            assert one.method == "POST"
            assert one.verified(webhook["secret"])["data"] == {"webhook_id": webhook["id"]}

        # Until the schedule is over; then by hand, which begins it anew.
        there.answers = [Answer(503, body=b"no")] * 3
        failed = await _ended(bench, (await bench.test(webhook))["id"])
        assert (failed["status"], failed["attempt"], failed["error"]) == (
            "failed",
            3,
            "It answered 503.",
        )
        assert failed["response"] == "no"
        assert [one["id"] for one in await bench.deliveries(webhook, status="failed")] == [
            failed["id"]
        ]
        again = await bench.client.post(f"/v1/deliveries/{failed['id']}/resend")
        assert read(answers.Delivery, again, 202)["status"] == "pending"
        done = await _ended(bench, failed["id"])
        assert (done["status"], done["attempt"]) == ("delivered", 4)
        assert there.came[-1].body == there.came[-2].body

        # What was delivered can be sent again too; who has it already knows it by its id.
        await bench.client.post(f"/v1/deliveries/{done['id']}/resend")
        assert (await there.request(8)).id == done["id"]
        assert (await _ended(bench, done["id"]))["attempt"] == 5

        # 410: nobody is there any more, and nothing is sent until somebody enables it.
        there.answers = [Answer(410)]
        gone = await _ended(bench, (await bench.test(webhook))["id"])
        assert (gone["status"], gone["attempt"]) == ("failed", 1)
        shown = read(answers.Webhook, await bench.client.get(f"/v1/webhooks/{webhook['id']}"))
        assert (shown["enabled"], shown["disabled_reason"]) == (False, "It answered 410 Gone.")
        audit = await bench.client.get("/v1/audit", params={"kind": "webhook.disabled"})
        [told] = read_list(answers.AuditEntry, audit)
        assert (told["subject"]["id"], told["actor"]) == (webhook["id"], None)
        assert told["details"] == {"reason": "It answered 410 Gone."}
        await rested(bench.engine, "support")
        refused(
            await bench.client.post(f"/v1/deliveries/{gone['id']}/resend"), 409, "invalid_state"
        )
        assert len(there.came) == 9
        enabled = await bench.client.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": True})
        assert read(answers.Webhook, enabled)["enabled"]
        await bench.client.post(f"/v1/deliveries/{gone['id']}/resend")
        assert (await _ended(bench, gone["id"]))["status"] == "delivered"
        # Disabled by hand: what waits has failed, and says why.
        there.answers = [Answer(500)]
        bench.deliverer.delays = (3600.0,)
        waits = await bench.test(webhook)
        assert (await bench.delivery(waits["id"]))["status"] == "pending"
        await bench.client.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False})
        waits = await bench.delivery(waits["id"])
        assert (waits["status"], waits["error"]) == ("failed", "The webhook was disabled.")


async def _ended(bench: Bench, id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        delivery = await bench.delivery(id, wait=0)
        return delivery if delivery["status"] != "pending" else None

    found: dict[str, Any] = await eventually(look)
    return found


async def test_a_question_comes_with_a_link_that_decides_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_SECRET_KEYS", "s1:" + base64.b64encode(os.urandom(32)).decode())
    monkeypatch.setenv("PERDURE_PUBLIC_URL", "https://ask.example/x")
    async with working(database_url) as bench, receiver() as there:
        there.answers = [Answer(500)]
        webhook = await bench.webhook(there.url, link_subject="refunds@example.com")
        run = await rested(bench.engine, "support")
        told = (await there.request(2)).verified(webhook["secret"])
        assert there.came[0].body == there.came[1].body
        link = told["data"]["link"]
        assert link["subject"] == "refunds@example.com"
        assert link["url"].startswith("https://ask.example/x/d/")
        token = link["url"].rpartition("/")[2]
        # The token was sent; it is kept nowhere and shown to nobody else.
        delivery = await bench.delivery(there.came[0].id)
        assert token not in json.dumps(delivery)
        assert delivery["payload"].replace(f"perdure-link-{delivery['id']}", token) == (
            there.came[0].body.decode()
        )
        kept = await query(
            bench.engine,
            "SELECT to_jsonb(d)::text AS row FROM perdure.webhook_deliveries d"
            " UNION ALL SELECT to_jsonb(l)::text FROM perdure.decision_links l",
        )
        assert len(kept) == 2
        assert token not in str(kept)
        audit = await bench.client.get("/v1/audit", params={"kind": "link.created"})
        [told] = read_list(answers.AuditEntry, audit)
        assert (told["actor"]["type"], told["actor"]["id"]) == ("webhook", webhook["id"])
        assert told["details"]["subject"] == "refunds@example.com"
        answer = await bench.client.post(
            f"/d/{token}", data={"token": token, "decision": "approve"}, headers={"Origin": "null"}
        )
        assert answer.status_code == 303
        run = await run.wait(SECONDS)
        assert run.status == "completed"
        # Sent again it is the same, though there is nothing left to decide.
        await bench.client.post(f"/v1/deliveries/{delivery['id']}/resend")
        same = [one async for one in _sent(there, delivery["id"], 3)]
        assert {one.body for one in same} == {there.came[0].body}


async def _sent(there: Receiver, id: str, times: int) -> AsyncIterator[Came]:
    """What came under an id, once it has come so often."""
    number = 0
    while times:
        number += 1
        came = await there.request(number)
        if came.id == id:
            times -= 1
            yield came


async def test_a_receiver_that_hangs_or_never_ends_is_left_in_time_and_keeps_nobody_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(database_url) as bench, receiver() as slow, receiver() as quick:
        bench.deliverer.delays = ()
        bench.deliverer.sender._seconds = 0.5
        hanging, other = await bench.webhook(slow.url), await bench.webhook(quick.url)
        slow.answers = [HANG, Answer(200, body=b"y" * 1000, endless=True)]
        hung = await _ended(bench, (await bench.test(hanging))["id"])
        assert (hung["status"], hung["error"]) == (
            "failed",
            "There was no whole answer within 0.5 s.",
        )
        endless = await _ended(bench, (await bench.test(hanging))["id"])
        assert (endless["status"], endless["response"]) == ("delivered", "y" * 500)

        # Of one webhook only so many are under way at once: the other's is sent beside them.
        bench.deliverer.sender._seconds = SECONDS
        monkeypatch.setattr(delivering, "AT_ONCE_PER_WEBHOOK", 2)
        slow.answers = [HANG] * 4
        ids = [(await bench.test(hanging))["id"] for _ in range(4)]
        await slow.request(4)
        assert (await bench.delivery((await bench.test(other))["id"]))["status"] == "delivered"
        assert len(slow.came) == 4
        # The connections end; what waited follows.
        slow.answers = []
        slow.stop()
        statuses = {(await _ended(bench, id))["status"] for id in ids}
        assert statuses == {"failed", "delivered"}
        assert len(slow.came) == 6


async def test_what_was_resolved_is_what_is_connected_to(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(database_url) as bench, receiver() as there:
        bench.deliverer.delays = ()
        asked: list[str] = []
        answers_of_dns = [["127.0.0.1"], ["127.0.0.2"], ["93.184.216.34", "127.0.0.2"], []]

        def resolve(host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            return [(2, 1, 6, "", (address, port)) for address in answers_of_dns[len(asked) - 1]]

        monkeypatch.setattr("perdure.webhooks.sending.socket.getaddrinfo", resolve)
        webhook = await bench.webhook(f"https://hooks.example:{there.port}/x")
        await query(
            bench.engine,
            "UPDATE perdure.webhooks SET url = %s",
            f"http://127.0.0.1:{there.port}/hook",
        )
        # As the operator would allow it by name: http, and an address in an allowed range.
        allowed = bench.deliverer.sender._allowed
        monkeypatch.setattr(
            bench.deliverer.sender,
            "_allowed",
            type(allowed)(frozenset({"hooks.example"}), allowed.networks),
        )
        await query(
            bench.engine,
            "UPDATE perdure.webhooks SET url = %s",
            f"http://hooks.example:{there.port}/hook",
        )
        done = await _ended(bench, (await bench.test(webhook))["id"])
        assert done["status"] == "delivered"
        assert there.came[0].headers["host"] == f"hooks.example:{there.port}"
        assert asked == ["hooks.example"]
        # Whatever it resolves to later is looked at again, all of it.
        monkeypatch.setattr(bench.deliverer.sender, "_allowed", type(allowed)())
        await query(bench.engine, "UPDATE perdure.webhooks SET url = 'https://hooks.example/'")
        for part in ("leads to 127.0.0.2, which is loopback", "leads to 127.0.0.2", "nowhere"):
            done = await _ended(bench, (await bench.test(webhook))["id"])
            assert done["status"] == "failed"
            assert part in done["error"]
        assert len(there.came) == 1


async def test_the_certificate_has_to_be_for_the_name_not_for_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = certified(tmp_path, "hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("perdure.webhooks.sending.socket.getaddrinfo", resolve)
    async with receiver(context) as there, Sender(Allowed.parse(["127.0.0.1"])) as sender:
        for name in ("hooks.example", "other.example"):
            sent = await sender.post(f"https://{name}:{there.port}/x", b"{}", {"webhook-id": "7"})
            if name == "hooks.example":
                assert (sent.status_code, sent.error) == (200, None)
            else:
                assert sent.status_code is None
                assert "certificate is not valid for 'other.example'" in str(sent.error)
        assert there.names == ["hooks.example", "other.example"]
        assert [one.headers["host"] for one in there.came] == [f"hooks.example:{there.port}"]


async def test_an_attempt_nobody_heard_of_is_followed_by_another(database_url: str) -> None:
    async with working(database_url) as bench, receiver() as there:
        webhook = await bench.webhook(there.url)
        first = await _ended(bench, (await bench.test(webhook))["id"])
        lost = "UPDATE perdure.webhook_deliveries SET status = 'pending', finished_at = NULL,"
        for workflow in (
            "UPDATE dbos.workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = %s",
            "DELETE FROM dbos.workflow_status WHERE workflow_uuid = %s",
            # As by a claim whose answer was lost: this worker lives and knows nothing of it.
            (
                "UPDATE dbos.workflow_status SET status = 'PENDING', owner_xid = 'lost',"
                " executor_id = (SELECT id FROM perdure.executors WHERE stopped_at IS NULL)"
                " WHERE workflow_uuid = %s"
            ),
        ):
            before = await bench.delivery(first["id"])
            await query(bench.engine, workflow, f"{first['id']}:{before['attempt']}")
            await query(bench.engine, f"{lost} queued_at = now() - interval '3 minutes'")
            assert await bench.deliverer.try_lost_again() == 1
            after = await _ended(bench, first["id"])
            assert after["attempt"] == before["attempt"] + 1
            assert [one["error"] for one in after["attempts"][-2:]] == [
                "Nothing was heard of it.",
                None,
            ]
        # One that is under way, or waits in its queue, is left alone.
        for age in ("1 minute", "3 minutes"):
            await query(
                bench.engine,
                "UPDATE dbos.workflow_status SET status = 'ENQUEUED', executor_id = NULL,"
                " started_at_epoch_ms = NULL, priority = 0 WHERE workflow_uuid = %s"
                " AND %s <> '1 minute'",
                f"{first['id']}:{after['attempt']}",
                age,
            )
            await query(bench.engine, f"{lost} queued_at = now() - interval '{age}'")
            assert await bench.deliverer.try_lost_again() == 0
        assert len({one.id for one in there.came}) == 1

        # A month later nothing of it is left, in DBOS's tables either.
        await _ended(bench, (await bench.test(webhook))["id"])
        await query(
            bench.engine,
            "UPDATE perdure.webhook_deliveries SET status = 'failed', queued_at = NULL,"
            " finished_at = now() - interval '31 days' WHERE id = %s",
            first["id"],
        )
        await query(
            bench.engine,
            "UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE workflow_uuid LIKE %s",
            f"{first['id']}:%",
        )
        await bench.deliverer.purge()
        assert len(await bench.deliveries(webhook)) == 1
        for table in ("workflow_status", "workflow_input", "workflow_output"):
            left = await query(
                bench.engine,
                f"SELECT FROM dbos.{table} WHERE workflow_uuid LIKE %s",
                f"{first['id']}:%",
            )
            assert left == []


async def test_webhooks_are_the_administrators_and_their_secrets_are_shown_once(
    database_url: str,
) -> None:
    async with working(database_url) as bench, receiver() as there:
        reader = await bench.key("runs:read")
        async with bench.engine.pool.connection() as conn:
            elsewhere = await bench.key("admin", tenant_id=await insert_tenant(conn, "other"))
        body = {"url": f"{there.url}/T0pS3cret", "description": "ops"}
        key = {"Idempotency-Key": "one"}
        first = await bench.client.post("/v1/webhooks", json=body, headers=key)
        made = read(answers.WebhookSecret, first, 201)
        path = f"/v1/webhooks/{made['id']}"
        assert first.headers["location"] == path
        # The same request again has the same answer; what is kept of it has no secret.
        replayed = await bench.client.post("/v1/webhooks", json=body, headers=key)
        assert (replayed.json(), replayed.headers["idempotent-replayed"]) == (made, "true")
        [kept] = await query(bench.engine, "SELECT body FROM perdure.idempotency_keys")
        [row] = await query(bench.engine, "SELECT secret FROM perdure.webhooks")
        assert made["secret"].startswith("whsec_")
        for place in (bytes(kept["body"]).decode(), row["secret"]):
            assert made["secret"].removeprefix("whsec_") not in place
        shown = {name: value for name, value in made.items() if name != "secret"}
        assert read(answers.Webhook, await bench.client.get(path, headers=reader)) == shown
        listed = await bench.client.get("/v1/webhooks", headers=reader)
        assert read_list(answers.Webhook, listed) == [shown]

        # For a day after it was replaced the old secret signs as well.
        new = read(answers.WebhookSecret, await bench.client.post(f"{path}/rotate"))
        assert new["secret"] != made["secret"]
        assert new["old_secret_until"] > new["created_at"]
        delivery = await bench.test(made)
        came = await there.request(1)
        for secret in (made["secret"], new["secret"]):
            assert came.verified(secret)["type"] == "webhook.test"
        await query(bench.engine, "UPDATE perdure.webhooks SET old_secret_until = now()")
        await bench.test(made)
        assert (await there.request(2)).verified(new["secret"])
        with pytest.raises(WebhookVerificationError):
            there.came[1].verified(made["secret"])

        for method, where, status, code in (
            ("POST", "/v1/webhooks", 403, "forbidden"),
            ("PATCH", path, 403, "forbidden"),
            ("DELETE", path, 403, "forbidden"),
            ("POST", f"{path}/test", 403, "forbidden"),
            ("POST", f"{path}/rotate", 403, "forbidden"),
            ("POST", f"/v1/deliveries/{delivery['id']}/resend", 403, "forbidden"),
        ):
            bodiless = where.endswith(("test", "rotate", "resend"))
            sent = {} if bodiless else body
            answer = await bench.client.request(method, where, headers=reader, json=sent)
            refused(answer, status, code)
            if where != "/v1/webhooks":
                answer = await bench.client.request(method, where, headers=elsewhere, json=sent)
                refused(answer, 404, "not_found")
        for where in (path, f"{path}/deliveries", f"/v1/deliveries/{delivery['id']}"):
            refused(await bench.client.get(where, headers=elsewhere), 404, "not_found")
        assert (
            read_list(answers.Webhook, await bench.client.get("/v1/webhooks", headers=elsewhere))
            == []
        )

        for wrong, pointer in (
            ({"url": "http://example.com/"}, "/url"),
            ({"url": "https://169.254.169.254/latest"}, "/url"),
            ({"url": "https://[::1]/"}, "/url"),
            ({"url": there.url, "events": ["run.exploded"]}, "/events/0"),
            ({"url": there.url, "events": []}, "/events"),
            ({"url": there.url, "secret": "mine"}, "/secret"),
            ({"url": there.url, "link_subject": ""}, "/link_subject"),
            ({}, "/url"),
        ):
            answer = await bench.client.post("/v1/webhooks", json=wrong)
            assert pointers(refused(answer, 422, "validation_error")) == [pointer]
        answer = await bench.client.patch(path, json={"url": "https://10.0.0.1/"})
        assert pointers(refused(answer, 422, "validation_error")) == ["/url"]
        changed = await bench.client.patch(path, json={"events": ["run.failed", "run.failed"]})
        assert read(answers.Webhook, changed)["events"] == ["run.failed"]
        assert changed.json()["description"] == "ops"
        assert (await bench.client.delete(path)).status_code == 204
        refused(await bench.client.get(path), 404, "not_found")
        assert await query(bench.engine, "SELECT FROM perdure.webhook_deliveries") == []
        # Each change is in the audit, once, and nothing of what lets one in.
        listed = await bench.client.get("/v1/audit", params={"order": "asc"}, headers=reader)
        refused(listed, 403, "forbidden")
        listed = await bench.client.get("/v1/audit", params={"order": "asc"})
        told = [
            one
            for one in read_list(answers.AuditEntry, listed)
            if one["subject"] == {"type": "webhook", "id": made["id"]}
        ]
        assert [one["kind"] for one in told] == [
            *("webhook.created", "webhook.rotated", "webhook.changed", "webhook.deleted")
        ]
        assert {one["actor"]["type"] for one in told} == {"service_key"}
        assert told[0]["details"]["url"] == f"http://127.0.0.1:{there.port}"
        assert told[2]["details"]["changed"] == ["events"]
        assert told[2]["details"]["events"] == ["run.failed"]
        for secret in (made["secret"], new["secret"], "T0pS3cret"):
            assert secret not in json.dumps(told)


async def test_webhooks_and_links_from_a_terminal(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_SECRET_KEYS", "s1:" + base64.b64encode(os.urandom(32)).decode())
    async with (
        working(database_url) as bench,
        receiver() as there,
        serving(bench.engine.api()) as server,
    ):
        bench.deliverer.delays = (3600.0,)
        key = bench.client.headers["authorization"].removeprefix("Bearer ")

        async def perdure(*arguments: str, code: int = 0) -> Any:
            env = {"PERDURE_URL": server.url, "PERDURE_API_KEY": key}
            done = await asyncio.to_thread(CliRunner().invoke, commands, arguments, env=env)
            assert done.exit_code == code, done.output
            return json.loads(done.stdout) if "--json" in arguments else done

        there.answers = [Answer(), Answer(500, body=b"no")]
        assert "There are no webhooks" in (await perdure("webhooks", "list")).stderr
        described = ("--event", "run.failed", "--description", "ops")
        made = await perdure("webhooks", "create", there.url, *described, "--json")
        listed = (await perdure("webhooks", "list")).stdout
        assert made["secret"] not in listed
        assert f"{made['id']}  enabled  run.failed  ops" in listed
        assert "Delivered in" in (await perdure("webhooks", "test", made["id"])).stdout
        failed = await perdure("webhooks", "test", made["id"], "--json", code=1)
        assert (failed["status"], failed["error"]) == ("pending", "It answered 500.")
        said = (await perdure("webhooks", "deliveries", made["id"])).stdout
        assert "webhook.test  200" in said
        assert "It answered 500. Next attempt at " in said
        again = await perdure("webhooks", "resend", failed["id"], "--json")
        assert again["id"] == failed["id"]
        shown = await perdure("webhooks", "deliveries", made["id"], "--json")
        assert shown["data"][0]["id"] == failed["id"]
        await there.request(3)
        for came in there.came:
            assert came.verified(made["secret"])["type"] == "webhook.test"
        assert there.came[1].id == there.came[2].id
        wrong = await perdure("webhooks", "create", "http://10.0.0.1/", code=1)
        assert "PERDURE_WEBHOOK_ALLOW" in wrong.stderr
        assert "no id of a webhook" in (await perdure("webhooks", "test", "x", code=2)).stderr
        await perdure("webhooks", "delete", made["id"])
        assert (await perdure("webhooks", "list", "--json"))["data"] == []

        # A link, which opens the page of the question.
        run = await rested(bench.engine, "support")
        create = ("links", "create", run.interruptions[0].id)
        alice = ("--subject", "alice@example.com", "--group", "finance")
        link = await perdure(*create, *alice, "--expires-in", "2h", "--json")
        assert (link["subject"], link["decisions"]) == ("alice@example.com", ["approve", "reject"])
        [kept] = await query(
            bench.engine,
            "SELECT groups, extract(epoch FROM expires_at - created_at)::int AS seconds"
            " FROM perdure.decision_links",
        )
        assert kept == {"groups": ["finance"], "seconds": 7200}
        url = (await perdure(*create, *alice)).stdout.strip()
        assert url.startswith(f"{server.url}/d/")
        page = await bench.client.get(url.removeprefix(server.url))
        assert "You decide as alice@example.com, once" in page.text
        assert "no id of a" in (await perdure("links", "create", "x", code=2)).stderr
        wrong = await perdure(*create, "--expires-in", "soon", code=2)
        assert "such as 15m, 24h or 7d" in wrong.stderr
        assert "was made without --subject" in (await perdure(*create, code=1)).stderr


async def test_a_worker_that_stops_leaves_what_it_could_not_finish_to_another(
    database_url: str,
) -> None:
    async with receiver() as there:
        there.answers = [HANG]
        async with working(database_url) as bench:
            webhook = await bench.webhook(there.url)
            bench.engine._worker._stop_seconds = 0.2  # type: ignore[union-attr]
            made = await bench.test(webhook)
            first = await there.request(1)
        async with working(database_url) as bench:
            done = await _ended(bench, made["id"])
            assert (done["status"], done["attempt"]) == ("delivered", 1)
        assert (first.id, first.body) == (there.came[1].id, there.came[1].body)
        assert len(there.came) == 2


async def test_the_change_and_what_tells_of_it_are_one_transaction(database_url: str) -> None:
    async with working(database_url) as bench, receiver() as there:
        await bench.webhook(there.url, events=["interruption.reminder"])
        async with bench.engine.pool.connection() as conn:
            run = await rested(bench.engine, "support")
            [question] = run.interruptions
            emit = (
                "SELECT perdure.emit_webhooks(%s, 'interruption.reminder', %s::uuid, %s::uuid) AS n"
            )
            params = (DEFAULT_TENANT, run.id, question.id)
            async with conn.transaction(force_rollback=True):
                await conn.execute(emit, params)
            assert await query(bench.engine, "SELECT FROM perdure.webhook_deliveries") == []
            row = await (await conn.execute(emit, params)).fetchone()
            assert row == {"n": 1}
        came = await there.request(1)
        told = json.loads(came.body)
        assert (told["type"], told["data"]["interruption"]["id"]) == (
            "interruption.reminder",
            question.id,
        )
        # A run that is deleted takes with it what was told of it.
        await approve(bench.engine, run)
        await _ended(bench, came.id)
        assert (await bench.client.delete(f"/v1/runs/{run.id}")).status_code == 204
        assert await query(bench.engine, "SELECT FROM perdure.webhook_deliveries") == []

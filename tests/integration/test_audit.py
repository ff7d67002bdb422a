"""The audit of a real database: written with decisions, sealed behind them, broken on purpose."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from perdure.access.keys import create_key, revoke_key
from perdure.access.principals import DEFAULT_TENANT, Principal, Role
from perdure.audit.chain import Seal
from perdure.audit.erasing import erase
from perdure.audit.log import Entry, record
from perdure.audit.queries import AuditFilter, list_entries
from perdure.audit.sealing import seal_due, waiting
from perdure.audit.verification import Head, Verification
from perdure.audit.verify import verify
from perdure.config import NamedKey
from perdure.db import Connection, Pool, open_pool
from perdure.interruptions.rules import Decision
from perdure.paging import PageRequest
from perdure.runs import resume, store
from perdure.tasks import end
from perdure.worker.seal import keep_sealing
from tests.cli_support import perdure, perdure_json
from tests.engine_support import SECONDS
from tests.factories import Stop, insert_run, insert_stop, insert_tenant

KEYS = [NamedKey("k1", b"1" * 32)]
ENV_KEYS = "k1:" + "MTEx" * 10 + "MTE="
ALICE = Principal(
    *("service_key", "key-1", "alice@example.com", DEFAULT_TENANT, frozenset({Role.ADMIN})),
    source="api 203.0.113.7",
)
BOB = replace(ALICE, id="key-2", subject="bob@example.com")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, 2, 16) as pool:
        yield pool


@pytest.fixture
async def conn(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.connection() as conn:
        yield conn


async def decide(
    conn: Connection, stop: Stop, by: Principal = ALICE, decision: str = "approve"
) -> None:
    await resume.decide_and_resume(
        conn,
        tenant_id=by.tenant_id,
        interruption_id=stop.id,
        decision=Decision(decision, digest=stop.digest, message="as asked\0"),
        by=by,
    )


async def decided_run(
    conn: Connection, *, by: Principal = ALICE, user_id: str | None = None, stops: int = 1
) -> UUID:
    run_id = await insert_run(conn, tenant_id=by.tenant_id, user_id=user_id)
    for _ in range(stops):
        stop = await insert_stop(conn, run_id, arguments={"order_id": "42", "cents": 2**60})
        await decide(conn, stop, by)
    return run_id


async def seal(
    conn: Connection, keys: Sequence[NamedKey] = KEYS, *, most: int = 1000
) -> list[Seal]:
    """Seal all there is; a transaction of the server's own may still be open."""
    seals: list[Seal] = []
    async with asyncio.timeout(SECONDS):
        while (await waiting(conn))[0]:
            seals += (await seal_due(conn, keys, most=most)).seals
    return seals


async def entries(conn: Connection, **only: object) -> list[dict[str, object]]:
    page = await list_entries(
        conn,
        tenant_id=DEFAULT_TENANT,
        only=AuditFilter(**only),  # type: ignore[arg-type]
        page=PageRequest(limit=100, order="asc"),
    )
    return [dict(one) for one in page.data]


async def check(conn: Connection, **options: object) -> Verification:
    return await verify(conn, tenant_id=DEFAULT_TENANT, **{"keys": KEYS, **options})  # type: ignore[arg-type]


async def test_a_decision_says_who_when_from_where_what_was_shown_and_executed(
    conn: Connection,
) -> None:
    run_id = await insert_run(conn, user_id="carol")
    stops = [await insert_stop(conn, run_id, arguments={"cents": 2**60}) for _ in range(3)]
    await decide(conn, stops[0])
    await decide(conn, stops[1], BOB, "reject")
    assert await resume.cancel(conn, tenant_id=DEFAULT_TENANT, run_id=run_id, by=BOB)

    approved, rejected, cancelled, withdrawn = await entries(conn, run_id=run_id)
    assert approved["kind"] == rejected["kind"] == "interruption.decided"
    assert approved["subject"] == {"type": "interruption", "id": str(stops[0].id)}
    assert approved["source"] == "api 203.0.113.7"
    assert approved["shown_digest"] == approved["executed_digest"] == stops[0].digest
    assert (rejected["shown_digest"], rejected["executed_digest"]) == (stops[1].digest, None)
    actor, other = approved["actor"], rejected["actor"]
    assert isinstance(actor, dict)
    assert isinstance(other, dict)
    assert (actor["type"], actor["id"], actor["subject"]) == (
        *("service_key", "key-1"),
        "alice@example.com",
    )
    assert actor["pseudonym"] != other["pseudonym"]
    details = approved["details"]
    assert isinstance(details, dict)
    assert details["decision"] == "approve"
    assert details["message"] == "as asked\0"
    assert details["tool"]["arguments"] == {"cents": str(2**60)}
    assert (cancelled["kind"], withdrawn["kind"]) == ("run.cancelled", "interruption.cancelled")
    assert withdrawn["subject"] == {"type": "interruption", "id": str(stops[2].id)}
    # It is of the moment of the decision, and committed with it.
    row = await (
        await conn.execute(
            "SELECT source, d.xmin = l.xmin AS together, at - decided_at AS later"
            " FROM perdure.decisions d, perdure.audit_log l"
            " WHERE l.id = %s AND interruption_id = %s",
            (approved["id"], stops[0].id),
        )
    ).fetchone()
    assert row is not None
    assert timedelta(0) <= row["later"] < timedelta(seconds=5)
    assert (row["together"], row["source"]) == (True, "api 203.0.113.7")


async def test_an_edit_was_shown_one_thing_and_executed_another(conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id, arguments={"order_id": "42", "cents": 300})
    await resume.decide_and_resume(
        conn,
        tenant_id=DEFAULT_TENANT,
        interruption_id=stop.id,
        decision=Decision(
            "approve", digest=stop.digest, arguments={"order_id": "42", "cents": 200}
        ),
        by=ALICE,
    )
    [entry] = await entries(conn)
    row = await (await conn.execute("SELECT executes FROM perdure.decisions")).fetchone()
    assert row is not None
    assert entry["shown_digest"] == stop.digest
    assert entry["executed_digest"] == row["executes"] != stop.digest
    details = entry["details"]
    assert isinstance(details, dict)
    assert details["tool"]["arguments"]["cents"] == 300
    assert details["arguments"]["cents"] == 200


async def test_what_fails_leaves_no_row_and_a_key_is_revoked_once(conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    with pytest.raises(Exception, match="digest"):
        await decide(conn, replace(stop, digest="sha256:" + "0" * 64))
    made = await create_key(conn, name="ci", subject="dan@example.com", by=BOB)
    for _ in range(2):
        await revoke_key(conn, made.api_key.id, by=BOB)
    kinds = [one["kind"] for one in await entries(conn)]
    assert kinds == ["key.created", "key.revoked"]
    assert made.secret not in json.dumps(await entries(conn))
    assert await entries(conn, actor="bob@example.com") == await entries(conn)
    assert await entries(conn, actor="alice@example.com") == []
    with pytest.raises(psycopg.errors.CheckViolation, match="kinds_have_two_words"):
        await record(conn, Entry("Nonsense", DEFAULT_TENANT, ("run", run_id)))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await record(conn, Entry("run.looked_at", run_id, ("run", run_id)))


async def test_what_an_open_transaction_may_still_add_to_is_not_sealed(
    pool: Pool, conn: Connection
) -> None:
    """The row of a slow transaction is older than what commits before it, and comes first."""
    async with pool.connection() as slow:
        async with slow.transaction():
            await record(slow, Entry("run.slow", DEFAULT_TENANT, ("run", "1"), by=ALICE))
            await decided_run(conn)
            assert (await seal_due(conn, KEYS)).rows == 0
            assert (await waiting(conn))[0] == 1
        await decided_run(conn)
        # Two at once: one of them finds the other at it, or nothing left.
        first, second = await asyncio.gather(seal(conn), seal(slow))
    rows = [row for one in sorted([*first, *second], key=lambda one: one.seq) for row in one.rows]
    assert [row.kind for row in rows] == [
        "run.slow",
        "interruption.decided",
        "interruption.decided",
    ]
    assert await waiting(conn) == (0, None)
    assert not (await seal_due(conn, KEYS)).seals
    found = await check(conn)
    assert (found.rows, found.signed, found.broken) == (3, found.seals, None)


async def test_chains_of_tenants_in_small_passes_and_from_another_cluster(
    conn: Connection,
) -> None:
    """A dump put into another cluster brings rows that were not sealed yet, with its numbers."""
    other = await insert_tenant(conn, "acme")
    stranger = replace(ALICE, tenant_id=other)
    for _ in range(3):
        await decided_run(conn, stops=2)
        await decided_run(conn, by=stranger)
    seals = await seal(conn, [], most=2)
    assert max(len(one.rows) for one in seals) <= 2
    assert sum(len(one.rows) for one in seals) == 9
    # Without a key the chain is there, and not taken for signed; a worker with one signs its end.
    assert (await check(conn, keys=[])).broken is None
    unsigned = await check(conn)
    assert unsigned.broken is not None
    assert (unsigned.broken.reason, unsigned.broken.seal) == ("not_signed", 1)
    signed = await seal_due(conn, KEYS, sign_heads=True)
    assert [len(seal.rows) for seal in signed.seals] == [0, 0]
    assert not (await seal_due(conn, KEYS, sign_heads=True)).seals
    for tenant_id in (DEFAULT_TENANT, other):
        assert (await verify(conn, tenant_id=tenant_id, keys=KEYS)).broken is None

    # Two rows that were not sealed when the dump was made, of transactions far ahead and behind.
    await owner(
        conn,
        "ALTER TABLE perdure.audit_log ALTER COLUMN cluster SET DEFAULT 4711",
        "ALTER TABLE perdure.audit_log ALTER COLUMN tx SET DEFAULT '999999999999'",
    )
    await decided_run(conn)
    await owner(conn, "ALTER TABLE perdure.audit_log ALTER COLUMN tx SET DEFAULT '3'")
    await decided_run(conn)
    await owner(
        conn,
        "ALTER TABLE perdure.audit_log ALTER COLUMN cluster"
        " SET DEFAULT (pg_control_system()).system_identifier",
        "ALTER TABLE perdure.audit_log ALTER COLUMN tx SET DEFAULT pg_current_xact_id()",
    )
    await decided_run(conn)
    assert sum(len(one.rows) for one in await seal(conn)) == 3
    found = await check(conn)
    assert (found.rows, found.waiting, found.broken) == (9, 0, None)


async def owner(conn: Connection, *statements: str) -> None:
    """Do what the triggers refuse, as the owner of the tables can."""
    for table, trigger in (
        ("audit_log", "audit_log_is_final"),
        ("audit_seals", "audit_seals_are_final"),
        ("audit_payloads", "audit_payloads_stand"),
    ):
        await conn.execute(f"ALTER TABLE perdure.{table} DISABLE TRIGGER {trigger}".encode())
    for statement in statements:
        await conn.execute(statement.encode())
    for table, trigger in (
        ("audit_log", "audit_log_is_final"),
        ("audit_seals", "audit_seals_are_final"),
        ("audit_payloads", "audit_payloads_stand"),
    ):
        await conn.execute(f"ALTER TABLE perdure.{table} ENABLE ALWAYS TRIGGER {trigger}".encode())


TABLES = ("audit_log", "audit_payloads", "audit_seals")
ROW = "(SELECT ids[1] FROM perdure.audit_seals WHERE seq = 2)"
DROP = f"DELETE FROM perdure.audit_payloads WHERE id = {ROW}"
BREAKS = {
    "a row is changed": (
        [f"UPDATE perdure.audit_log SET at = at + interval '1 second' WHERE id = {ROW}"],
        ("row_changed", 2),
    ),
    "what was executed is changed": (
        [f"UPDATE perdure.audit_log SET executed_digest = NULL WHERE id = {ROW}"],
        ("row_changed", 2),
    ),
    "a row is deleted": (
        [DROP, f"DELETE FROM perdure.audit_log WHERE id = {ROW}"],
        ("row_deleted", 2),
    ),
    "a row is put among sealed ones": (
        [
            f"""
            INSERT INTO perdure.audit_log
            SELECT (jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid()))).*
            FROM perdure.audit_log l WHERE id = {ROW}
            """
        ],
        ("row_inserted", 2),
    ),
    "an argument is changed": (
        [
            f"""
            UPDATE perdure.audit_payloads SET payload = replace(payload::text, '42', '43')::json
            WHERE part = 'details' AND id = {ROW}
            """
        ],
        ("payload_changed", 2),
    ),
    "somebody else is named": (
        [
            f"""
            UPDATE perdure.audit_payloads SET payload = replace(payload::text, 'alice', 'bob')::json
            WHERE part = 'who' AND id = {ROW}
            """
        ],
        ("payload_changed", 2),
    ),
    "a payload is deleted and no erasure recorded": ([DROP], ("payload_deleted", 2)),
    "the salt of the pseudonyms is changed": (
        ["UPDATE perdure.tenants SET audit_salt = sha256(audit_salt)"],
        ("payload_changed", 1),
    ),
    "a seal is changed": (
        ["UPDATE perdure.audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE seq = 2"],
        ("seal_changed", 2),
    ),
    "a seal is deleted in the middle": (
        ["DELETE FROM perdure.audit_seals WHERE seq = 2"],
        ("seal_deleted", 2),
    ),
    "the first seal is deleted": (
        ["DELETE FROM perdure.audit_seals WHERE seq = 1"],
        ("seal_deleted", 1),
    ),
    "the end is cut": (
        ["DELETE FROM perdure.audit_seals WHERE seq >= 3"],
        ("other_head", 2),
    ),
}


async def test_each_way_to_break_it_is_found_and_named(conn: Connection, database_url: str) -> None:
    for _ in range(3):
        await decided_run(conn)
        await seal(conn)
    whole = await check(conn)
    assert (whole.rows, whole.seals, whole.broken) == (3, 3, None)
    assert whole.head is not None
    head = Head.parse(whole.head)
    copies = [
        f"CREATE TABLE kept_{table} AS TABLE perdure.{table}" for table in (*TABLES, "tenants")
    ]
    restore = [
        *(
            f"DELETE FROM perdure.{table}"
            for table in ("audit_payloads", "audit_log", "audit_seals")
        ),
        *(f"INSERT INTO perdure.{table} TABLE kept_{table}" for table in TABLES),
        "UPDATE perdure.tenants SET audit_salt = k.audit_salt FROM kept_tenants k",
    ]
    await owner(conn, *copies)
    second = (
        await (
            await conn.execute("SELECT id, kind, at FROM perdure.audit_log WHERE id = " + ROW)
        ).fetchone()
    ) or {}

    for name, (statements, expected) in BREAKS.items():
        await owner(conn, *statements)
        found = await check(conn, expect=head)
        assert found.broken is not None, name
        assert (found.broken.reason, found.broken.seal) == expected, (name, found.broken)
        if expected[0].startswith(("row", "payload")) and expected[1] == 2:
            row = found.broken.row
            assert row is not None
            if expected[0] != "row_inserted":
                assert (row.id, row.kind, row.at) == (second["id"], second["kind"], second["at"])
                assert str(row.id) in found.broken.message
                assert second["at"].strftime("%Y-%m-%d %H:%M:%S") in found.broken.message
        # Sealing goes on behind it and does not make it whole.
        await decided_run(conn)
        await seal_due(conn, KEYS)
        again = await check(conn, expect=head)
        assert again.broken is not None, name
        await owner(conn, *restore)
        assert await check(conn, expect=head) == whole, name

    # A whole new chain by who owns the tables and lacks the key.
    await owner(
        conn,
        f"UPDATE perdure.audit_log SET actor_type = 'local' WHERE id = {ROW}",
        "DELETE FROM perdure.audit_seals",
    )
    await seal(conn, [])
    assert (await check(conn, keys=[])).broken is None
    forged = await check(conn)
    assert forged.broken is not None
    assert (forged.broken.reason, forged.broken.seal) == ("not_signed", 1)
    await owner(conn, "DELETE FROM perdure.audit_seals")
    await seal(conn, [NamedKey("k1", b"2" * 32)])
    forged = await check(conn)
    assert forged.broken is not None
    assert (forged.broken.reason, forged.broken.seal) == ("wrong_mac", 1)
    unknown = await check(conn, keys=[NamedKey("k2", b"1" * 32)])
    assert unknown.broken is not None
    assert unknown.broken.reason == "unknown_key"
    await owner(conn, *restore)

    # The real command, with the key and a head that was kept, before and after.
    env = {"DATABASE_URL": database_url, "PERDURE_SECRET_KEYS": ENV_KEYS}
    verified = ("audit", "verify", "--expect", whole.head)
    fine = await asyncio.to_thread(perdure_json, *verified, env=env)
    assert (fine["ok"], fine["signatures_checked"]) == (True, True)
    assert fine["tenants"][0]["head"] == whole.head
    await owner(conn, *BREAKS["a row is deleted"][0])
    said = await asyncio.to_thread(perdure, *verified, code=1, env=env)
    assert said.stderr == (
        f"Error: Row {second['id']} (interruption.decided, {second['at']:%Y-%m-%d %H:%M:%S} UTC) "
        "in seal 2 is gone.\n"
    )
    assert "BROKEN" in said.stdout


async def test_a_worker_seals_by_itself(
    pool: Pool, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await decided_run(conn)
    await seal(conn, [])
    await decided_run(conn)
    sealing = asyncio.create_task(keep_sealing(pool, KEYS))
    async with asyncio.timeout(SECONDS):
        while (await waiting(conn))[0]:
            assert not sealing.done()
    await end(sealing)
    found = await check(conn)
    # Whatever there was before is vouched for from now on.
    assert (found.rows, found.signed, found.broken) == (2, found.seals, None)
    assert caplog.records == []


async def test_keys_are_changed_by_putting_a_new_one_first(conn: Connection) -> None:
    old, new = KEYS[0], NamedKey("k2", b"2" * 32)
    await decided_run(conn)
    await seal(conn, [old])
    await decided_run(conn)
    await seal(conn, [new, old])
    for keys in ([new, old], [new]):
        # The new key vouches for what the old one signed: that one may be thrown away.
        assert (await check(conn, keys=keys)).broken is None
    found = (await check(conn, keys=[old])).broken
    assert found is not None
    assert (found.reason, found.seal) == ("unknown_key", 2)


async def test_nobody_changes_it_by_way_of_sql(conn: Connection) -> None:
    await decided_run(conn)
    await seal(conn)
    refused = "is only added to"
    for statement in (
        "UPDATE perdure.audit_log SET way = NULL",
        "DELETE FROM perdure.audit_log",
        "TRUNCATE perdure.audit_log CASCADE",
        "UPDATE perdure.audit_seals SET mac = NULL, key_id = NULL",
        "DELETE FROM perdure.audit_seals",
        "TRUNCATE perdure.audit_seals",
        "UPDATE perdure.audit_payloads SET payload = '{}'",
        "TRUNCATE perdure.audit_payloads",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=refused):
            await conn.execute(statement.encode())
    # In a session too that skips triggers.
    await conn.execute("SET session_replication_role = replica")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=refused):
        await conn.execute("DELETE FROM perdure.audit_log")


async def test_a_person_is_erased_and_what_they_did_stays_provable(
    conn: Connection, database_url: str
) -> None:
    await create_key(conn, subject="alice@example.com", by=BOB)
    await decided_run(conn, user_id="carol", by=BOB)
    await decided_run(conn, user_id="dave")
    await seal(conn)
    erased = await asyncio.to_thread(
        perdure_json,
        *("audit", "erase", "--subject", "alice@example.com"),
        env={"DATABASE_URL": database_url},
    )
    assert erased == {"object": "audit_erasure", "rows": 2}
    assert await erase(conn, tenant_id=DEFAULT_TENANT, person="carol", by=BOB) == 1

    key, by_bob, by_alice, *erasures = await entries(conn)
    assert (key["erased"], key["details"]) == (["details"], None)
    assert by_alice["erased"] == ["who", "details"]
    actor = by_alice["actor"]
    assert isinstance(actor, dict)
    assert (actor["id"], actor["subject"], by_alice["source"]) == (None, None, "api")
    # Bob decided on Carol's run: his name stays, what it was about is gone.
    assert (by_bob["erased"], by_bob["details"]) == (["details"], None)
    assert isinstance(by_bob["actor"], dict)
    assert by_bob["actor"]["subject"] == "bob@example.com"
    assert [one["kind"] for one in erasures] == ["audit.erased", "audit.erased"]
    left = await (
        await conn.execute(
            "SELECT string_agg(payload::text, ' ') AS text FROM perdure.audit_payloads"
        )
    ).fetchone()
    assert left is not None
    assert "alice" not in left["text"]
    # Who has the name can still ask, and gets what that person did.
    assert [one["id"] for one in await entries(conn, actor="alice@example.com")] == [by_alice["id"]]
    found = await check(conn)
    assert (found.rows, found.erased, found.waiting, found.broken) == (3, 3, 2, None)

    # What she does later is not covered by an erasure of before.
    await decided_run(conn)
    await seal(conn)
    await conn.execute(
        "DELETE FROM perdure.audit_payloads"
        " WHERE part = 'who' AND payload ->> 'subject' = 'alice@example.com'"
    )
    lost = (await check(conn)).broken
    assert lost is not None
    assert (lost.reason, lost.row and lost.row.kind) == ("payload_deleted", "interruption.decided")


async def test_a_deleted_run_leaves_who_decided_and_not_what_about(conn: Connection) -> None:
    run_id = await decided_run(conn)
    await conn.execute(
        "UPDATE perdure.runs SET status = 'completed', finished_at = now() WHERE id = %s", (run_id,)
    )
    await seal(conn)
    await store.delete_run(conn, tenant_id=DEFAULT_TENANT, run_id=run_id, by=BOB)
    await seal(conn)
    decided, deleted = await entries(conn, run_id=run_id)
    assert (decided["erased"], decided["source"]) == (["details"], "api 203.0.113.7")
    assert deleted["kind"] == "run.deleted"
    assert isinstance(deleted["actor"], dict)
    assert deleted["actor"]["subject"] == "bob@example.com"
    found = await check(conn)
    assert (found.rows, found.erased, found.broken) == (2, 1, None)


async def test_an_export_can_be_checked_without_the_database(
    conn: Connection, database_url: str
) -> None:
    for _ in range(2):
        await decided_run(conn)
        await seal(conn)
    done = await asyncio.to_thread(perdure, "audit", "export", env={"DATABASE_URL": database_url})
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rows = {one["id"]: one for one in lines if one["object"] == "audit_row"}
    seals = [one for one in lines if one["object"] == "audit_seal"]
    assert [len(one["rows"]) for one in seals] == [1, 1]
    assert seals[1]["previous"] == seals[0]["hash"]
    for one in seals:
        for id_, kind, at, hashed in one["rows"]:
            row = rows[id_]
            assert (row["kind"], row["at"]) == (kind, at)
            for part in ("who", "details"):
                text = hashlib.sha256(row.pop(part).encode()).hexdigest()
                assert row[f"{part}_digest"] == f"sha256:{text}"
            del row["object"]
            assert hashlib.sha256(_rfc8785({"version": 1, **row})).hexdigest() == hashed


def _rfc8785(value: dict[str, object]) -> bytes:
    # Of texts in ASCII, nulls and one small number it is what json writes.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

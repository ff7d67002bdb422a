"""Two roles: one owns the tables, the other serves and can only add to the audit."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from agents import Agent, function_tool
from psycopg import sql

from perdure.access.principals import DEFAULT_TENANT
from perdure.audit.sealing import seal_due, waiting
from perdure.audit.verify import verify
from perdure.db import connect
from tests.cli_support import perdure, perdure_json
from tests.conftest import Server, database_of
from tests.engine_support import SECONDS, call, rested, running, turns


@dataclass(frozen=True)
class Roles:
    """URLs of one new database, by role."""

    owner: str
    serving: str
    name: str
    """The serving role's."""


@pytest.fixture
def roles(server: Server) -> Iterator[Roles]:
    """A database that belongs to one role, to be served by another with an awkward name."""
    url = server.create()
    mark = uuid.uuid4().hex[:8]
    owner, serving = f"owner_{mark}", f"app-{mark}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        for role in (owner, serving):
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role))
            )
        name = sql.Identifier(database_of(url))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(owner)))
    parts = urlsplit(url)

    def as_role(role: str) -> str:
        return parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}").geturl()

    yield Roles(as_role(owner), as_role(serving), serving)
    server.drop(url)
    with psycopg.connect(server.url, autocommit=True) as admin:
        for role in (owner, serving):
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


# Neither in the past nor in another transaction's place.
FORGED = """
INSERT INTO perdure.audit_log
    (id, tenant_id, kind, subject_type, subject_id, actor_type, details_digest, {column})
SELECT gen_random_uuid(), id, 'a.b', 'x', 'y', 'z', 'sha256:' || repeat('0', 64), {value}
FROM perdure.tenants
"""
REFUSED = (
    "UPDATE perdure.audit_log SET way = 'x'",
    "DELETE FROM perdure.audit_log",
    "TRUNCATE perdure.audit_log",
    "ALTER TABLE perdure.audit_log DISABLE TRIGGER audit_log_is_final",
    "DROP TRIGGER audit_log_is_final ON perdure.audit_log",
    "DROP FUNCTION perdure.audit_is_final() CASCADE",
    "DROP TABLE perdure.audit_log",
    "UPDATE perdure.audit_seals SET mac = NULL",
    "DELETE FROM perdure.audit_seals",
    "UPDATE perdure.audit_payloads SET payload = '{}'",
    "UPDATE perdure.schema_migrations SET name = 'x'",
    FORGED.format(column="at", value="now()"),
    FORGED.format(column="tx", value="'7'"),
)


async def test_the_serving_role_runs_the_app_and_cannot_change_the_audit(
    roles: Roles, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"DATABASE_URL": roles.serving, "PERDURE_MIGRATE_URL": roles.owner}
    first, second = [await asyncio.to_thread(perdure_json, "migrate", env=env) for _ in range(2)]
    assert (len(first["applied"]) >= 5, second["applied"]) == (True, [])
    assert first["granted_to"] == second["granted_to"] == roles.name
    printed = await asyncio.to_thread(perdure, "migrate", "--sql", env=env)
    assert f'TO "{roles.name}"' in printed.stdout
    async with await connect(roles.owner) as owner:
        await owner.execute(printed.stdout.encode())

    @function_tool(needs_approval=True)
    async def refund(cents: int) -> str:
        return f"refunded {cents}"

    agent = Agent(
        name="support", model=turns([call("refund", "c1", cents=3)], "done"), tools=[refund]
    )
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    async with running(roles.serving, agent) as engine:
        run = await rested(engine, "support")
        [asked] = run.interruptions
        await engine.decide(asked.id, "approve", digest=asked.digest, by="alice@example.com")
        run = await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        # So can it seal: the worker does, and whoever comes first.
        async with await connect(roles.serving) as conn, asyncio.timeout(SECONDS):
            while (await waiting(conn))[0]:
                await seal_due(conn, [])
    async with await connect(roles.serving) as conn:
        found = await verify(conn, tenant_id=DEFAULT_TENANT)
        assert (found.rows, found.broken) == (1, None)
        for statement in REFUSED:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await conn.execute(statement.encode())
    # The server of the tests may forget what it confirmed, which is an error to doctor.
    said = await asyncio.to_thread(perdure, "doctor", "--json", code=1, env=env)
    assert "can add to the audit and not change it" in said.stdout

    # More than that is said: by `migrate`, and by `doctor`.
    owner_name = urlsplit(roles.owner).username
    async with await connect(server.url) as admin:
        await admin.execute(f'GRANT "{owner_name}" TO "{roles.name}"'.encode())
    warned = await asyncio.to_thread(perdure, "migrate", env=env)
    assert "can still change the audit" in warned.stderr


async def test_a_role_that_does_not_exist_is_named(roles: Roles) -> None:
    env = {
        "DATABASE_URL": roles.serving.replace(roles.name, "nobody"),
        "PERDURE_MIGRATE_URL": roles.owner,
    }
    said = await asyncio.to_thread(perdure, "migrate", env=env)
    assert said.stderr.startswith("Warning: the role nobody of DATABASE_URL does not exist.")
    assert "Applied 0001_runs" in said.stdout

"""The API over a migrated database, asked by clients with keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import httpx
import pytest
from agents import Agent
from fastapi import FastAPI
from pydantic import BaseModel

from perdure.access.keys import create_key
from perdure.access.principals import DEFAULT_ROLES, DEFAULT_TENANT
from perdure.db import Connection, Pool, open_pool
from perdure.notify import Listener, Waiters
from perdure.runs.registry import Registry
from perdure.web.app import create_app


class Context(BaseModel):
    customer: str = "nobody"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, 2, 16) as pool:
        yield pool


@pytest.fixture
async def conn(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.connection() as conn:
        yield conn


@pytest.fixture
async def waiters(database_url: str) -> AsyncIterator[Waiters]:
    waiters = Waiters()
    async with Listener(database_url, waiters.callbacks()):
        yield waiters


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry(
        roots=[Agent(name="support"), Agent(name="sales")],
        context_type=Context,
        default_max_turns=7,
    )


@pytest.fixture
def app(pool: Pool, registry: Registry, waiters: Waiters) -> FastAPI:
    return create_app(pool=pool, registry=registry, waiters=waiters)


ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def client_for(app: FastAPI, conn: Connection) -> AsyncIterator[ClientFor]:
    """Makes clients with a key of their own: of other roles, another tenant."""
    async with AsyncExitStack() as stack:

        async def make(
            *roles: str,
            tenant_id: UUID = DEFAULT_TENANT,
            subject: str | None = None,
            groups: Sequence[str] = (),
        ) -> httpx.AsyncClient:
            key = await create_key(
                conn,
                subject=subject,
                tenant_id=tenant_id,
                roles=roles or DEFAULT_ROLES,
                groups=groups,
            )
            return await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app),
                    base_url="http://api.test",
                    headers={"Authorization": f"Bearer {key.secret}"},
                )
            )

        yield make


@pytest.fixture
async def client(client_for: ClientFor) -> httpx.AsyncClient:
    """A client whose key may do all but administer; its subject is alice@example.com."""
    return await client_for(subject="alice@example.com")


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://api.test"
    ) as client:
        yield client

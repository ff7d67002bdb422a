"""Commands that go straight to the database of ``DATABASE_URL``."""

from __future__ import annotations

import asyncio
import getpass
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import psycopg

from perdure.access.keys import find_tenant
from perdure.access.principals import DEFAULT_TENANT, Principal, cli_principal
from perdure.config import Settings
from perdure.db import Connection, connect, unreachable
from perdure.errors import MigrationError
from perdure.migrate import read_status

T = TypeVar("T")


def with_database(work: Callable[[Connection], Awaitable[T]], *, name: str) -> T:
    """Run ``work`` on a connection of its own; ``name`` is the command, for pg_stat_activity.

    Raises:
        ConfigurationError: DATABASE_URL is not set.
        MigrationError: the database lacks tables.
        UnavailableError: it does not answer.
    """

    async def run() -> T:
        async with _database(name) as conn:
            return await work(conn)

    return asyncio.run(run())


@asynccontextmanager
async def _database(name: str) -> AsyncIterator[Connection]:
    url = Settings.from_env().require_database_url()
    try:
        conn = await connect(url, application_name=f"perdure {name}")
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    async with conn:
        try:
            yield conn
        except psycopg.errors.UndefinedTable as error:
            (await read_status(conn)).require_current()
            raise MigrationError("The database is not migrated. Run `perdure migrate`.") from error


async def tenant_named(conn: Connection, name: str | None) -> UUID:
    """Return the id of a tenant; of the one there always is for None.

    Raises:
        NotFoundError: there is none of that name.
    """
    return DEFAULT_TENANT if name is None else await find_tenant(conn, name)


def whoever_this_is() -> Principal:
    """Return who gives the command, as far as the machine knows: its user and its name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container a user need not have a name.
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return cli_principal(user, platform.node() or "unknown")

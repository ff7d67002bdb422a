"""The catalogue as the API shows it. It is of the deployment: no tenant has a part of its own."""

from __future__ import annotations

from typing import Any

from perdure import jsonsafe
from perdure.catalogue.differences import difference
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

__all__ = ["compare_versions", "get_agent", "get_version", "list_agents", "list_versions"]

_SQL = load_sql("perdure.catalogue", "reading.sql")
_AGENTS = f"{_SQL['select_agents']}\n{_SQL['page_of_agents']}"
_AGENT = f"{_SQL['select_agents']}\n{_SQL['one_agent']}"
_VERSIONS = f"{_SQL['select_versions']}\n{_SQL['page_of_versions']}"
_LATEST = f"{_SQL['select_versions']}\n{_SQL['latest_versions']}"
_VERSION = _SQL["version"]
_TIMES = ("created_at", "updated_at", "served_at", "replaced_at", "deleted_at")
LATEST = 10
"""How many versions are shown with an agent."""

Object = dict[str, Any]


async def list_agents(conn: Connection, *, page: PageRequest, deleted: bool = False) -> Page:
    """Return a page of agents; ``deleted``: also of those that are in no build any more."""
    params = {**page.params(), "deleted": deleted}
    cursor = await conn.execute(in_order(_AGENTS, page.order), params)
    return page_of([_object("agent", row) for row in await cursor.fetchall()], page)


async def get_agent(conn: Connection, name: str) -> Object:
    """Return an agent with its current definition whole and its latest versions.

    Raises:
        NotFoundError: there is none of that name.
    """
    row = await _agent(conn, name)
    agent = _object("agent", row)
    latest = await _latest(conn, row, LATEST)
    whole: Object = {"definition": None, "run_config": None, "agents": []}
    if row["version"] is not None:
        current = await get_version(conn, name, row["version"])
        whole = {key: current[key] for key in whole}
    return {**agent, **whole, "versions": latest}


async def list_versions(conn: Connection, name: str, *, page: PageRequest) -> Page:
    """Return a page of an agent's versions, by when they first came.

    Raises:
        NotFoundError: there is no such agent.
    """
    agent = await _agent(conn, name)
    params = {**page.params(), "agent_id": agent["id"]}
    cursor = await conn.execute(in_order(_VERSIONS, page.order), params)
    return page_of([_object("agent_version", row) for row in await cursor.fetchall()], page)


async def get_version(conn: Connection, name: str, version: str) -> Object:
    """Return a version whole.

    Raises:
        NotFoundError: there is no such agent, or it has no such version.
    """
    params = {"name": _text(name), "version": _text(version)}
    row = await (await conn.execute(_VERSION, params)).fetchone()
    if row is None:
        await _agent(conn, name)
        raise NotFoundError(f"version of the agent {name!r}:", version)
    return _object("agent_version", row)


async def compare_versions(
    conn: Connection, name: str, *, since: str | None = None, to: str | None = None
) -> Object:
    """Return what differs between two versions of an agent, ``since`` being the older one.

    By default ``to`` is the current one, and ``since`` the one that was current before it.

    Raises:
        NotFoundError: there is no such agent, or it has no such version.
        InvalidRequestError: it has no other version to compare with.
    """
    agent = await _agent(conn, name)
    if since is None or to is None:
        latest = [one["version"] for one in await _latest(conn, agent, 3)]
        to = to or next((one for one in latest if one != since), None)
        since = since or next((one for one in latest if one != to), None)
        if since is None or to is None:
            raise InvalidRequestError.at(
                "/query/from", f"The agent {name!r} has no other version to compare with."
            )
    old = await get_version(conn, name, since)
    return difference(old, await get_version(conn, name, to))


async def _agent(conn: Connection, name: str) -> Object:
    row = await (await conn.execute(_AGENT, {"name": _text(name)})).fetchone()
    if row is None:
        raise NotFoundError("agent", name)
    return dict(row)


async def _latest(conn: Connection, agent: Object, most: int) -> list[Object]:
    cursor = await conn.execute(_LATEST, {"agent_id": agent["id"], "fetch": most})
    return [_object("agent_version", row) for row in await cursor.fetchall()]


def _text(given: str) -> str:
    return jsonsafe.protect_text(given)


def _object(kind: str, row: Any) -> Object:
    shown: Object = jsonsafe.loads(row["shown"])
    for name in _TIMES:
        if name in shown:
            shown[name] = rfc3339(shown[name])
    return {"id": shown.pop("id"), "object": kind, **shown}

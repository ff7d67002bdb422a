"""Conversations: appended to, read deep down and among thousands of branches, searched.

What is searched is made up: thirty words an item out of 20,000, the n-th of which is as frequent as
words of a language are (one over n).
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks.plan import Plan
from benchmarks.report import Figure, at_most
from benchmarks.server import Server
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.db import Connection, open_pool
from perdure.paging import PageRequest
from perdure.sessions import branching, items, reading, store
from perdure.sessions.rules import NewItem
from perdure.sessions.search import SearchFilter, search_items

NAME = "conversations"

_BY = program_principal("benchmark")
_OF: dict[str, Any] = {"tenant_id": DEFAULT_TENANT}
_DEPTH = 50
_ROUNDS = 200
_SESSIONS = 10_000
_WORDS = 20_000
_SESSIONS_SQL = """
INSERT INTO perdure.sessions
    (id, tenant_id, user_id, tags, root_session_id, last_seq, created_by, updated_by)
SELECT id, %(tenant)s, 'user' || n %% 500, CASE WHEN n %% 10 = 0 THEN '["a"]' ELSE '[]' END::jsonb,
       id, 1000, '{}', '{}'
FROM (SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
      FROM generate_series(1, %(sessions)s) n) made"""
_ITEMS_SQL = """
INSERT INTO perdure.session_items (id, session_id, tenant_id, seq, role, text, item, search)
SELECT ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       ('01900000-0000-7000-8000-' || lpad(to_hex(1 + n %% %(sessions)s), 12, '0'))::uuid,
       %(tenant)s, 1 + n / %(sessions)s, 'user', words,
       json_build_object('role', 'user', 'content', words), perdure.search_vector('english', words)
FROM (SELECT n, (SELECT string_agg('w' || floor(power(%(words)s, random()))::int || 'x', ' ')
                 FROM generate_series(1, 30 + n * 0)) AS words
      FROM generate_series(%(first)s::int, %(last)s::int) n) made"""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return how long the calls of a chat take, and a search."""
    url = await server.database(migrated=True)
    async with await open_pool(url, 1, 4) as pool, pool.connection() as conn:
        return [
            *await _appended(conn),
            *await _deep(conn),
            *await _wide(conn, plan.branches),
            *await _searched(conn, plan.searched_items),
        ]


async def _appended(conn: Connection) -> list[Figure]:
    session = await _session(conn)
    took = await _timed(lambda: _say(conn, session, 1))
    for _ in range(20):
        await _say(conn, session, 500)
    newest = await _timed(lambda: reading.newest(conn, **_OF, session_id=session, limit=50))
    return [
        Figure("a session", "append an item", took, "ms"),
        Figure("a session", "the newest 50 of 10,000", newest, "ms"),
    ]


async def _deep(conn: Connection) -> list[Figure]:
    session = await _session(conn)
    await _say(conn, session, 20)
    for _ in range(_DEPTH):
        session = await _branch(conn, session)
        await _say(conn, session, 20)
    title = f"{_DEPTH} branches deep, 20 items each"
    whole = await _timed(lambda: reading.newest(conn, **_OF, session_id=session))
    newest = await _timed(lambda: reading.newest(conn, **_OF, session_id=session, limit=20))
    return [
        Figure(title, "all of it", whole, "ms", at_most(50)),
        Figure(title, "the newest 20", newest, "ms", at_most(10)),
    ]


async def _wide(conn: Connection, count: int) -> list[Figure]:
    root = await _session(conn)
    await _say(conn, root, 1000)
    began = time.perf_counter()
    for _ in range(count):
        branch = await _branch(conn, root)
    each = (time.perf_counter() - began) / count * 1000
    newest = await _timed(lambda: reading.newest(conn, **_OF, session_id=branch, limit=20))
    tree = await _timed(
        lambda: branching.list_tree(
            conn, **_OF, session_id=root, page=PageRequest(100, None, "asc")
        )
    )
    title = f"{count:,} branches of 1,000 items"
    return [
        Figure(title, "make one", each, "ms", at_most(10)),
        Figure(title, "the newest 20 of one", newest, "ms", at_most(10)),
        Figure(title, "100 of the tree", tree, "ms", at_most(50)),
    ]


async def _searched(conn: Connection, count: int) -> list[Figure]:
    await _fill(conn, count)
    chance = random.Random(1)

    def word(least: int, most: int) -> str:
        return f"w{chance.randint(least, most)}x"

    def user() -> SearchFilter:
        return SearchFilter(user_id=f"user{chance.randint(0, 499)}")

    everywhere = SearchFilter()
    kinds: dict[str, Callable[[], tuple[str, SearchFilter]]] = {
        "a rare word": lambda: (word(5000, _WORDS), everywhere),
        "a middling word": lambda: (word(100, 1000), everywhere),
        "a frequent word": lambda: (word(1, 10), everywhere),
        "two words": lambda: (f"{word(50, 500)} {word(50, 500)}", everywhere),
        "one word or the other": lambda: (f"{word(100, 999)} or {word(100, 999)}", everywhere),
        "a middling word, of one user": lambda: (word(100, 1000), user()),
        "a phrase of two frequent words": lambda: (f'"{word(1, 9)} {word(1, 9)}"', everywhere),
    }
    title = f"search in {count:,} items"
    figures, all_took = [], []
    for name, make in kinds.items():
        took = []
        for _ in range(_ROUNDS // 5):
            q, only = make()
            began = time.perf_counter()
            await search_items(conn, **_OF, q=q, only=only, page=PageRequest())
            took.append((time.perf_counter() - began) * 1000)
        all_took += took
        figures.append(Figure(title, name, median(took), "ms"))
    return [Figure(title, "median of all below", median(all_took), "ms", at_most(50)), *figures]


async def _fill(conn: Connection, count: int) -> None:
    sizes = {"tenant": DEFAULT_TENANT, "sessions": _SESSIONS, "words": _WORDS}
    await conn.execute(_SESSIONS_SQL, sizes)
    for first in range(0, count, 50_000):
        last = min(first + 50_000, count) - 1
        await conn.execute(_ITEMS_SQL, {**sizes, "first": first, "last": last})
    for table in ("sessions", "session_items"):
        await conn.execute(f"VACUUM ANALYZE perdure.{table}")


async def _session(conn: Connection) -> UUID:
    made, _ = await store.find_or_make(conn, **_OF, fields=store.SessionFields(), by=_BY)
    return UUID(made["id"])


async def _branch(conn: Connection, session: UUID) -> UUID:
    made = await branching.branch_session(conn, **_OF, session_id=session, by=_BY)
    return UUID(made["id"])


async def _say(conn: Connection, session: UUID, count: int) -> None:
    said = NewItem({"role": "user", "content": "Where is the copper wire I have ordered? " * 4})
    await items.append(conn, **_OF, session_id=session, items=[said] * count, by=_BY)


async def _timed(do: Callable[[], Awaitable[Any]]) -> float:
    """Return the median of many times, in milliseconds."""
    took = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        await do()
        took.append(time.perf_counter() - began)
    return median(took) * 1000

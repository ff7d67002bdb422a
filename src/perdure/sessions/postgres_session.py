"""The Agents SDK's session on Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from agents import SessionSettings, TResponseInputItem
from agents.memory.session_settings import resolve_session_limit

from perdure.db import Connection, Pool
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.sessions import branching, items, reading, removing, store
from perdure.sessions.compaction import Snapshot, snapshot
from perdure.sessions.reading import Stored
from perdure.sessions.rules import NewItem, check_name
from perdure.sessions.source import HasPool, Source
from perdure.tasks import to_its_end
from perdure.tenants import DEFAULT_TENANT

__all__ = ["PostgresSession"]

T = TypeVar("T")


class _Program:
    """Whoever runs the program, in ``created_by`` and ``updated_by``."""

    type = "program"
    id: str | None = None
    subject: str | None = None
    source: str | None = "program"


class PostgresSession:
    """A conversation in Postgres, for ``Runner.run(agent, input, session=…)``.

    ::

        session = PostgresSession("conversation_123", user_id="alice")
        result = await Runner.run(agent, "Hello", session=session)

    It is found or made by its key at its first use, per user. Any number of these, in any number
    of processes, may be the same conversation: what each appends stays together and in order, and
    every item comes back as it was given, byte for byte of its JSON. A mutation that has begun is
    finished before a cancellation is felt.

    The database is that of ``engine`` (while it runs), of ``pool`` (``perdure.db.open_pool``), of
    ``url``, or else of ``DATABASE_URL``; in the last two cases ``aclose()``, or ``async with``,
    closes its connections. It has to be migrated: ``perdure migrate``.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        url: str | None = None,
        pool: Pool | None = None,
        engine: HasPool | None = None,
        tenant_id: UUID = DEFAULT_TENANT,
        session_settings: SessionSettings | None = None,
    ) -> None:
        """Name a conversation: ``session_id`` is its key, any text up to 255 characters.

        Raises:
            ConfigurationError: more than one database is given, or its URL cannot be meant.
            InvalidRequestError: the key or the user's id is empty, too long or no text.
        """
        self.session_id = check_name(session_id, "/session_id")
        self.session_settings = session_settings or SessionSettings()
        self._user_id = None if user_id is None else check_name(user_id, "/user_id")
        self._tenant_id = tenant_id
        self._source = Source(url, pool, engine)
        self._id: UUID | None = None
        self._found_by_key = True

    @classmethod
    def existing(
        cls,
        id: UUID | str,
        *,
        user_id: str | None = None,
        url: str | None = None,
        pool: Pool | None = None,
        engine: HasPool | None = None,
        tenant_id: UUID = DEFAULT_TENANT,
        session_settings: SessionSettings | None = None,
    ) -> Self:
        """Name a conversation by its id, as the API shows it; with ``user_id`` only that user's.

        Its first use raises NotFoundError when there is none.
        """
        found = cls(
            str(id),
            user_id=user_id,
            url=url,
            pool=pool,
            engine=engine,
            tenant_id=tenant_id,
            session_settings=session_settings,
        )
        found._id = UUID(str(id))
        found._found_by_key = False
        return found

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the conversation, or its newest ``limit`` items, the oldest of them first.

        Without ``limit`` that of ``session_settings`` counts.

        Raises:
            InvalidRequestError: the limit is negative.
            UnavailableError: the database does not answer.
        """
        wanted = resolve_session_limit(limit, self.session_settings)
        if wanted is not None and wanted < 0:
            raise InvalidRequestError.at("/limit", "cannot be negative.")
        return [one.item for one in await self._newest(wanted)]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items: all of them or none, next to each other.

        Raises:
            InvalidRequestError: one is no JSON, or has a role that is none.
            UnavailableError: the database does not answer.
        """
        new = _new(items)
        if not new:
            return
        await self._change(lambda conn, id: self._append(conn, id, new))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it, or None where there is none.

        Raises:
            UnavailableError: the database does not answer.
        """
        popped = await self._change(
            lambda conn, id: removing.pop(conn, **self._of(id), by=_Program())
        )
        return None if popped is None else popped.item

    async def clear_session(self) -> None:
        """Remove all items. The session stays, with its title and all that is said of it.

        Raises:
            UnavailableError: the database does not answer.
        """
        await self._change(lambda conn, id: removing.clear(conn, **self._of(id), by=_Program()))

    async def branch(
        self,
        from_seq: int | None = None,
        *,
        title: str | None = None,
        system_prompt: str | None = None,
    ) -> Self:
        """Return a new session that reads this one up to an item's number; None: up to its last.

        What either gets from then on the other does not see.

        Raises:
            InvalidRequestError: there is no such number.
            UnavailableError: the database does not answer.
        """
        made = await self._change(
            lambda conn, id: branching.branch_session(
                conn,
                **self._of(id),
                by=_Program(),
                from_seq=from_seq,
                title=title,
                system_prompt=system_prompt,
            )
        )
        branch = type(self).existing(
            made["id"],
            user_id=self._user_id,
            tenant_id=self._tenant_id,
            session_settings=self.session_settings,
        )
        branch._source = self._source
        return branch

    async def id(self) -> UUID:
        """Return the id the API knows it by; makes the session if it is not there yet."""

        async def same(conn: Connection, id: UUID) -> UUID:
            return id

        return await self._with(same)

    async def aclose(self) -> None:
        """Close its connections, where they are its own. It may be used again."""
        await self._source.close()

    async def __aenter__(self) -> Self:
        """Return it, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        await self.aclose()

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Snapshot | None:
        # Who overrides what is read or written has to say itself what a compaction may replace;
        # what is to be pruned before it is left to compaction's other way, over the protocol.
        if type(self) is not PostgresSession or prune_prefix is not None:
            return None

        async def replace(expected: Sequence[Stored], by: list[TResponseInputItem]) -> bool:
            ids, new = [one.id for one in expected], _new(by)
            return await self._change(
                lambda conn, id: removing.replace_newest(
                    conn, **self._of(id), expected=ids, items=new, by=_Program()
                )
            )

        return snapshot(await self._newest(limit + 1), limit, replace)

    async def _newest(self, limit: int | None) -> list[Stored]:
        return await self._with(lambda conn, id: reading.newest(conn, **self._of(id), limit=limit))

    async def _append(self, conn: Connection, id: UUID, new: Sequence[NewItem]) -> None:
        await items.append(conn, **self._of(id), items=new, by=_Program())

    async def _change(self, work: Callable[[Connection, UUID], Awaitable[T]]) -> T:
        return await to_its_end(self._with(work))

    async def _with(self, work: Callable[[Connection, UUID], Awaitable[T]]) -> T:
        """Do ``work`` on the session's row; one that was deleted since is found or made anew."""
        async with self._source.connection() as conn:
            if self._id is not None:
                try:
                    return await work(conn, self._id)
                except NotFoundError:
                    if not self._found_by_key:
                        raise
            self._id = await self._find(conn)
            return await work(conn, self._id)

    def _of(self, id: UUID) -> dict[str, Any]:
        return {"tenant_id": self._tenant_id, "session_id": id, "user_id": self._user_id}

    async def _find(self, conn: Connection) -> UUID:
        fields = store.SessionFields(key=self.session_id, user_id=self._user_id)
        found, _ = await store.find_or_make(
            conn, tenant_id=self._tenant_id, fields=fields, by=_Program()
        )
        return UUID(found["id"])


def _new(given: Sequence[Any]) -> list[NewItem]:
    return [NewItem(item) for item in given]

"""Run states of one's own ``Runner.run``, kept in Postgres by a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID

from agents import Agent, RunState
from pydantic import BaseModel

from perdure import jsonsafe
from perdure.db import Connection, Pool, load_sql, uuid7
from perdure.errors import ConfigurationError, InvalidRequestError
from perdure.runs.restoring import restore
from perdure.runs.sdk import current_agent_name, current_turn, goes_on, resumes_a_turn, sdk_version
from perdure.sessions.rules import check_name
from perdure.sessions.source import HasPool, Source
from perdure.tasks import to_its_end
from perdure.tenants import DEFAULT_TENANT

__all__ = ["KeptState", "RunStateStore", "StateType"]

_SQL = load_sql("perdure.runs", "state_store.sql")

StateType = Literal["interrupted", "checkpoint", "final"]


@dataclass(frozen=True, slots=True)
class KeptState:
    """What is known of a state without loading it; times are UTC, by the database's clock.

    ``interrupted`` waits for approvals, ``checkpoint`` goes on with another turn, ``final`` is
    that of a run that is over. ``resumed_at``: when somebody took it to go on with.
    """

    id: UUID
    agent: str
    state_type: StateType
    schema_version: str
    sdk_version: str
    current_agent: str
    turn: int
    size_bytes: int
    created_at: datetime
    resumed_at: datetime | None


class RunStateStore:
    """Where a program keeps the state of its own ``Runner.run`` while that waits.

    ::

        store = RunStateStore(agent, "conversation_123", user_id="alice")
        result = await Runner.run(agent, "Refund order 42")
        await store.save(result.to_state())

        # Later, in another process:
        state = await store.load()
        if state is not None and await store.mark_resumed():
            for one in state.get_interruptions():
                state.approve(one)
            result = await Runner.run(agent, state)
            await store.save(result.to_state())

    One state is active for each tenant, key and user: the one saved last. A save is one
    transaction, so a crash leaves that of before; of two at once both are kept and the later one
    is active. The ``keep`` states before the active one stay in the table, older ones are deleted.
    An engine's runs need none of this: their states are theirs.

    The database is that of ``engine`` (while it runs), of ``pool`` (``perdure.db.open_pool``), of
    ``url``, or else of ``DATABASE_URL``; in the last two cases ``aclose()``, or ``async with``,
    closes its connections. It has to be migrated: ``perdure migrate``.
    """

    def __init__(
        self,
        agent: Agent[Any],
        session_id: str,
        *,
        user_id: str | None = None,
        context_type: type[BaseModel] | None = None,
        keep: int = 10,
        url: str | None = None,
        pool: Pool | None = None,
        engine: HasPool | None = None,
        tenant_id: UUID = DEFAULT_TENANT,
    ) -> None:
        """Name a place for states of ``agent``, the one its runs begin with.

        ``session_id`` is any text up to 255 characters. With ``context_type`` the runs' context is
        stored with the state and given back; without, a mapping is.

        Raises:
            ConfigurationError: more than one database is given, or its URL cannot be meant.
            InvalidRequestError: the key or the user's id is empty, too long or no text, or ``keep``
                is negative.
        """
        self.session_id = check_name(session_id, "/session_id")
        if keep < 0:
            raise InvalidRequestError.at("/keep", "cannot be negative.")
        self._agent = agent
        self._context_type = context_type
        self._keep = keep
        self._source = Source(url, pool, engine)
        self._loaded: UUID | None = None
        self._key = {
            "tenant_id": tenant_id,
            "key": self.session_id,
            "user_id": None if user_id is None else check_name(user_id, "/user_id"),
        }

    async def save(self, state: RunState[Any, Any]) -> KeptState:
        """Make ``state`` (``result.to_state()``) the active one, and return what is known of it.

        A context that is neither a mapping nor of the ``context_type`` is not stored; ``load`` has
        to be given it.

        Raises:
            agents.UserError: the SDK cannot serialize the state.
            InvalidRequestError: the context holds what is no JSON.
            UnavailableError: the database does not answer.
        """
        data = state.to_json(context_serializer=self._dumped)
        text = jsonsafe.dumps(jsonsafe.finite(data))
        row = {
            **self._key,
            "id": uuid7(),
            "agent": self._agent.name,
            "state_type": _type_of(state),
            "schema_version": str(data["$schemaVersion"]),
            "sdk_version": sdk_version,
            "current_agent": current_agent_name(state),
            "turn": current_turn(state),
            "state": text,
            "size_bytes": len(text),
            "keep": self._keep,
            "whole": False,
        }

        async def write() -> KeptState:
            async with self._source.connection() as conn, conn.transaction():
                await conn.execute(_SQL["lock"], row)
                await conn.execute(_SQL["retire"], row)
                await conn.execute(_SQL["insert"], row)
                await conn.execute(_SQL["prune"], row)
                [saved] = await self._active(conn, whole=False)
            return _known(saved)

        saved = await to_its_end(write())
        self._loaded = saved.id
        return saved

    async def load(
        self, *, context: Any = None, final: bool = False
    ) -> RunState[Any, Agent[Any]] | None:
        """Return the active state for ``Runner.run``, or None where there is nothing to go on with.

        That of a run that is over is returned with ``final`` only: run again, it would ask the
        model once more. ``context`` takes the place of the stored one.

        Raises:
            ConfigurationError: this program lacks an agent or tool of the state, or the context
                was not stored, or does not fit.
            agents.UserError: the SDK cannot load it.
            UnavailableError: the database does not answer.
        """
        async with self._source.connection() as conn:
            rows = await self._active(conn, whole=True)
        if not rows or (rows[0]["state_type"] == "final" and not final):
            return None
        [row] = rows
        data = jsonsafe.loads(row["state"])
        given = self._restored(data, row) if context is None else context
        state = await restore(data, self._agent, given)
        self._loaded = row["id"]
        return state

    async def latest(self) -> KeptState | None:
        """Return what is known of the active state, of whatever type; None: there is none.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with self._source.connection() as conn:
            rows = await self._active(conn, whole=False)
        return _known(rows[0]) if rows else None

    async def mark_resumed(self) -> bool:
        """Take the state that was loaded or saved here to go on with it; True for one caller.

        False: another one was first, or a later state was saved since. Two that run one state both
        run its approved calls, so whoever gets False should load again.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with self._source.connection() as conn:
            cursor = await conn.execute(_SQL["mark_resumed"], {**self._key, "id": self._loaded})
        return cursor.rowcount == 1

    async def clear(self) -> int:
        """Delete every state of the key, and return how many there were.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with self._source.connection() as conn:
            cursor = await conn.execute(_SQL["clear"], self._key)
        return cursor.rowcount

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

    async def _active(self, conn: Connection, *, whole: bool) -> list[dict[str, Any]]:
        cursor = await conn.execute(_SQL["active"], {**self._key, "whole": whole})
        return await cursor.fetchall()

    def _dumped(self, context: Any) -> Mapping[str, Any]:
        if isinstance(context, BaseModel) and self._context_type is not None:
            return context.model_dump(mode="json")
        return context if isinstance(context, Mapping) else {}

    def _restored(self, data: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
        """Return the context a state was saved with, as its runs were given it."""
        stored = data["context"]
        value, meta = stored.get("context"), stored.get("context_meta") or {}
        if value is None:
            return None
        if self._context_type is not None:
            try:
                return self._context_type.model_validate(value)
            except Exception as error:  # its validators are anybody's code
                raise ConfigurationError(
                    f"The context of the state of {self.session_id!r} does not fit "
                    f"{self._context_type.__name__}: {error}"
                ) from error
        if meta.get("original_type") not in (None, "mapping", "none"):
            raise ConfigurationError(
                f"The context of the state of {self.session_id!r}, saved at "
                f"{row['created_at']:%Y-%m-%d %H:%M}, was an object and not stored. Give it to "
                "load(context=…), or the store its pydantic type as context_type."
            )
        return value


def _type_of(state: RunState[Any, Any]) -> StateType:
    if resumes_a_turn(state):
        return "interrupted"
    return "checkpoint" if goes_on(state) else "final"


def _known(row: Mapping[str, Any]) -> KeptState:
    return KeptState(**{name: row[name] for name in KeptState.__slots__})

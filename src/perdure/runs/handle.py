"""A run in a program's hands: started, looked at, waited for."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from perdure.access.principals import DEFAULT_TENANT, Principal, program_principal
from perdure.db import Connection, Pool
from perdure.errors import NotFoundError, UnavailableError
from perdure.events import Event, Hub
from perdure.idempotency import IdempotencyKey, RecordedAnswer, claim, hash_request, record
from perdure.notify import Waiters
from perdure.runs import inputs, store
from perdure.runs.forking import Fork, Tools, fork_run
from perdure.runs.in_session import InSession, start_in_session
from perdure.runs.interruption import Interruption
from perdure.runs.registry import Registry
from perdure.runs.sdk_streaming.stream import RunStream
from perdure.runs.store import NewRun

_START_ROUTE = "engine.start"
_FORK_ROUTE = "run.fork"
_INPUT_ROUTE = "run.add_input"
CONNECTION_SECONDS = 5.0
"""How long a program's call waits for a free connection; none while the database refuses."""


class Run:
    """A run as it was when last looked at; ``wait`` and ``refresh`` look again."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        waiters: Waiters,
        run_id: UUID,
        hub: Hub,
        registry: Registry,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._waiters = waiters
        self._hub = hub
        self._id = run_id
        self._seen: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Run {self.id} {self._seen.get('status', '')}>"

    @property
    def id(self) -> str:
        """Its id."""
        return str(self._id)

    @property
    def status(self) -> str:
        """``queued``, ``running``, ``interrupted``, ``completed``, ``failed`` or ``cancelled``."""
        return str(self._seen.get("status", "queued"))

    @property
    def output(self) -> Any:
        """The final output as JSON; None until it is completed."""
        return self._seen.get("output")

    @property
    def error(self) -> dict[str, Any] | None:
        """``type`` and ``message`` of a failed run."""
        return self._seen.get("error")

    @property
    def interruptions(self) -> list[Interruption]:
        """The questions it waits on."""
        return [Interruption(one) for one in self._seen.get("interruptions", [])]

    @property
    def data(self) -> dict[str, Any]:
        """The whole run, as the HTTP API shows it."""
        return dict(self._seen)

    async def refresh(self) -> Run:
        """Look again and return the run itself.

        Raises:
            NotFoundError: it is gone.
            UnavailableError: the database cannot be reached.
        """
        async with self._pool().prompt(CONNECTION_SECONDS) as conn:
            self._seen = await store.get_run(conn, tenant_id=DEFAULT_TENANT, run_id=self._id)
        return self

    async def wait(self, timeout: float | None = None) -> Run:
        """Wait until the run rests (interrupted or finished) and return it; woken, not polling.

        A database that is away is waited for too.

        Raises:
            NotFoundError: it is gone.
            TimeoutError: it did not within ``timeout`` seconds.
        """

        async def rested() -> Run | None:
            try:
                async with self._pool().prompt(CONNECTION_SECONDS) as conn:
                    found = await store.run_at_rest(conn, tenant_id=DEFAULT_TENANT, run_id=self._id)
            except UnavailableError:
                return None
            if found is None:
                return None
            self._seen = found
            return self

        run = await self._waiters.until(self.id, rested, seconds=timeout)
        if run is None:
            try:
                await self.refresh()
            except UnavailableError as error:
                raise TimeoutError(
                    f"Run {self.id} was {self.status} when last seen, and the database cannot be "
                    f"reached after {timeout:g} s. The run goes on when it is back; wait again."
                ) from error
            raise TimeoutError(f"Run {self.id} is still {self.status} after {timeout:g} s.")
        return run

    async def add_input(
        self,
        input: str | list[dict[str, Any]],
        *,
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Add a message to the run; the model reads it when it is asked next, once.

        ``input`` is a text or a list of Responses input messages of the role ``user``; ``by`` names
        who says it. The same ``idempotency_key`` within 24 hours returns the message that was added
        first. Returns it as the HTTP API shows it.

        Raises:
            InvalidRequestError: it is neither.
            NotFoundError: the run is gone.
            InvalidStateError: it has ended, is being cancelled, or too many messages wait for it.
            IdempotencyConflictError: the key was used for another message.
            UnavailableError: the database cannot be reached, or was lost in the middle: add it
                again with the same ``idempotency_key``.
        """
        items = inputs.messages_of(input)
        async with self._pool().prompt(CONNECTION_SECONDS) as conn, conn.transaction():
            claimed = None
            if idempotency_key is not None:
                asked = hash_request({"run_id": self.id, "input": items})
                claimed = IdempotencyKey(DEFAULT_TENANT, _INPUT_ROUTE, idempotency_key, asked)
                answer = await claim(conn, claimed)
                if answer is not None:
                    before: dict[str, Any] = json.loads(answer.body)
                    return before
            added = await inputs.add_input(
                conn,
                tenant_id=DEFAULT_TENANT,
                run_id=self._id,
                input=items,
                by=program_principal(by),
            )
            if claimed is not None:
                body = json.dumps(added).encode()
                await record(conn, claimed, RecordedAnswer(202, {}, body))
            return added

    async def fork(
        self,
        checkpoint: int | None = None,
        *,
        input: str | list[dict[str, Any]] | None = None,
        instructions: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        tools: Tools = "ledger",
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a run that goes on from a checkpoint of this one, and return it; this one stays.

        ``checkpoint`` is its number, 0 the run's beginning; by default the latest that is not
        final. ``input`` is another message of the user there (at the beginning: instead of the
        run's), ``instructions`` are told the agent that goes on, which is ``agent`` if one is
        given; ``model`` is one for all agents. ``tools``: ``ledger`` answers calls this run made
        after the checkpoint with what came of them, and asks a person before others that are not
        of the effect ``read``; ``run`` makes all. ``by`` names who forks. The same
        ``idempotency_key`` within 24 hours returns the run it first started.

        Raises:
            InvalidRequestError: no such checkpoint, agent or model, or an input that is none.
            NotFoundError: the run is gone.
            InvalidStateError: the checkpoint does not allow it.
            IdempotencyConflictError: the key was used for another fork.
            UnavailableError: the database cannot be reached, or was lost in the middle: fork again
                with the same ``idempotency_key``.
        """
        wanted = Fork(
            checkpoint=checkpoint,
            input=input,
            instructions=instructions,
            agent=None if agent is None else self._registry.check_agent(agent),
            model=self._registry.check_model(model),
            tools=tools,
        )
        async with self._pool().prompt(CONNECTION_SECONDS) as conn:
            fork_id = await _fork_once(conn, self._id, wanted, idempotency_key, by)
        return Run(self._pool, self._waiters, fork_id, self._hub, self._registry)

    async def events(self, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Give what happens in the run, in order, each event once, from the number ``after`` on.

        Ends when the run has, or the engine stops. It goes on through questions (the run waits
        for people, and the loop with it), through crashes of whoever runs it, and through times in
        which the database is away. Who breaks off goes on with ``after=event.id``.

        Raises:
            NotFoundError: there is no such run.
            UnavailableError: the database cannot be reached at first.
        """

        following = self._hub.follow(DEFAULT_TENANT, self._id, after=after)
        async with aclosing(following) as pages:
            async for page in pages:
                for entry in page:
                    yield entry.event

    def stream(self, *, after: int = 0) -> RunStream:
        """Give what happens in the run as the Agents SDK's own stream events, to the run's end.

        They are those of ``Runner.run_streamed(…).stream_events()``, made of what is recorded, and
        two of ours: ``Superseded`` voids what a dead attempt had streamed of a reply;
        ``Interrupted`` has the questions the run waits on, and once they are decided, here or
        elsewhere, the stream goes on. At the end ``output`` and ``error`` of this handle are those
        of the run; one that failed is no exception here.

        Who breaks off goes on with ``run.stream(after=stream.last_event_id)``.

        Raises, when it is iterated over, what ``events`` raises.
        """

        async def ended() -> None:
            with suppress(NotFoundError, UnavailableError):
                await self.refresh()

        return RunStream(self._hub, self._registry.agents, self._id, ended=ended, after=after)


def _content(new: NewRun) -> dict[str, Any]:
    # The same request, whoever sends it again.
    content = {**asdict(new), "tenant_id": str(new.tenant_id)}
    for name in ("started_by", "session_id", "tools", "replays_seq"):
        del content[name]
    for name in ("model", "budget"):
        if content[name] is None:
            del content[name]
    if new.budget is not None:
        content["budget"] = new.budget.as_object()
    return content


async def _fork_once(
    conn: Connection, run_id: UUID, fork: Fork, key: str | None, by: str | None
) -> UUID:
    async with conn.transaction():
        claimed = None
        if key is not None:
            asked = hash_request({"run_id": str(run_id), **asdict(fork)})
            claimed = IdempotencyKey(DEFAULT_TENANT, _FORK_ROUTE, key, asked)
            answer = await claim(conn, claimed)
            if answer is not None:
                return UUID(answer.headers["run-id"])
        fork_id = await fork_run(
            conn, tenant_id=DEFAULT_TENANT, run_id=run_id, fork=fork, by=program_principal(by)
        )
        if claimed is not None:
            await record(conn, claimed, RecordedAnswer(202, {"run-id": str(fork_id)}, b"{}"))
        return fork_id


def _named(session: InSession) -> dict[str, Any]:
    return {**asdict(session), "id": None if session.id is None else str(session.id)}


async def start_once(
    conn: AsyncConnection[Any],
    new: NewRun,
    key: str | None,
    session: InSession | None = None,
    by: Principal | None = None,
) -> UUID:
    """Accept a run, or return the id of the one ``key`` started within the last 24 hours.

    In a ``session`` it is ``by`` who starts it. Joins the caller's transaction or makes one.

    Raises:
        IdempotencyConflictError: the key was used for another start.
        NotFoundError, InvalidStateError, InvalidRequestError: what ``start_in_session`` raises.
    """

    async def start() -> UUID:
        if session is None:
            return await store.start_run(conn, new)
        # The caller's connection may give rows in another shape.
        shape, conn.row_factory = conn.row_factory, dict_row
        try:
            return await start_in_session(conn, new, session, by or program_principal(None))
        finally:
            conn.row_factory = shape

    if key is None and session is None:
        return await start()
    if key is None:
        async with store.joining(conn):
            return await start()
    content = _content(new) if session is None else {**_content(new), "session": _named(session)}
    claimed = IdempotencyKey(new.tenant_id, _START_ROUTE, key, hash_request(content))
    async with store.joining(conn):
        answer = await claim(conn, claimed)
        if answer is not None:
            return UUID(answer.headers["run-id"])
        run_id = await start()
        await record(conn, claimed, RecordedAnswer(202, {"run-id": str(run_id)}, b"{}"))
    return run_id

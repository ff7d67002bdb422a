"""The engine: agents made durable, in a program of one's own or behind the commands.

``async with engine:`` opens the database, runs a worker in this process, and takes starts and
decisions. ``engine.api()`` is the same over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from psycopg import AsyncConnection
from pydantic import BaseModel

from perdure import __version__
from perdure.access.principals import DEFAULT_TENANT, Principal, program_principal
from perdure.budgets.limits import parse_limits
from perdure.catalogue.registering import register
from perdure.config import Settings
from perdure.db import Pool, open_pool
from perdure.embedded import running as embedded_server
from perdure.errors import ConfigurationError
from perdure.events import Hub
from perdure.interruptions.policies.policy import Policy
from perdure.interruptions.queries import get_interruption
from perdure.interruptions.rules import UNSET, Decision
from perdure.ledger.effects import EffectName, parse_effect
from perdure.ledger.prices import Price
from perdure.migrate import migrate
from perdure.migrate import status as migration_status
from perdure.notify import Listener, Waiters
from perdure.roles import other_role
from perdure.runs import resume
from perdure.runs.dbos_schema import migrate_dbos
from perdure.runs.handle import CONNECTION_SECONDS, Run, start_once
from perdure.runs.in_session import InSession, WhenBusy
from perdure.runs.interruption import Interruption
from perdure.runs.preflight import look, look_pool
from perdure.runs.preflight_findings import PreflightReport
from perdure.runs.registry import Registry
from perdure.runs.store import NewRun
from perdure.worker import alone_child
from perdure.worker.lease import new_tag
from perdure.worker.locating import locate
from perdure.worker.succession import succession
from perdure.worker.worker import STOP_SECONDS, Worker

if TYPE_CHECKING:
    from agents import Agent, ModelProvider, RunConfig, RunErrorHandlers, RunHooks
    from fastapi import FastAPI, Request

_LOG = logging.getLogger(__name__)

Authenticate = Callable[["Request"], Awaitable[Principal]]


class Engine:
    """Agents of the OpenAI Agents SDK, run durably.

    ``agents`` are the agents runs may start with; what they hand off to or use as tools comes
    along. ``model_provider``, ``run_config``, ``hooks`` and ``error_handlers`` are the SDK's own.
    ``context_type`` is a pydantic model each run's context is validated against, stored as, and
    given back to tools as. ``default_effect`` is what an unmarked tool counts as.
    ``policies`` say which calls people are asked about, and who; those made by the API stand
    before them. ``tasks`` are what runs may say they are for; without it that is anything.
    ``operations`` are the kinds of changes tools may record by ``record_operation``.
    ``prices`` are your own, by the model's name (``my-*``: all that begin so); they stand before
    those of the price list.
    ``database_url`` is ``DATABASE_URL`` by default; without either an embedded Postgres is used.
    ``target`` says where another process finds this engine (``package.module:engine``,
    ``path/file.py:engine``), to run a segment alone that keeps ending its process; by default it
    is looked for among the variables of the loaded modules.

    Raises:
        ConfigurationError: no agents, two of one name, a tool that cannot be made durable.
    """

    def __init__(
        self,
        agents: Sequence[Agent[Any]],
        *,
        model_provider: ModelProvider | None = None,
        run_config: RunConfig | None = None,
        hooks: RunHooks[Any] | None = None,
        error_handlers: RunErrorHandlers[Any] | None = None,
        context_type: type[BaseModel] | None = None,
        default_effect: EffectName = "at_most_once",
        policies: Sequence[Policy] = (),
        operations: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        prices: Mapping[str, Price] | None = None,
        database_url: str | None = None,
        concurrency: int = 64,
        target: str | None = None,
    ) -> None:
        self.target = target
        self.registry = Registry(
            roots=list(agents),
            run_config=run_config,
            model_provider=model_provider,
            hooks=hooks,
            error_handlers=error_handlers,
            context_type=context_type,
            default_effect=parse_effect(default_effect),
            policies=tuple(policies),
            operations=operations,
            tasks=tasks,
            own_prices=prices or {},
        )
        self._database_url = database_url
        self._concurrency = concurrency
        self._pool: Pool | None = None
        self._waiters = Waiters()
        self._hub = Hub(lambda: self.pool)
        self._worker: Worker | None = None
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        await stack.enter_async_context(self.running(worker=True))
        self._stack = stack
        return self

    async def __aexit__(self, *_: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    @asynccontextmanager
    async def running(
        self,
        *,
        worker: bool = True,
        migrate_first: bool = True,
        url: str | None = None,
        concurrency: int | None = None,
        replace_lost: bool = True,
        stop_seconds: float = STOP_SECONDS,
    ) -> AsyncIterator[Self]:
        """Open the database and, with ``worker``, run segments in this process, inside the block.

        ``migrate_first`` brings the database up to date; without it, one that is behind is
        refused. ``concurrency`` is how many segments run at once, the engine's own by default.
        A worker that is taken for dead (its process was paused) ends; with ``replace_lost``
        another one starts in its place, without it ``lost`` returns and the process should end.
        At the end of the block effects under way have ``stop_seconds``; what takes longer is cut
        off, and is in doubt.

        Raises:
            ConfigurationError: the engine is running already, or the process runs DBOS itself.
            MigrationError: the database is behind, or newer than this build.
            UnavailableError: the database does not answer.
        """
        if self._pool is not None:
            raise ConfigurationError("This engine is running already; enter it once.")
        if alone_child.in_this_process:
            raise ConfigurationError(
                "This process runs one segment alone and loads the program for its engine only: "
                'what the program does has to stand under `if __name__ == "__main__":`.'
            )
        async with AsyncExitStack() as stack:
            url = url or self._database_url or Settings.from_env().database_url
            if url is None:
                server = await stack.enter_async_context(embedded_server())
                url = server.url
                _LOG.info("No DATABASE_URL: using the embedded Postgres.")
            await _prepare(url, migrate_first=migrate_first)
            tag = new_tag()
            self._pool = await stack.enter_async_context(
                await open_pool(url, 2, 16, application_name=f"perdure {tag}")
            )
            stack.callback(self._forget)
            self._waiters.begin()
            await stack.enter_async_context(Listener(url, self._waiters.callbacks()))
            await stack.enter_async_context(self._hub.serving(url))
            if worker:
                make = partial(
                    self._new_worker, url, tag, concurrency or self._concurrency, stop_seconds
                )
                working = succession(make) if replace_lost else make()
                await stack.enter_async_context(working)
            else:
                await register(self._pool, self.registry.catalogue)
            yield self

    def _new_worker(self, url: str, tag: str, concurrency: int, stop_seconds: float) -> Worker:
        self._worker = Worker(
            *(self.registry, self.pool, url),
            target=lambda: self.target or locate(self),
            concurrency=concurrency,
            version=__version__,
            tag=tag,
            stop_seconds=stop_seconds,
            settings=Settings.from_env(),
        )
        return self._worker

    async def lost(self) -> None:
        """Wait until the worker of this process was taken for dead and its runs were taken over.

        Without a worker it waits for ever. The engine replaces it, if it was entered so.
        """
        lost = asyncio.Event() if self._worker is None else self._worker.lost
        await lost.wait()

    def _forget(self) -> None:
        self._pool = None
        self._worker = None

    @property
    def database_url(self) -> str | None:
        """The database the engine was given; None leaves it to the environment."""
        return self._database_url

    @property
    def pool(self) -> Pool:
        """The open pool.

        Raises:
            ConfigurationError: outside ``async with engine``.
        """
        if self._pool is None:
            raise ConfigurationError(
                "The engine is not running: use it inside `async with engine:`."
            )
        return self._pool

    @property
    def waiters(self) -> Waiters:
        """Who waits for a run of this process to change."""
        return self._waiters

    def end_streams(self) -> None:
        """Let everybody who follows a run of this process end: it stops."""
        self._hub.close()

    async def start(
        self,
        agent: str,
        input: str | list[dict[str, Any]],
        *,
        context: Any = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        task: str | None = None,
        max_turns: int | None = None,
        model: str | None = None,
        budget: Mapping[str, Any] | None = None,
        priority: int = 0,
        delay_seconds: float | None = None,
        idempotency_key: str | None = None,
        session_id: UUID | str | None = None,
        session_key: str | None = None,
        when_busy: WhenBusy = "queue",
        by: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Run:
        """Accept a run and return it; it is queued when this returns (or ``connection`` commits).

        ``input`` is a text or Responses input items; ``context`` fits the engine's context type.
        ``model`` names one of the engine's provider, for all agents of the run.
        ``budget`` is the most it may spend before a person is asked: ``cost_usd`` (USD as text,
        Decimal or int), ``total_tokens`` or both.
        ``task`` says what it is for, out of the engine's list if it has one.
        Of waiting runs the lowest ``priority`` goes first. The same ``idempotency_key`` within 24
        hours returns the run it first started. In a session, one that is there or one found or made
        by its key and ``user_id``, runs are one after the other; ``when_busy`` says what if another
        has the turn: ``queue``, ``reject``, ``cancel_previous``, or ``steer``, which returns that
        one. ``by`` names who starts it, whom a policy may keep from deciding on it. With
        ``connection`` the start joins the caller's transaction: no commit, no run.

        Raises:
            InvalidRequestError: an unknown agent or model, a context that does not fit, a number
                out of range, or what is no JSON.
            NotFoundError: there is no such session, or it is another user's.
            InvalidStateError: another run of the session has the turn (``reject``).
            IdempotencyConflictError: the key was used for another start.
            UnavailableError: the database cannot be reached, or was lost in the middle: start again
                with the same ``idempotency_key``.
        """
        if isinstance(context, BaseModel):
            context = context.model_dump(mode="json")
        new = NewRun(
            tenant_id=DEFAULT_TENANT,
            agent=agent,
            input=input,
            context=self.registry.check_start(agent, context),
            max_turns=self.registry.default_max_turns if max_turns is None else max_turns,
            user_id=user_id,
            metadata=metadata or {},
            model=self.registry.check_model(model),
            task=self.registry.check_task(task),
            budget=None if budget is None else parse_limits(budget, "/budget"),
            priority=priority,
            delay_seconds=delay_seconds,
            started_by=program_principal(by).as_requester(),
        )
        session = None
        if session_id is not None or session_key is not None:
            given = None if session_id is None else UUID(str(session_id))
            session = InSession(given, session_key, when_busy)
        once = (new, idempotency_key, session, program_principal(by))
        if connection is not None:
            return self._handle(await start_once(connection, *once))
        async with self.pool.prompt(CONNECTION_SECONDS) as conn:
            run_id = await start_once(conn, *once)
        return self._handle(run_id)

    def _handle(self, run_id: UUID) -> Run:
        return Run(lambda: self.pool, self._waiters, run_id, self._hub, self.registry)

    async def get(self, run_id: UUID | str) -> Run:
        """Return a run as it stands.

        Raises:
            NotFoundError: there is none.
            UnavailableError: the database cannot be reached.
        """
        return await self._handle(UUID(str(run_id))).refresh()

    async def fork(self, run_id: UUID | str, checkpoint: int | None = None, **options: Any) -> Run:
        """Start a run that goes on from a checkpoint of another one, and return it.

        ``options`` and what it raises are those of ``Run.fork``.
        """
        return await self._handle(UUID(str(run_id))).fork(checkpoint, **options)

    async def decide(
        self,
        interruption_id: UUID | str,
        decision: str,
        *,
        digest: str | None = None,
        message: str | None = None,
        arguments: dict[str, Any] | None = None,
        answer: Any = UNSET,
        outcome: str | None = None,
        result: Any = None,
        remember: dict[str, Any] | None = None,
        by: str | None = None,
        groups: Collection[str] = (),
    ) -> dict[str, Any]:
        """Decide an interruption and return it; the run goes on when its last one is decided.

        ``decision`` is ``approve`` (with the ``digest`` that was shown, and with ``arguments`` to
        run the call with others than the model's), ``reject`` (``message`` is read by the model),
        ``answer`` (with an ``answer`` that fits the question's schema) or ``resolve``
        (``outcome`` is ``done`` with ``result``, ``not_done`` or ``abandon``). ``remember`` gives
        a grant with an approval: ``scope``, ``until`` and perhaps ``when``. ``by`` names who
        decided, for the record and for policies; ``groups`` are what they belong to.

        Raises:
            NotFoundError, ForbiddenError, AlreadyDecidedError, DigestMismatchError, ExpiredError,
            InvalidRequestError, UnavailableError: as over HTTP.
        """
        fields: dict[str, Any] = {
            "decision": decision,
            "digest": digest,
            "message": message,
            "answer": answer,
        }
        if arguments is not None:
            fields["arguments"] = arguments
        if outcome is not None:
            fields["outcome"] = outcome
        if result is not None:
            fields["result"] = result
        if remember is not None:
            fields["remember"] = remember
        async with self.pool.prompt(CONNECTION_SECONDS) as conn:
            await resume.decide_and_resume(
                conn,
                tenant_id=DEFAULT_TENANT,
                interruption_id=UUID(str(interruption_id)),
                decision=Decision(**fields),
                by=program_principal(by, groups),
            )
            return await get_interruption(
                conn, tenant_id=DEFAULT_TENANT, interruption_id=UUID(str(interruption_id))
            )

    async def cancel(self, run_id: UUID | str) -> None:
        """Cancel a run; one that is running stops within moments.

        Raises:
            NotFoundError: there is none.
            InvalidStateError: it has finished otherwise.
            UnavailableError: the database cannot be reached, or was lost in the middle.
        """
        async with self.pool.prompt(CONNECTION_SECONDS) as conn:
            await resume.cancel(
                conn,
                tenant_id=DEFAULT_TENANT,
                run_id=UUID(str(run_id)),
                by=program_principal(None),
            )

    async def preflight(self) -> PreflightReport:
        """Load every run that has not ended under this build; return what stands in its way.

        Nothing is run and nothing is written. The engine need not be running: its database is
        looked at, or that of ``DATABASE_URL``.

        Raises:
            ConfigurationError: nothing says where the database is.
            MigrationError: the database lacks tables or columns.
            UnavailableError: it does not answer.
        """
        report = PreflightReport()
        async with AsyncExitStack() as stack:
            pool = self._pool
            if pool is None:
                url = self._database_url or Settings.from_env().require_database_url()
                pool = await stack.enter_async_context(await look_pool(url))
            async for one in look(self.registry, pool):
                report.add(one)
        return report

    def api(self, authenticate: Authenticate | None = None, **options: Any) -> FastAPI:
        """Return the HTTP API as a FastAPI app to serve or to mount in one's own.

        ``authenticate`` returns who asks, or raises UnauthorizedError; by default service keys
        are asked for. The engine has to be running while the app serves.
        """
        from perdure.web.app import create_app

        return create_app(
            pool=lambda: self.pool,
            registry=self.registry,
            waiters=self._waiters,
            hub=self._hub,
            authenticate=authenticate,
            **options,
        )


async def _prepare(url: str, *, migrate_first: bool) -> None:
    if migrate_first:
        owner_url = Settings.from_env().owner_url or url
        state = await migration_status(url)
        if state.pending or state.problem:
            await migrate(owner_url, system=migrate_dbos, serving_role=other_role(url, owner_url))
        else:
            await asyncio.to_thread(migrate_dbos, owner_url)
        return
    (await migration_status(url)).require_current()


__all__ = ["Engine", "Interruption", "Run"]

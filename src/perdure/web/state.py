"""What the routes of one app share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request

from perdure.access.principals import Principal
from perdure.config import Settings
from perdure.db import Connection, Pool
from perdure.errors import UnavailableError
from perdure.events import Hub
from perdure.notify import Waiters
from perdure.web.paths import path_within
from perdure.webhooks.addresses import Allowed

CONNECTION_SECONDS = 5.0
"""How long a request waits for a free connection before it is told to come back."""
ANSWER_SECONDS = 5.0
"""How long the database may take over a request then; most take milliseconds."""
DELETION_SECONDS = 60.0
"""The same for a deletion, which takes as long as there are rows."""
CARRYING_SECONDS = 600.0
"""The same for an export or an import of many sessions."""
_CARRYING_AT_ONCE = 2


class StartRules(Protocol):
    """What a new run is checked against: ``runs.registry.Registry``."""

    default_max_turns: int

    @property
    def agent_names(self) -> list[str]:
        """Names of the agents a run may start with."""

    def check_start(self, agent: str, context: Any) -> Any:
        """Return the context to store, or raise InvalidRequestError."""

    def check_agent(self, name: str) -> str:
        """Return the name of an agent, or raise InvalidRequestError."""

    def check_model(self, name: str | None) -> str | None:
        """Return the name of a model, or raise InvalidRequestError."""

    def check_task(self, task: str | None) -> str | None:
        """Return what the run is for, or raise InvalidRequestError."""


@dataclass(frozen=True, slots=True)
class Api:
    """The parts an app was made of."""

    pool: Callable[[], Pool]
    registry: StartRules
    waiters: Waiters
    hub: Hub
    authenticate: Callable[[Request], Awaitable[Principal]]
    settings: Settings
    allowed: Allowed
    """Where webhooks may lead beyond public addresses."""
    _carrying: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_CARRYING_AT_ONCE)
    )

    def connection(
        self, seconds: float = ANSWER_SECONDS
    ) -> AbstractAsyncContextManager[Connection]:
        """Borrow a connection for a ``with`` block of so many seconds.

        It is in autocommit, rows are dictionaries. Trouble with the database, in the block too, is
        an UnavailableError.
        """
        return self.pool().prompt(CONNECTION_SECONDS, answer_within=seconds)

    @asynccontextmanager
    async def carrying(self) -> AsyncIterator[None]:
        """Be one of the few at a time who keep a connection for minutes: others have to be left.

        Raises:
            UnavailableError: there are enough of them now.
        """
        try:
            async with asyncio.timeout(CONNECTION_SECONDS):
                await self._carrying.acquire()
        except TimeoutError:
            raise UnavailableError(
                f"{_CARRYING_AT_ONCE} exports or imports are under way here. Try again when one "
                "has ended.",
                retry_after=30,
            ) from None
        try:
            yield
        finally:
            self._carrying.release()


def api_of(request: Request) -> Api:
    """Return the parts of the app that serves ``request``."""
    api: Api = request.app.state.api
    return api


def own_path(request: Request) -> str:
    """Return the path within this app, wherever a host application has mounted it."""
    return path_within(request.scope)


def address(request: Request, path: str) -> str:
    """Return ``path`` of this app as it is reached from outside, for a ``Location``."""
    return f"{request.scope.get('root_path', '')}{path}"

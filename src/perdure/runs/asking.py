"""Asking a provider: the one layer that retries, and streams read to their end.

What passes is asked again, up to ``MAX_RETRIES`` times: a network that fails, a time-out, a rate
limit, a server's error, a stream that is cut. What a dead attempt had streamed is forgotten.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from agents import ModelSettings
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseCompletedEvent, ResponseOutputItemDoneEvent

from perdure.runs.execution import Execution
from perdure.runs.sdk import (
    PASSING_CODES,
    leaves_retries_to_us,
    no_provider_retries,
    retryable,
)

_T = TypeVar("_T")

MAX_RETRIES = 4
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 120.0
"""A provider that asks for a longer wait is not waited for: the run fails and says so."""

_END_SECONDS = 0.5
_FAILED = frozenset({"response.failed", "response.incomplete", "error", "response.error"})


class StreamCut(Exception):
    """The provider's stream ended before the reply was complete; asking again may help."""


class ReplyFailed(Exception):
    """The provider ended its reply as failed or incomplete; asking again would not help."""


async def with_retries(
    execution: Execution, ask: Callable[[], Awaitable[_T]], settings: ModelSettings
) -> tuple[_T, int, int]:
    """Ask until there is a reply; return it, the milliseconds of the attempt that gave it, and
    which attempt it was, from 1.

    Where the user's own ``model_settings.retry`` retries, or says not to, it is left to that: one
    layer retries, never two, and never the provider's client beneath.
    """
    left = MAX_RETRIES if leaves_retries_to_us(settings.retry) else 0
    attempt = 0
    while True:
        began = time.monotonic()
        try:
            with no_provider_retries():
                reply = await ask()
            return reply, int((time.monotonic() - began) * 1000), attempt + 1
        except Exception as error:
            delay = _delay(error, attempt) if attempt < left else None
            if delay is None:
                execution.model_errors.append(error)
                raise
        attempt += 1
        await asyncio.sleep(delay)
        await execution.may_begin()


def _delay(error: Exception, attempt: int) -> float | None:
    """Return how long to wait before asking again, None when that would not help."""
    again, wait = retryable(error)
    if not again and not isinstance(error, StreamCut):
        return None
    if wait is not None:
        # Never earlier than asked for, and not all at the same moment.
        spread = 1 + random.random() / 10  # noqa: S311
        return wait * spread if wait <= LONGEST_WAIT_SECONDS else None
    delay: float = min(FIRST_DELAY_SECONDS * 2**attempt, MAX_DELAY_SECONDS)
    return delay * (0.75 + random.random() / 2)  # noqa: S311


async def read_to_end(
    stream: AsyncIterator[TResponseStreamEvent], hear: Callable[[TResponseStreamEvent], None]
) -> ResponseCompletedEvent:
    """Read a provider's stream, let each event be heard, and return its completed one.

    Raises:
        StreamCut: it ended before, or says that the provider has passing trouble.
        ReplyFailed: the provider gave up on the reply.
    """
    try:
        completed = await _completed(stream, hear)
        # A connection whose answer was read whole serves the next request. What happens to it
        # now takes nothing away from the reply, and nobody waits long for an end that is late.
        with suppress(Exception):
            async with asyncio.timeout(_END_SECONDS):
                async for _ in stream:
                    pass
        return completed
    finally:
        close = getattr(stream, "aclose", None)
        if callable(close):
            with suppress(Exception):
                await close()


async def _completed(
    stream: AsyncIterator[TResponseStreamEvent], hear: Callable[[TResponseStreamEvent], None]
) -> ResponseCompletedEvent:
    done: list[Any] = []
    async for event in stream:
        if isinstance(event, ResponseCompletedEvent):
            if not event.response.output and done:
                # Some providers send the items one by one and leave the last event empty.
                event.response.output = done
            return event
        hear(event)
        if isinstance(event, ResponseOutputItemDoneEvent):
            done.append(event.item)
        elif getattr(event, "type", None) in _FAILED:
            raise _failure(event)
    raise StreamCut("The model's stream ended before its reply was complete.")


def _failure(event: Any) -> Exception:
    response = getattr(event, "response", None)
    error = getattr(response, "error", None) or getattr(response, "incomplete_details", None)
    code = getattr(error, "code", None) or getattr(event, "code", None)
    text = getattr(error, "message", None) or getattr(error, "reason", None)
    words = text or getattr(event, "message", None) or code or "no reason given"
    message = f"{event.type}: {words}"
    return StreamCut(message) if code in PASSING_CODES else ReplyFailed(message)

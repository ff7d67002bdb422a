"""What a running tool may know of its call, and say: what it changed, what it gives.

Works in ``async`` and in plain tools, as the SDK carries the context into its threads.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from perdure.errors import ConfigurationError
from perdure.ledger.annotations import Annotations
from perdure.ledger.operations import Operations

__all__ = ["ToolCall", "annotate", "current_tool_call", "record_operation", "tool_call"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a tool may know of the call it is running for."""

    run_id: str
    call_id: str
    attempt: int
    idempotency_key: str
    _connection: AsyncConnection[Any] | None = field(default=None, repr=False)
    _operations: Operations | None = field(default=None, repr=False, compare=False)
    """Where what it changes is recorded; None in a probe, which changes nothing."""
    _annotations: Annotations | None = field(default=None, repr=False, compare=False)

    @property
    def connection(self) -> AsyncConnection[Any]:
        """The open transaction of a ``transactional`` tool; never commit it yourself.

        Raises:
            ConfigurationError: in a tool that is not marked ``effect("transactional")``.
        """
        if self._connection is None:
            raise ConfigurationError(
                f"Tool call {self.call_id} of run {self.run_id} has no connection: "
                'mark the tool with effect("transactional") to get one.'
            )
        return self._connection


current_tool_call: ContextVar[ToolCall | None] = ContextVar("perdure_tool_call", default=None)


def tool_call() -> ToolCall:
    """Return the call the running tool serves: run, call id, attempt, idempotency key.

    Works in ``async`` and in plain tools, as the SDK carries the context into its threads.

    Raises:
        ConfigurationError: outside a tool of a durable run.
    """
    call = current_tool_call.get()
    if call is None:
        raise ConfigurationError(
            "tool_call() was asked for outside a durable run: it is known only while a tool "
            "runs for a run started through an Engine."
        )
    return call


def record_operation(kind: str, target: str, previous: Any = None, new: Any = None) -> None:
    """Record, inside a tool, that it changed ``target`` from ``previous`` to ``new``.

    ``kind`` is one that the engine declares, ``target`` a name of the tool's own (``todo/42``), the
    states are JSON as they are now, None where there is none. It is written with the call's
    outcome, also of one that failed, in one transaction: that of the effect in a ``transactional``
    tool, which keeps nothing if it fails. Works in ``async`` and in plain tools.

    Raises:
        ConfigurationError: outside a tool of a durable run, in a probe, after the call was over, or
            for a kind that is not declared.
        InvalidRequestError: the target or a state cannot be stored.
    """
    call = current_tool_call.get()
    if call is None or call._operations is None:
        raise ConfigurationError(
            f"record_operation({kind!r}, {target!r}) was called outside a tool of a durable run: "
            "it is part of a tool call's outcome, of a run started through an Engine."
        )
    call._operations.add(kind, target, previous, new)


def annotate(**metadata: Any) -> None:
    """Say, inside a tool, what is to be known of what it gives: ``annotate(sources=[…])``.

    JSON by names. The item of the call's output has it as ``metadata``, and the next message of
    the run's agent has that of all calls since the one before; of equal names the last counts. Of
    a call that fails nothing is kept. Works in ``async`` and in plain tools, and in those of agents
    used as tools.

    Raises:
        ConfigurationError: outside a tool of a durable run, in a probe, or after the call was over.
        InvalidRequestError: it is no JSON, or in all longer than 100,000 characters.
    """
    call = current_tool_call.get()
    if call is None or call._annotations is None:
        raise ConfigurationError(
            "annotate() was called outside a tool of a durable run: what it says goes with a tool "
            "call's output, in a run started through an Engine."
        )
    call._annotations.add(metadata)

"""What a tool call is and what it came to, as the wrappers and the ledger exchange it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perdure.errors import StopSegment
from perdure.ledger.effects import Effect
from perdure.runs.probing import Probe


class RecordedToolError(Exception):
    """A tool's exception, raised again from its record: the same words, not the same type."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call about to be served: what its row is found by and made of."""

    call_id: str
    tool: str
    kind: str
    effect: Effect
    arguments: dict[str, Any] | None = None
    arguments_raw: str | None = None
    probe: Probe | None = None
    """Who is asked when nobody knows whether it happened."""


@dataclass(slots=True)
class Outcome:
    """What a tool call came to.

    ``value`` is what the SDK gets; ``stored`` is the JSON it is kept as; ``error`` is set when
    the call failed; ``raised`` when the exception goes on through the SDK; ``cause`` is the
    tool's exception also where the SDK made a message of it; ``final`` is False when there is
    nothing to record yet (an agent tool that stopped on an interruption).
    """

    value: Any = None
    stored: dict[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    raised: BaseException | None = None
    cause: BaseException | None = None
    final: bool = True
    from_sdk: bool = False
    operations: list[dict[str, Any]] = field(default_factory=list)
    """What the call recorded that it changed; written with it."""
    replayed: bool = False
    """Whether it comes from the call's row: nothing was run for it now."""

    def as_entry(self) -> dict[str, Any]:
        """Return the columns of its ledger entry."""
        error = None
        if self.error is not None:
            error = {
                "type": self.error_type or "Exception",
                "message": self.error,
                "raised": self.raised is not None,
                "from_sdk": self.from_sdk,
            }
        entry = {
            "kind": "outcome",
            "status": "failed" if error else "succeeded",
            "output": self.stored,
            "error": error,
        }
        return entry | {"operations": self.operations} if self.operations else entry


def raised(error: BaseException) -> Outcome:
    """Return the outcome of a tool that raised ``error``, which goes on through the SDK."""
    return Outcome(error=str(error), error_type=type(error).__name__, raised=error, cause=error)


def cancelled_itself(error: asyncio.CancelledError) -> Outcome:
    """Return a tool's own CancelledError as its outcome; raise that of somebody who cancels it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    return raised(error)


def ended_with(error: BaseException) -> Outcome:
    """Return the outcome of a tool that raised ``error``, whatever it is; raise what is not its.

    A BaseException becomes an Exception: the SDK would cancel the tools beside it in mid-effect.
    """
    if isinstance(error, asyncio.CancelledError):
        return cancelled_itself(error)
    return raised(as_exception(error))


def as_exception(error: BaseException) -> Exception:
    """Return what a tool raised as an Exception, chained to it; raise what is not the tool's."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, StopSegment | KeyboardInterrupt | GeneratorExit):
        raise error
    if isinstance(error, SystemExit):
        # It would end the worker with every run in it.
        instead = RuntimeError(f"The tool called sys.exit({error.code!r}).")
    else:
        instead = RuntimeError(f"The tool raised {type(error).__name__}: {error}")
    instead.__cause__ = error
    return instead


def replayed(
    stored: dict[str, Any] | None,
    error: dict[str, Any] | None,
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    """Return the outcome a call's row holds; ``decode`` makes of its output what the SDK gets."""
    value = decode(stored) if stored is not None else None
    if error is None:
        return Outcome(value=value, stored=stored, replayed=True)
    message = str(error.get("message", ""))
    again: BaseException | None = None
    if error.get("raised"):
        # The SDK treats a cancelled tool in its own way; all else it treats alike.
        cancelled = error.get("type") == "CancelledError"
        again = asyncio.CancelledError(message) if cancelled else RecordedToolError(message)
    return Outcome(
        value=value,
        stored=stored,
        error=message,
        error_type=error.get("type"),
        raised=again,
        from_sdk=bool(error.get("from_sdk")),
        replayed=True,
    )

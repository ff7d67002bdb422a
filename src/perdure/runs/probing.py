"""Asking a tool's probe whether a call happened. It changes nothing; doubts.py does.

A probe is the user's code like a tool, and like a tool it runs outside the workflow's context, so
that a DBOS step of its own is one of its own. Whatever it does but answer means that it does not
know.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from perdure.errors import StopSegment
from perdure.interruptions.decisions import RESULT_UNKNOWN
from perdure.ledger.effects import Done, Look, probe_of
from perdure.ledger.failures import in_words
from perdure.ledger.native_outputs import decode_patch, decode_shell, encode_patch, encode_shell
from perdure.ledger.outputs import decode_output, encode_output
from perdure.ledger.tool_call import ToolCall, current_tool_call

PROBE_SECONDS = 30.0
"""How long a probe may look before a person is asked."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A tool's probe, and how a result it gives is stored and read back."""

    look: Look
    encode: Callable[[Any], dict[str, Any]]
    decode: Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe said: ``output`` is the stored result of ``done``, ``words`` are for people."""

    status: Literal["done", "not_done", "unknown"]
    words: str
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def probe_for(tool: Any, kind: str) -> Probe | None:
    """Return the probe of ``tool``, whose calls are of ``kind``, or None where it has none."""
    look = probe_of(tool)
    if look is None:
        return None
    match kind:
        case "shell":
            return Probe(look, encode_shell, decode_shell)
        case "apply_patch":
            return Probe(look, encode_patch, decode_patch)
        case _:
            adapter = getattr(tool, "_output_type_adapter", None)
            return Probe(
                look,
                partial(encode_output, adapter=adapter),
                partial(decode_output, adapter=adapter),
            )


async def ask(probe: Probe, call: ToolCall) -> Answer:
    """Ask ``probe`` about ``call`` and return what it says, within ``PROBE_SECONDS``."""
    task = asyncio.create_task(_look(probe.look, call), context=contextvars.Context())
    try:
        await asyncio.wait({task}, timeout=PROBE_SECONDS)
        if task.done():
            return _answer(probe, task.result())
    finally:
        task.cancel()
    return Answer(
        "unknown",
        f"Its probe gave no answer within {PROBE_SECONDS:g} s.",
        error={"type": "TimeoutError", "message": f"No answer within {PROBE_SECONDS:g} s."},
    )


async def _look(look: Look, call: ToolCall) -> Any:
    """Return what ``look`` says, or the exception it raised: nothing of it may get lost."""
    current_tool_call.set(call)
    try:
        if inspect.iscoroutinefunction(look):
            return await look(call.idempotency_key)
        said = await asyncio.to_thread(look, call.idempotency_key)
        return await said if inspect.isawaitable(said) else said
    except (StopSegment, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return error


def _answer(probe: Probe, said: Any) -> Answer:
    match said:
        case Done(result):
            try:
                stored = probe.encode(result)
                probe.decode(stored)
            except Exception as error:  # noqa: BLE001 - it is shown to whoever decides
                return _failed(f"gave a result that cannot be kept: {in_words(error)}", error)
            return Answer("done", "Its probe says that it happened.", output=stored)
        case True:
            return Answer("done", "Its probe says that it happened.", output=RESULT_UNKNOWN)
        case False:
            return Answer("not_done", "Its probe says that it did not happen.")
        case None:
            return Answer("unknown", "Its probe does not know.")
        case BaseException():
            return _failed(f"ended with {in_words(said)}", said)
        case _:
            shown = f"returned {_short(said)}, which is no answer"
            return _failed(shown, TypeError(f"It {shown}: Done(…), True, False or None is one."))


def _failed(what: str, error: BaseException) -> Answer:
    return Answer(
        "unknown",
        f"Its probe {what}.",
        error={"type": type(error).__name__, "message": str(error)},
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"

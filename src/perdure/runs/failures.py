"""Why a run failed: ``error.type`` and the message, from the exception that ended it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

import agents as sdk
from agents.tool_guardrails import ToolGuardrailFunctionOutput

from perdure.errors import PerdureError

_GUARDRAILS = (
    sdk.InputGuardrailTripwireTriggered,
    sdk.OutputGuardrailTripwireTriggered,
    sdk.ToolInputGuardrailTripwireTriggered,
    sdk.ToolOutputGuardrailTripwireTriggered,
)
_MODEL = (sdk.ModelBehaviorError, sdk.ModelRefusalError)
_NOT_THE_USERS = (str(Path(__file__).parent.parent), str(Path(sdk.__file__).parent))


def classify(error: BaseException, model_errors: Sequence[BaseException]) -> tuple[str, str]:
    """Return ``error.type`` and the message for what ended a run.

    ``model_errors`` are those the model itself raised: theirs are the words the provider used.
    """
    if isinstance(error, sdk.MaxTurnsExceeded):
        return "max_turns", str(error)
    if isinstance(error, _GUARDRAILS):
        return "guardrail", _guardrail_text(error)
    for cause in _chain(error):
        if cause in model_errors:
            return "model_error", _with_cause(cause)
    if isinstance(error, (*_MODEL, sdk.ModelTimeoutError)):
        return "model_error", str(error)
    if isinstance(error, PerdureError):
        return "programming_error", str(error)
    return "programming_error", _with_place(_own(error))


def is_unusable_reply(error: BaseException) -> bool:
    """Whether a reply came and the SDK could do nothing with it: it would fail a replay too."""
    return isinstance(error, _MODEL)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        if cause in chain:
            break
        chain.append(cause)
    return chain


def _own(error: BaseException) -> BaseException:
    """Return what the user's code raised, where the SDK has put its own words around it."""
    while isinstance(error, sdk.UserError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _named(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _with_cause(error: BaseException) -> str:
    """Return what went wrong; of a connection the cause says it, the error itself does not."""
    cause = error.__cause__
    return _named(error) if cause is None else f"{_named(error)} ({_named(cause)})"


def _with_place(error: BaseException) -> str:
    """Return what went wrong and the last place in the user's own code it went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_NOT_THE_USERS) and "site-packages" not in frame.filename:
            place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
            return f"{_named(error)} ({place})"
    return _named(error)


def _guardrail_text(error: Exception) -> str:
    result = getattr(error, "guardrail_result", None)
    guardrail = getattr(result, "guardrail", None) or getattr(error, "guardrail", None)
    name = guardrail.get_name() if guardrail is not None else "A guardrail"
    output = getattr(result, "output", None) or getattr(error, "output", None)
    info = getattr(output, "output_info", None)
    if isinstance(output, ToolGuardrailFunctionOutput):
        info = output.output_info
    return f"Guardrail {name} stopped the run" + (f": {info}" if info is not None else ".")

"""What we lean on inside the Agents SDK, in one place, each with the reason.

The package is held to one minor version; tests/unit/test_sdk_inside.py checks the contracts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from agents import (
    Agent,
    ComputerTool,
    FunctionTool,
    Model,
    ModelBehaviorError,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    RunState,
    Usage,
    UserError,
)
from agents._function_tool_arguments import FunctionToolApproval
from agents._tool_identity import get_tool_approval_item_call_id
from agents.agent_tool_state import (
    drop_agent_tool_run_result,
    get_agent_tool_state_scope,
    peek_agent_tool_run_result,
)
from agents.items import ToolApprovalItem, TResponseInputItem
from agents.memory import SessionSettings
from agents.model_settings import _TRACEABLE_MODEL_SETTING_FIELDS
from agents.models._retry_runtime import (
    get_error_header,
    get_retry_after,
    provider_managed_retries_disabled,
)
from agents.run_internal import tool_execution
from agents.run_internal.model_retry import _normalize_retry_error
from agents.run_internal.run_steps import NextStepInterruption, NextStepRunAgain
from agents.run_internal.session_persistence import prepare_input_with_session
from agents.run_internal.tool_actions import ComputerAction
from agents.tool import (
    _DEFAULT_FAILURE_HANDLED_ATTR,
    _consume_function_tool_default_failure,
    _get_computer_initializer,
    _invoke_function_tool_with_metadata,
    _is_computer_provider,
)
from agents.tool import _FailureHandlingFunctionToolInvoker as _SdkInvoker
from agents.tool_context import ToolContext
from agents.usage import _response_usage_to_usage
from agents.util._error_tracing import get_current_task_model_timeout_error
from agents.version import __version__ as sdk_version
from openai import APIError, OpenAIError
from openai.types.responses import ResponseComputerToolCall, ResponseUsage
from pydantic import TypeAdapter

__all__ = [
    "PASSING_CODES",
    "SYNC_TOOL_MARKER",
    "PendingApproval",
    "add_messages",
    "approval_call_id",
    "behind_history",
    "calls_to_go_on_with",
    "computer_config",
    "current_agent_name",
    "current_turn",
    "forget_nested_run",
    "gate_function_tools",
    "goes_on",
    "has_turns_left",
    "invoke_function_tool",
    "items_in",
    "leaves_retries_to_us",
    "mark_default_failure",
    "model_timed_out",
    "nested_interruptions",
    "nested_states",
    "never_reached",
    "no_provider_retries",
    "pending_approvals",
    "reopen",
    "resumes_a_turn",
    "retryable",
    "sdk_version",
    "serve_computer_calls",
    "shown_settings",
    "supports_prompt_cache_key",
    "usage_of",
]

SYNC_TOOL_MARKER = "__agents_sync_function_tool__"
"""Set on the invoker of a plain (not ``async``) tool; a wrapper has to carry it on."""

PASSING_CODES = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "slow_down"}
)
"""What a provider says, when an answer has begun, of trouble that passes."""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})
"""What the HTTP client raises where a request has not left it."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LASTING_CODES = frozenset({"insufficient_quota"})


async def invoke_function_tool(
    tool: FunctionTool, context: ToolContext[Any], arguments: str
) -> tuple[Any, bool]:
    """Run ``tool`` as the SDK would: its time-out, its failure handler, the context it declared.

    Returns its output, and whether that is a message the SDK made of an error.
    """
    if tool.timeout_seconds is None and type(tool.on_invoke_tool) is _SdkInvoker:
        # What the SDK would do, less its look at the invoker's signature, which is known here.
        _consume_function_tool_default_failure(context)
        output = await tool.on_invoke_tool(context, arguments)
        return output, _consume_function_tool_default_failure(context)
    result = await _invoke_function_tool_with_metadata(
        function_tool=tool, context=context, arguments=arguments
    )
    return result.output, result.is_sdk_generated_error


def mark_default_failure(context: ToolContext[Any]) -> None:
    """Tell the SDK that the output is an error message, which bypasses the output schema."""
    setattr(context, _DEFAULT_FAILURE_HANDLED_ATTR, True)


def nested_interruptions(context: ToolContext[Any]) -> bool:
    """Whether the agent run beneath this tool call stopped on an interruption."""
    if context.tool_call is None:
        return False
    result = peek_agent_tool_run_result(
        context.tool_call, scope_id=get_agent_tool_state_scope(context)
    )
    return bool(result is not None and getattr(result, "interruptions", None))


def forget_nested_run(context: ToolContext[Any]) -> None:
    """Let the SDK go by what this call returns, not by a nested run its state has waiting."""
    if context.tool_call is not None:
        drop_agent_tool_run_result(context.tool_call, scope_id=get_agent_tool_state_scope(context))


def no_provider_retries() -> AbstractContextManager[None]:
    """Switch off the OpenAI client's own retries, so that one layer alone retries."""
    return provider_managed_retries_disabled(True)


def leaves_retries_to_us(settings: ModelRetrySettings | None) -> bool:
    """Whether the SDK neither retries by ``settings`` nor is told that nobody shall."""
    if settings is None or settings.max_retries is None:
        return True
    return settings.max_retries > 0 and settings.policy is None


def retryable(error: Exception) -> tuple[bool, float | None]:
    """Return whether a failed model request may be sent again, and the seconds to wait if said.

    Network failures, time-outs, rate limits and server errors may, within a stream too; a refused
    request may not. Where the server itself says so (``x-should-retry``), it is right.
    """
    normalized = _normalize_retry_error(error, None)
    if normalized.is_abort or normalized.error_code in _LASTING_CODES:
        return False, None
    wait = get_retry_after(error)
    said = get_error_header(error, "x-should-retry")
    if said in ("true", "false"):
        return said == "true", wait
    if normalized.status_code is not None:
        return normalized.status_code in _RETRIED_STATUSES, wait
    return _within_an_answer(error) or normalized.is_network_error or normalized.is_timeout, wait


def never_reached(error: Exception) -> bool:
    """Whether a failed model request certainly made the provider do nothing.

    It was refused with a 4xx status, or has not left: a connection that was refused, a request
    the SDK or the client could not make. All else leaves it open.
    """
    for cause in _causes(error):
        status = getattr(cause, "status_code", None)
        if isinstance(status, int):
            return 400 <= status < 500
        kind = type(cause)
        if kind.__name__ in _NOT_SENT and kind.__module__.startswith(("httpx", "httpcore")):
            return True
    return isinstance(error, UserError) or (
        isinstance(error, OpenAIError) and not isinstance(error, APIError)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Not the context: an error that was being handled when the model was asked is another one.
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def model_timed_out() -> bool:
    """Whether the task is being cancelled because ``model_settings.timeout`` is over."""
    return get_current_task_model_timeout_error() is not None


def _within_an_answer(error: Exception) -> bool:
    """Whether an answer that had begun well says that the provider has passing trouble."""
    if isinstance(error, APIError):
        # Gateways put the status of the one behind them where the API puts a word.
        passing = PASSING_CODES.union(map(str, _RETRIED_STATUSES))
        return str(error.code) in passing or error.type in passing
    # A chat that was cut, a reply that failed unstreamed: the SDK keeps nothing but this text.
    text = str(error) if isinstance(error, ModelBehaviorError) else ""
    failed = "`response.failed`" in text and any(f"code='{code}'" in text for code in PASSING_CODES)
    return failed or "ended before receiving a finish_reason" in text


def usage_of(usage: ResponseUsage | None) -> Usage:
    """Return what a reply cost, one request at least, whatever the provider left out."""
    return Usage(requests=1) if usage is None else _response_usage_to_usage(usage)


def shown_settings(settings: ModelSettings) -> dict[str, Any]:
    """Return what is set of ``settings``, as JSON, but for extras of a provider's.

    As ``to_traceable_dict`` does, which makes a type adapter each time.
    """
    given = {name: getattr(settings, name, None) for name in _TRACEABLE_MODEL_SETTING_FIELDS}
    return {
        name: value
        if isinstance(value, str | int | float)
        else _ANY.dump_python(value, mode="json")
        for name, value in given.items()
        if value is not None
    }


def supports_prompt_cache_key(model: Model) -> bool:
    """Whether the SDK gives ``model`` a cache key for each run when the user gives none."""
    supports = getattr(model, "_supports_default_prompt_cache_key", None)
    return bool(supports()) if callable(supports) else False


def approval_call_id(item: ToolApprovalItem) -> str:
    """Return the id of the call an approval is asked for; nothing where it has none."""
    return get_tool_approval_item_call_id(item) or ""


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A call that waits for approval: of ``owner``, beneath the calls of ``path``."""

    item: ToolApprovalItem
    owner: RunState[Any, Agent[Any]]
    path: tuple[str, ...] = ()

    @property
    def call_id(self) -> str:
        """The id of the call, unique only beneath its path."""
        return approval_call_id(self.item)

    def approve(self) -> None:
        """Let this one call run."""
        assert self.owner._context is not None  # noqa: S101 - a state that waits has one
        self.owner._context.approve_tool(self.item)

    def reject(self, message: str | None) -> None:
        """Answer this one call with ``message``, or with what the SDK says by default."""
        assert self.owner._context is not None  # noqa: S101 - a state that waits has one
        self.owner._context.reject_tool(self.item, rejection_message=message)


def pending_approvals(state: RunState[Any, Agent[Any]]) -> list[PendingApproval]:
    """Return what ``state`` waits for, nested runs first, in an order that survives its JSON.

    ``RunState.get_interruptions`` does not say which nested run an approval belongs to, and
    ``RunState.approve`` refuses two calls of one id in two of them.
    """
    beneath = [
        replace(one, path=(call_id, *one.path))
        for call_id, nested in nested_states(state).items()
        for one in pending_approvals(nested)
    ]
    step = state._current_step
    items = step.interruptions if isinstance(step, NextStepInterruption) else ()
    own = [
        PendingApproval(item, state)
        for item in items
        if not any(RunState._approval_items_match(one.item, item) for one in beneath)
    ]
    return beneath + own


def nested_states(
    state: RunState[Any, Agent[Any]],
) -> dict[str, RunState[Any, Agent[Any]]]:
    """Return the states of agents used as tools that wait beneath ``state``, by call id."""
    processed = state._last_processed_response
    found: dict[str, RunState[Any, Agent[Any]]] = {}
    for run in processed.functions if processed is not None else ():
        result = peek_agent_tool_run_result(
            run.tool_call, scope_id=state._agent_tool_state_scope_id
        )
        if result is not None and result.interruptions:
            found[run.tool_call.call_id] = result.to_state()
    return found


def calls_to_go_on_with(state: RunState[Any, Agent[Any]]) -> set[str]:
    """Return the ids of the calls whose tools ``state`` has found, of the turn it is in."""
    processed = state._last_processed_response
    if processed is None:
        return set()
    runs: list[Any] = [
        *processed.handoffs,
        *processed.functions,
        *processed.computer_actions,
        *processed.custom_tool_calls,
        *processed.local_shell_calls,
        *processed.shell_calls,
        *processed.apply_patch_calls,
    ]
    return {_id_of(run.tool_call) for run in runs}


def _id_of(call: Any) -> str:
    given = call.get("call_id") if isinstance(call, dict) else getattr(call, "call_id", None)
    return str(given or "")


def current_agent_name(state: RunState[Any, Agent[Any]]) -> str:
    """Return the name of the agent whose turn it is in ``state``."""
    agent = state._current_agent
    return agent.name if agent is not None else ""


def current_turn(state: RunState[Any, Agent[Any]]) -> int:
    """Return how many turns ``state`` has taken."""
    return int(state._current_turn)


def items_in(state: RunState[Any, Agent[Any]]) -> int:
    """Return how many items ``state`` has of the run since its input."""
    return len(state._generated_items)


def goes_on(state: RunState[Any, Agent[Any]]) -> bool:
    """Whether a state made after a soft cancel has another turn to take."""
    return isinstance(state._current_step, NextStepRunAgain)


def resumes_a_turn(state: RunState[Any, Agent[Any]]) -> bool:
    """Whether ``state`` first ends a turn that was interrupted, before a model is asked."""
    return isinstance(state._current_step, NextStepInterruption)


def has_turns_left(state: RunState[Any, Agent[Any]]) -> bool:
    """Whether the limit of turns lets ``state`` ask a model once more."""
    return state._max_turns is None or state._current_turn < state._max_turns


def reopen(state: RunState[Any, Agent[Any]]) -> None:
    """Let a state whose agent has given its final output take another turn.

    It is as that of a turn that ended with tool calls, but for this mark: the conversation, the
    turns and what it used are in it.
    """
    state._current_step = NextStepRunAgain()


def add_messages(state: RunState[Any, Agent[Any]], items: list[dict[str, Any]]) -> None:
    """Add a user's messages to what ``state`` gives the model next.

    Raises:
        agents.UserError: it takes none: it has no turn left, or does not go on.
    """
    state.add_input(cast("list[TResponseInputItem]", items))


IsGated = Callable[[FunctionTool, str], Awaitable[bool | None]]


def gate_function_tools(is_gated: IsGated) -> None:
    """Let ``is_gated`` stand before every call of a function tool of this process, for good.

    It is given the tool and the call's id, and says whether the call has to wait for approval.
    False: the tool's own ``needs_approval`` counts; None: it waits for nobody, whatever that says.
    It does not stand in that field: where there is a callable, the SDK asks for approval of all
    arguments it cannot look into as well.
    """
    evaluate = tool_execution.evaluate_function_tool_approval  # type: ignore[attr-defined]

    async def through(
        function_tool: FunctionTool,
        context: Any,
        arguments: str,
        call_id: str,
        *,
        strict: bool = True,
    ) -> FunctionToolApproval:
        waits = await is_gated(function_tool, call_id)
        if waits is not False:
            outcome: Literal["require_approval", "invoke"] = "require_approval"
            if waits is None:
                outcome = "invoke"
            invoker = function_tool.on_invoke_tool
            return FunctionToolApproval(outcome, function_tool, invoker, arguments)
        approval: FunctionToolApproval = await evaluate(
            function_tool, context, arguments, call_id, strict=strict
        )
        return approval

    tool_execution.evaluate_function_tool_approval = through  # type: ignore[attr-defined]


Act = Callable[[], Awaitable[str]]
ServeComputerCall = Callable[[ResponseComputerToolCall, list[Any], Any, Act], Awaitable[str]]


def serve_computer_calls(serve: ServeComputerCall) -> None:
    """Let every computer call of this process be carried out through ``serve``, for good.

    The SDK hands a computer neither the call nor its end, only one action after the other. So
    where it carries out a call's actions, which is no part of any tool, ``serve`` is given the
    call, its actions, the computer, and what carries them out and returns the screenshot (base64).
    """
    act = ComputerAction._execute_action_and_capture

    async def through(
        cls: type[ComputerAction], computer: Any, tool_call: ResponseComputerToolCall
    ) -> str:
        actions = cls._iter_actions(tool_call)
        return await serve(tool_call, actions, computer, lambda: act(computer, tool_call))

    ComputerAction._execute_action_and_capture = classmethod(through)  # type: ignore[assignment,method-assign]


def computer_config(tool: ComputerTool[Any]) -> tuple[Any, Any, Any]:
    """Return (computer, create, dispose) of a computer tool: a computer, or how one is made.

    While a run is under way the SDK puts the computer in the place of what made it.
    """
    config: Any = _get_computer_initializer(tool)
    if config is None:
        return tool.computer, None, None
    if _is_computer_provider(config):
        return None, config.create, getattr(config, "dispose", None)
    return None, config, None


async def behind_history(
    run_input: str | list[Any], history: Sequence[TResponseInputItem], config: RunConfig
) -> str | list[Any]:
    """Return an input merged with a session's items, as the SDK does where it has the session."""
    prepared, _ = await prepare_input_with_session(
        run_input, _Items(history), config.session_input_callback
    )
    return prepared


class _Items:
    """Items as the session they are of, as far as merging needs one."""

    session_settings: SessionSettings | None = None

    def __init__(self, items: Sequence[TResponseInputItem]) -> None:
        self.session_id = ""
        self._items = list(items)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items."""
        return self._items

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Nothing is added here."""

    async def pop_item(self) -> TResponseInputItem | None:
        """Nothing is removed here."""
        return None

    async def clear_session(self) -> None:
        """Nothing is removed here."""

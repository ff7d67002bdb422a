"""Perdure: OpenAI Agents SDK runs that outlive their process.

The public names load when first asked for: the Agents SDK takes seconds to import, and commands
that need no agents should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from perdure.engine import Engine
    from perdure.interruptions.policies.deciders import Deciders
    from perdure.interruptions.policies.policy import Policy
    from perdure.ledger.effects import Done, effect
    from perdure.ledger.prices import Price
    from perdure.ledger.tool_call import annotate, record_operation, tool_call
    from perdure.runs.ask_human import ask_human
    from perdure.runs.handle import Run
    from perdure.runs.interruption import Interruption
    from perdure.runs.sdk_streaming.events import Interrupted, StreamEvent, Superseded
    from perdure.runs.state_store import KeptState, RunStateStore
    from perdure.sessions.postgres_session import PostgresSession

_HOMES = {
    "Deciders": "perdure.interruptions.policies.deciders",
    "Done": "perdure.ledger.effects",
    "Engine": "perdure.engine",
    "Interrupted": "perdure.runs.sdk_streaming.events",
    "Interruption": "perdure.runs.interruption",
    "KeptState": "perdure.runs.state_store",
    "Policy": "perdure.interruptions.policies.policy",
    "PostgresSession": "perdure.sessions.postgres_session",
    "Price": "perdure.ledger.prices",
    "Run": "perdure.runs.handle",
    "RunStateStore": "perdure.runs.state_store",
    "StreamEvent": "perdure.runs.sdk_streaming.events",
    "Superseded": "perdure.runs.sdk_streaming.events",
    "annotate": "perdure.ledger.tool_call",
    "ask_human": "perdure.runs.ask_human",
    "effect": "perdure.ledger.effects",
    "record_operation": "perdure.ledger.tool_call",
    "tool_call": "perdure.ledger.tool_call",
}

__all__ = [
    "Deciders",
    "Done",
    "Engine",
    "Interrupted",
    "Interruption",
    "KeptState",
    "Policy",
    "PostgresSession",
    "Price",
    "Run",
    "RunStateStore",
    "StreamEvent",
    "Superseded",
    "__version__",
    "annotate",
    "ask_human",
    "effect",
    "record_operation",
    "tool_call",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Models that answer by rules, so that the examples run with no key and no network.

``model`` is the Agents SDK ``Model`` and its provider; beside it one module of rules for each
example. They are deterministic and keep nothing: what they answer follows from what they are
asked, so a run that begins again in another process is answered the same.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.offline.model import OfflineProvider

__all__ = ["unless_key"]

_KEY = "OPENAI_API_KEY"
_REAL = (_KEY, "OPENAI_BASE_URL")


def unless_key(rules: str) -> OfflineProvider | None:
    """Return a provider that answers by rules, without a network: those of an example's name.

    None where ``OPENAI_API_KEY`` or ``OPENAI_BASE_URL`` is set: then the SDK's own provider, the
    default of an ``Engine``, asks the real model.
    """
    from agents import set_default_openai_key, set_tracing_disabled

    if not os.environ.get(_KEY):
        # Traces go to OpenAI; at the end the SDK would say that it has no key for them.
        set_tracing_disabled(True)
    if any(os.environ.get(name) for name in _REAL):
        if not os.environ.get(_KEY):
            # A server of one's own mostly wants no key; the client does.
            set_default_openai_key("none", use_for_tracing=False)
        return None
    from perdure.offline.model import OfflineProvider

    return OfflineProvider(import_module(f"perdure.offline.{rules}").answer)

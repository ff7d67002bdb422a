"""A question a run waits on, in a program's hands."""

from __future__ import annotations

from typing import Any


class Interruption(dict[str, Any]):
    """A question a run has stopped on, as the HTTP API shows it; keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

"""How a command's help ends: with examples, as they were written."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Return an epilog that shows ``lines`` under "Examples:", unwrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])

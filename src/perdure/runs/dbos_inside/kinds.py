"""The kinds of workflows there are, each with a queue of its own.

A workflow of either is known by its id, ``<uuid>:<number>``, which is its arguments too.
``statements.sql`` and ``looks.sql`` write the same names.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DELIVERY", "SEGMENT", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """``noun`` completes "is no …"."""

    workflow: str
    queue: str
    noun: str


SEGMENT = Kind("perdure_segment", "perdure", "segment of a run")
DELIVERY = Kind("perdure_delivery", "perdure_deliveries", "delivery to a webhook")

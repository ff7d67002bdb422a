"""The ids of a run's trace: each process can tell them from the run's own.

The trace has the run's id. Spans that outlive a process have ids made from what they are of, where
the tracer provider lets them be chosen (``perdure.otel.RunIdGenerator``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

__all__ = [
    "Chosen",
    "choosing",
    "chosen",
    "nested_span_id",
    "root_span_id",
    "sampling_id",
    "segment_span_id",
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ids of the span that is being started."""

    trace_id: int
    span_id: int
    sampling_id: int
    """What a sampler is to decide by: it is spread evenly, as the run's own id is not."""


chosen: ContextVar[Chosen | None] = ContextVar("perdure_chosen_ids", default=None)


@contextmanager
def choosing(run_id: UUID, span_id: int) -> Iterator[None]:
    """Let the span that is started in the block have this id, and be of the run's trace."""
    token = chosen.set(Chosen(run_id.int, span_id, sampling_id(run_id)))
    try:
        yield
    finally:
        chosen.reset(token)


def root_span_id(run_id: UUID) -> int:
    """Return the id of the span of the run itself."""
    return _span_id(run_id, "run")


def segment_span_id(run_id: UUID, seq: int, epoch: int) -> int:
    """Return the id of the span of an execution of a segment."""
    return _span_id(run_id, f"{seq}:{epoch}")


def nested_span_id(run_id: UUID, seq: int, scope: str, agent: str = "") -> int:
    """Return the id of the span of an agent's call as a tool in a segment, or of that agent's."""
    return _span_id(run_id, f"{seq}:{scope}:{agent}")


def sampling_id(run_id: UUID) -> int:
    """Return what samplers decide by, instead of the trace id: they compare its low half."""
    return int.from_bytes(_hash(run_id, "sampling")[:16], "big")


def _span_id(run_id: UUID, of: str) -> int:
    # 0 is no id.
    return int.from_bytes(_hash(run_id, of)[:8], "big") or 1


def _hash(run_id: UUID, of: str) -> bytes:
    return hashlib.sha256(b"perdure:" + run_id.bytes + of.encode()).digest()

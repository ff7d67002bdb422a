"""Cancellations reach the runs that are under way in this process."""

from __future__ import annotations

import asyncio
from uuid import UUID

from perdure.runs.workflow import SegmentRunner


class Cancellations:
    """Hands on what is heard on the channel ``perdure_cancel``."""

    def __init__(self, runner: SegmentRunner) -> None:
        self._runner = runner
        self._looking: asyncio.Task[None] | None = None

    def heard(self, payload: str) -> None:
        """Cancel the run of the payload; an empty one says that some may have been missed."""
        if payload:
            self._runner.cancel(UUID(payload))
        elif self._runner.running:
            self._looking = asyncio.create_task(self._runner.cancel_requested())

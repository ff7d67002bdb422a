"""Cancellations and messages reach the runs that are under way in this process."""

from __future__ import annotations

import asyncio
from uuid import UUID

from perdure.notify import CANCEL, INPUT, Callback
from perdure.runs.workflow import SegmentRunner


class Asked:
    """Hands on what is heard on the channels ``perdure_cancel`` and ``perdure_input``."""

    def __init__(self, runner: SegmentRunner) -> None:
        self._runner = runner
        self._looking: asyncio.Task[None] | None = None

    def callbacks(self) -> dict[str, Callback]:
        """Return what to give to a ``Listener``."""
        return {CANCEL: self._cancel, INPUT: self._input}

    def _cancel(self, payload: str) -> None:
        # An empty one says that something may have been missed, here as on the other channel.
        if payload:
            self._runner.cancel(UUID(payload))
        elif self._runner.running:
            self._looking = asyncio.create_task(self._runner.look_again())

    def _input(self, payload: str) -> None:
        if payload:
            self._runner.input_added(UUID(payload))

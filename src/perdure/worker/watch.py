"""Names the tool that holds up the event loop: every run of the process waits for it.

A thread asks the loop to answer, a few times a second. When it does not, what the loop's thread is
doing is looked at from outside, and said while it lasts.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Self

import perdure
from perdure.runs.execution import calls_under_way

_LOG = logging.getLogger(__name__)
ASK_SECONDS = 0.5
PATIENCE_SECONDS = 1.0
"""How long the loop may be busy before somebody is named; then at each doubling of it."""
_STOP_SECONDS = 2.0
_NOT_THE_USERS = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("platlib"),
    sysconfig.get_path("purelib"),
    str(Path(perdure.__file__).parent),
)


class LoopWatch:
    """Watches the running event loop from a thread of its own, inside ``with``."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._answered.set()
        self._thread.join(_STOP_SECONDS)

    def _watch(self) -> None:
        while not self._stopping.wait(ASK_SECONDS):
            self._answered.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:  # the loop has ended
                return
            patience = PATIENCE_SECONDS
            while not self._answered.wait(asked + patience - time.monotonic()):
                self._name(time.monotonic() - asked)
                patience *= 2

    def _name(self, seconds: float) -> None:
        task = asyncio.current_task(self._loop)
        who = "Something" if task is None else calls_under_way.get(task, "Something")
        where = _place(sys._current_frames().get(self._loop_thread))
        _LOG.warning(
            "%s has held up the event loop for %.1f s%s: every run of this worker waits for it. "
            "A plain `def` tool runs in a thread of its own; in an async one use "
            "asyncio.to_thread() for what computes or blocks.",
            who,
            seconds,
            where,
        )


def _place(frame: FrameType | None) -> str:
    """Return where in the user's own code a callback of the loop is, or nothing."""
    while frame is not None and frame.f_code is not asyncio.Handle._run.__code__:
        code = frame.f_code
        if not code.co_filename.startswith(_NOT_THE_USERS) and not code.co_filename.startswith("<"):
            return f" (in {code.co_name}, {code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""

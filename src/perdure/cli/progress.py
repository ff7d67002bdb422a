"""How far a command is, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_EVERY_SECONDS = 0.2


class Progress:
    """Counts up in one line of stderr while its block lasts, and takes it away at the end."""

    def __init__(self, what: str) -> None:
        """``what`` is counted: ``lines``."""
        self._what = what
        self._count = 0
        self._shown = False
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            self._say("")

    def add(self, count: int = 1) -> None:
        """Count on."""
        self._count += count
        if sys.stderr.isatty() and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            self._shown = True
            self._say(f"{self._count:,} {self._what}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
